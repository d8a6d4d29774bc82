//! Every sysctl below /proc/sys/net, to see who changed one.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::netns::Netns;

/// Values by path, in one namespace at one time.
pub type Sysctls = BTreeMap<String, String>;

/// Changes by themselves.
const VOLATILE: [&str; 2] = ["net/netfilter/nf_conntrack_count", "net/core/flow_limit_cpu_bitmap"];

/// Reads them all.
pub fn read_all(netns: &Netns) -> Sysctls {
    netns.enter(|| {
        let mut values = Sysctls::new();
        walk(Path::new("/proc/sys/net"), &mut values);
        values
    })
}

fn walk(directory: &Path, values: &mut Sysctls) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            walk(&path, values);
        } else if let Ok(value) = fs::read_to_string(&path) {
            let name = path.strip_prefix("/proc/sys").unwrap_or(&path).to_string_lossy().into_owned();
            if !VOLATILE.contains(&name.as_str()) {
                values.insert(name, value.trim().to_owned());
            }
        }
    }
}

/// Those that changed or went, as `name: old -> new`.
pub fn changed(before: &Sysctls, after: &Sysctls) -> Vec<String> {
    let differs = |(name, old): (&String, &String)| match after.get(name) {
        Some(new) if new == old => None,
        new => Some(format!("{name}: {old} -> {}", new.map_or("gone", String::as_str))),
    };
    before.iter().filter_map(differs).collect()
}

/// Those that are new.
pub fn added<'a>(before: &'a Sysctls, after: &'a Sysctls) -> Vec<&'a str> {
    after.keys().filter(|name| !before.contains_key(*name)).map(String::as_str).collect()
}
