//! What a host has of everything that netdp could leave behind.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use aya::maps::MapInfo;
use aya::programs::{ProgramInfo, loaded_programs};

use crate::netdp::Netdp;
use crate::netns::Netns;
use crate::sysctl::{self, Sysctls};

/// Links, addresses, routes, neighbours, rules and qdiscs of a namespace.
const LISTINGS: [&str; 9] = [
    "ip -d link",
    "ip -o addr",
    "ip route show table all",
    "ip -6 route show table all",
    "ip rule",
    "ip neigh show nud permanent",
    "bridge fdb",
    "tc qdisc",
    "nft list ruleset",
];

/// A host at one time.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Footprint {
    /// What commands list, line by line.
    pub listings: Vec<String>,
    /// The machine's mounts.
    pub mounts: Vec<String>,
    /// All of /proc/sys/net.
    pub sysctls: Sysctls,
}

impl Footprint {
    /// Takes stock.
    pub fn of(host: &Netns) -> Self {
        let listings = listings(host, &LISTINGS).iter().map(|line| without_times(line)).collect();
        Self { listings, mounts: mounts(), sysctls: sysctl::read_all(host) }
    }

    /// What differs, line by line; empty if nothing does.
    pub fn differences(&self, after: &Self) -> Vec<String> {
        let mut found = sysctl::changed(&self.sysctls, &after.sysctls);
        found.extend(
            sysctl::added(&self.sysctls, &after.sysctls).into_iter().map(|name| format!("new: {name}")),
        );
        found.extend(lines_gone("gone", &self.listings, &after.listings));
        found.extend(lines_gone("new", &after.listings, &self.listings));
        found.extend(lines_gone("unmounted", &self.mounts, &after.mounts));
        found.extend(lines_gone("mounted", &after.mounts, &self.mounts));
        found
    }
}

/// What commands list, each line with its command in front.
pub fn listings(netns: &Netns, commands: &[&str]) -> Vec<String> {
    // One shell for all: to fork this process costs more than the commands.
    let script: String = commands.iter().map(|command| format!("echo '# {command}'; {command}; ")).collect();
    let output = netns.command("sh").args(["-e", "-c", &script]).output().expect("running sh");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script} in {}: {stderr}", netns.name());
    let mut command = String::new();
    let mut lines = Vec::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        match line.strip_prefix("# ") {
            Some(next) => next.clone_into(&mut command),
            None => lines.push(format!("{command}: {line}")),
        }
    }
    lines
}

fn lines_gone(what: &str, before: &[String], after: &[String]) -> Vec<String> {
    let after: BTreeSet<&String> = after.iter().collect();
    before.iter().filter(|line| !after.contains(line)).map(|line| format!("{what}: {line}")).collect()
}

/// The machine's mounts, but for the names of network namespaces: other labs come and go.
fn mounts() -> Vec<String> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts.lines().filter(|line| !line.starts_with("nsfs ")).map(str::to_owned).collect()
}

/// The line without what changes by itself: seconds that are left, the values behind `…_timer`, and counters of rules.
fn without_times(line: &str) -> String {
    let mut kept = Vec::new();
    let mut words = line.split_whitespace();
    while let Some(word) = words.next() {
        if word.ends_with("_timer") || (kept.last() == Some(&"counter") && word == "packets") {
            words.next();
        } else if word == "bytes" && kept.last() == Some(&"counter") {
            words.next();
        } else if !word.ends_with("sec") {
            kept.push(word);
        }
    }
    kept.join(" ")
}

/// Kernel objects of an instance, by id.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Objects {
    /// Programs.
    pub programs: BTreeSet<u32>,
    /// Maps.
    pub maps: BTreeSet<u32>,
}

impl Objects {
    /// What is pinned, and the maps that the pinned or attached programs use.
    pub fn pinned(netdp: &Netdp) -> Self {
        let mut objects = Self::default();
        for file in files_below(&netdp.pins()) {
            if let Ok(program) = ProgramInfo::from_pin(&file) {
                objects.programs.insert(program.id());
                objects.maps.extend(program.map_ids().ok().flatten().unwrap_or_default());
            } else if let Ok(map) = MapInfo::from_pin(&file) {
                objects.maps.insert(map.id());
            }
        }
        let users = loaded_programs().flatten().filter(|program| {
            let maps = program.map_ids().ok().flatten().unwrap_or_default();
            maps.iter().any(|map| objects.maps.contains(map))
        });
        objects.programs.extend(users.map(|program| program.id()).collect::<Vec<_>>());
        objects
    }

    /// Those that the kernel still has.
    pub fn still_there(&self) -> Self {
        let programs = loaded_programs().flatten().map(|program| program.id()).collect::<BTreeSet<_>>();
        let maps = aya::maps::loaded_maps().flatten().map(|map| map.id()).collect::<BTreeSet<_>>();
        Self {
            programs: self.programs.intersection(&programs).copied().collect(),
            maps: self.maps.intersection(&maps).copied().collect(),
        }
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.programs.is_empty() && self.maps.is_empty()
    }
}

/// All files below a directory, with those of its directories.
pub fn files_below(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

#[cfg(test)]
mod tests {
    use super::without_times;

    #[test]
    fn timers_and_counters_are_left_out() {
        assert_eq!(
            without_times("ip saddr 10.0.0.1 counter packets 5 bytes 380 jump x"),
            "ip saddr 10.0.0.1 counter jump x"
        );
        assert_eq!(
            without_times("root_port 0 hello_timer 0.12 mtu 1500 valid_lft 86sec x"),
            "root_port 0 mtu 1500 valid_lft x"
        );
    }
}
