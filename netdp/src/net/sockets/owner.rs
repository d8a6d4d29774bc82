//! Which process has a socket open, as far as this process may look.

use std::fs;
use std::path::Path;

/// The oldest process with a descriptor of that socket, and its name: its children may have inherited it, if only until
/// they execute another program.
pub(super) fn of(inode: u64) -> Option<(u32, Option<String>)> {
    // An orphan's inode is 0.
    if inode == 0 {
        return None;
    }
    let target = format!("socket:[{inode}]");
    let processes = fs::read_dir("/proc").ok()?;
    let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let pid = pids.filter(|&pid| has_open(pid, &target)).min_by_key(|&pid| started(pid))?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok();
    Some((pid, name.map(|name| name.trim_end().to_owned())))
}

/// When it started, in clock ticks since boot: the 22nd field of `/proc/PID/stat`, the 20th behind the name, which is in
/// parentheses and may have some itself. Who is gone counts as the youngest.
fn started(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let behind_name = stat.rsplit_once(')').map_or("", |(_, behind)| behind);
    behind_name.split_whitespace().nth(19).and_then(|ticks| ticks.parse().ok()).unwrap_or(u64::MAX)
}

fn has_open(pid: u32, target: &str) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    descriptors.flatten().any(|fd| fs::read_link(fd.path()).is_ok_and(|link| link == Path::new(target)))
}
