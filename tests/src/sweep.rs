//! Removes what test processes that were killed left behind, and nothing else.

use std::path::Path;
use std::process::Command;
use std::sync::Once;
use std::{fs, process};

use crate::netdp::Netdp;
use crate::netns::{self, OwnedNetns};

/// Every name the lab gives away: `ndt-PID-RANDOM`, a namespace's with `-ROLE` behind it.
const PREFIX: &str = "ndt-";

/// A name for a lab; its process can be told from it.
pub(crate) fn new_id() -> String {
    let random = fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap_or_default();
    format!("{PREFIX}{}-{}", process::id(), random.get(..6).unwrap_or("000000"))
}

/// Once per test process: removes namespaces and instances whose process is gone.
pub(crate) fn once() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for id in directory_names("/run/netdp").chain(directory_names("/sys/fs/bpf/netdp")) {
            if is_dead(&id) {
                take_down(&id);
            }
        }
        for name in netns::names().into_iter().filter(|name| is_dead(name)) {
            drop(OwnedNetns::adopt(&name));
        }
    });
}

/// Whether the name is one of the lab's and its process is gone.
fn is_dead(name: &str) -> bool {
    let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
    pid.and_then(|pid| pid.parse::<u32>().ok())
        .is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
}

fn take_down(id: &str) {
    let host = format!("{id}-host");
    let mut down = Command::new(Netdp::default_binary());
    down.args(["--instance", id]);
    if netns::names().contains(&host) {
        down.args(["--host-netns", &host]);
        let _ = down.arg("down").output();
    }
    // What `down` could not remove, its host being gone: unpinning detaches.
    let _ = fs::remove_dir_all(Path::new("/sys/fs/bpf/netdp").join(id));
    let _ = fs::remove_dir_all(Path::new("/run/netdp").join(id));
}

fn directory_names(path: &str) -> impl Iterator<Item = String> + use<> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok())
}

#[cfg(test)]
mod tests {
    use super::{is_dead, new_id};

    #[test]
    fn only_the_labs_own_dead_names_are_swept() {
        assert!(!is_dead(&new_id()), "this process lives");
        assert!(is_dead("ndt-4194305-abcdef-world"), "above the largest pid");
        assert!(!is_dead("ndt-x-abcdef"));
        assert!(!is_dead("default"));
        assert!(!is_dead("web-4194305-abcdef"));
    }
}
