//! Finds the cgroup v2 tree.

use std::fs;
use std::path::{Path, PathBuf};

/// Where the whole tree usually is: on unified hosts, and on hybrid ones beside cgroup v1.
const USUAL: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// The mount point of cgroup v2; none if it isn't mounted. The usual places come first: elsewhere it may be a bind
/// mount of a part of the tree.
pub fn find_cgroup2() -> Option<PathBuf> {
    find(&fs::read_to_string("/proc/self/mounts").ok()?)
}

fn find(mounts: &str) -> Option<PathBuf> {
    let found: Vec<PathBuf> = mounts.lines().filter_map(cgroup2).collect();
    let usual = found.iter().find(|dir| USUAL.iter().any(|usual| Path::new(usual) == dir.as_path()));
    usual.or_else(|| found.first()).cloned()
}

/// The mount point of a line of `/proc/self/mounts`, if cgroup v2 is mounted there.
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

    const V1: &str = "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n";

    #[test]
    fn the_usual_place_comes_first() {
        let elsewhere = "cgroup2 /mnt/with\\040blank cgroup2 rw 0 0\n";
        let unified = "cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(find(V1), None);
        assert_eq!(find(&format!("{V1}{elsewhere}")), Some("/mnt/with blank".into()));
        assert_eq!(find(&format!("{V1}{elsewhere}{unified}")), Some("/sys/fs/cgroup/unified".into()));
    }
}
