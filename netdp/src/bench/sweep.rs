//! Instances of netdp that belong to runs that were killed. Their namespaces are gone already: nobody held them.

use std::fs;
use std::path::Path;

use super::competitor::Competitor;
use super::{Error, command};
use crate::net::NetNs;

/// How every instance's name begins; the process id follows.
const PREFIX: &str = "ndbench-";

/// A name for a competitor's instance.
pub(super) fn new_id(competitor: Competitor) -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{PREFIX}{}-{number}-{}", std::process::id(), competitor.id())
}

/// Takes down what killed runs left.
pub(super) fn run() -> Result<(), Error> {
    let here = NetNs::create_anonymous()?;
    for dir in ["/run/netdp", "/sys/fs/bpf/netdp"] {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        for name in
            entries.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| is_dead(name))
        {
            command::netdp(&name, &here, &["down".into()])?;
        }
    }
    Ok(())
}

fn is_dead(name: &str) -> bool {
    let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
    pid.and_then(|pid| pid.parse::<u32>().ok())
        .is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_own_dead_names_are_swept() {
        assert!(!is_dead(&new_id(Competitor::NetdpEbpf)), "this process lives");
        assert!(is_dead("ndbench-4194305-0-netdp-ebpf"), "above the largest pid");
        for other in ["default", "ndbench-x-0", "ndt-4194305-abcdef"] {
            assert!(!is_dead(other), "{other}");
        }
    }
}
