//! Finds the cgroup v2 tree.

use std::fs;
use std::path::PathBuf;

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

/// Where the whole tree usually is: on unified hosts, and on hybrid ones beside cgroup v1.
const USUAL: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// The mount point of cgroup v2; none if it isn't mounted. The usual places come first: elsewhere it may be a bind
/// mount of a part of the tree.
pub fn find_cgroup2() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/thread-self/mounts").ok()?;
    // A mount that another one hides is listed too.
    let visible = |dir: &PathBuf| statfs(dir).is_ok_and(|stat| stat.filesystem_type() == CGROUP2_SUPER_MAGIC);
    candidates(&mounts).into_iter().find(visible)
}

/// Every place where cgroup v2 is mounted, the likeliest first.
fn candidates(mounts: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = mounts.lines().filter_map(cgroup2).collect();
    found.sort_by_key(|dir| USUAL.iter().position(|usual| dir.as_os_str() == *usual).unwrap_or(USUAL.len()));
    found
}

/// The mount point of a line of `/proc/PID/mounts`, if cgroup v2 is mounted there.
fn cgroup2(line: &str) -> Option<PathBuf> {
    let mut fields = line.split(' ').skip(1);
    let dir = fields.next()?;
    (fields.next()? == "cgroup2").then(|| unescape(dir).into())
}

/// The kernel writes blank, tab, newline and backslash as `\` and three octal digits.
fn unescape(text: &str) -> String {
    [(r"\040", " "), (r"\011", "\t"), (r"\012", "\n"), (r"\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (code, char)| text.replace(code, char))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_places_come_first() {
        let mounts = "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                      cgroup2 /mnt/with\\040blank cgroup2 rw 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n\
                      cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n";
        let expected = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/mnt/with blank"].map(PathBuf::from);
        assert_eq!(candidates(mounts), expected);
        assert_eq!(candidates("tmpfs /sys/fs/cgroup tmpfs rw 0 0\n"), [] as [PathBuf; 0]);
    }
}
