//! Which process has a socket open, as far as this process may look.

use std::fs;
use std::path::Path;

/// The first process found with a descriptor of that socket, and its name.
pub(super) fn of(inode: u64) -> Option<(u32, Option<String>)> {
    // An orphan's inode is 0.
    if inode == 0 {
        return None;
    }
    let target = format!("socket:[{inode}]");
    let processes = fs::read_dir("/proc").ok()?;
    let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let pid = pids.into_iter().find(|&pid| has_open(pid, &target))?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok();
    Some((pid, name.map(|name| name.trim_end().to_owned())))
}

fn has_open(pid: u32, target: &str) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    descriptors.flatten().any(|fd| fs::read_link(fd.path()).is_ok_and(|link| link == Path::new(target)))
}
