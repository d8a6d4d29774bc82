//! Instances of netdp that belong to runs that were killed. Their namespaces are gone already: nobody held them.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::competitor::Competitor;
use super::{Error, command};
use crate::net::NetNs;

/// How often a namespace that is still held is looked at again.
const TICK: Duration = Duration::from_millis(100);
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
            take_down(&name, &here)?;
        }
    }
    Ok(())
}

/// The step that a killed run was at goes on as a process of its own, and holds the namespace until it is done.
fn take_down(name: &str, here: &NetNs) -> Result<(), Error> {
    let since = Instant::now();
    loop {
        match command::netdp(name, here, &["down".into()]) {
            Err(_) if since.elapsed() < command::PATIENCE => thread::sleep(TICK),
            ended => return ended.map(drop),
        }
    }
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
