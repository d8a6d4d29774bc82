//! Everything that a command of netdp can change, at one time: the host, the containers, the instance's files, pins
//! and maps. Two snapshots tell whether a command did all of it or nothing (G13).

use std::fs;
use std::path::{Path, PathBuf};

use aya::programs::{SchedClassifier, TcAttachType};

use crate::footprint::{Footprint, files_below, listings};
use crate::lab::Lab;
use crate::maps;
use crate::netns::{self, Netns};

/// What is compared of a container's namespace.
const INSIDE: [&str; 3] = ["ip -o link", "ip -o addr", "ip route show table all"];

/// What packets and time change by themselves.
const OF_PACKETS: [&str; 3] = ["CLOCK", "FLOWS", "RING"];

/// A lab at one time.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Snapshot {
    host: Footprint,
    lines: Vec<String>,
}

impl Snapshot {
    /// Takes stock of the lab's host, of its instance, and of these namespaces.
    pub fn of(lab: &Lab, containers: &[Netns]) -> Self {
        let mut lines = programs(&lab.host);
        for container in containers {
            let shown = listings(container, &INSIDE);
            lines.extend(shown.iter().map(|line| format!("{}: {line}", container.name())));
        }
        let named = netns::names().into_iter().filter(|name| name.starts_with(&lab.id));
        lines.extend(named.map(|name| format!("namespace {name}")));
        lines.extend(names(lab));
        lines.extend(files(&lab.netdp.state()));
        lines.extend(pins(&lab.netdp.pins()));
        let lines = lines.iter().filter_map(|line| without_carrier(line)).collect();
        let mut host = Footprint::of(&lab.host);
        host.listings = host.listings.iter().filter_map(|line| without_carrier(line)).collect();
        // Other instances come and go, and the first of the machine mounts it.
        host.mounts.retain(|mount| !mount.starts_with("bpf "));
        Self { host, lines }
    }

    /// What differs, line by line; empty if nothing does.
    pub fn differences(&self, after: &Self) -> Vec<String> {
        let mut found = self.host.differences(&after.host);
        let only_in = |a: &Self, b: &Self| {
            a.lines.iter().filter(|line| !b.lines.contains(line)).cloned().collect::<Vec<_>>()
        };
        found.extend(only_in(self, after).into_iter().map(|line| format!("gone: {line}")));
        found.extend(only_in(after, self).into_iter().map(|line| format!("new: {line}")));
        found
    }
}

/// A line without which name of a namespace `ip` shows, and without what follows a link's carrier, which comes and goes up to a second after its cause; none if all of it
/// does: the link-local addresses and their routes.
fn without_carrier(line: &str) -> Option<String> {
    const STATES: [&str; 8] =
        ["UP", "DOWN", "UNKNOWN", "LOWERLAYERDOWN", "linkdown", "dead", "forwarding", "disabled"];
    if line.contains("fe80:") || line.contains("ff00::") || line.contains("33:33:") {
        return None;
    }
    // A namespace may have two names, and `ip` shows the one that it finds first.
    let mut previous = "";
    let words = line.split_whitespace().filter(|word| std::mem::replace(&mut previous, word) != "link-netns");
    let words = words.map(|word| {
        // `<NO-CARRIER,BROADCAST,MULTICAST,UP>`: what the administrator has set is in UP.
        let flags = word.starts_with('<');
        if flags { word.replace("NO-CARRIER,", "").replace(",LOWER_UP", "") } else { word.to_owned() }
    });
    Some(words.filter(|word| !STATES.contains(&word.as_str())).collect::<Vec<_>>().join(" "))
}

/// TC programs of every link, in their order.
fn programs(host: &Netns) -> Vec<String> {
    let listed = host.sh("ip -o link");
    // `3: up0@if2: <...`
    let names = listed.lines().filter_map(|line| line.split([':', '@']).nth(1)).map(str::trim);
    let names: Vec<&str> = names.collect();
    let mut lines = Vec::new();
    let qdiscs = host.sh("tc qdisc");
    for qdisc in qdiscs.lines().filter(|line| line.starts_with("qdisc clsact")) {
        // `qdisc clsact ffff: dev up0 parent ffff:fff1`
        let name = qdisc.split_whitespace().nth(4).unwrap_or_default();
        for side in ["ingress", "egress"] {
            lines.push(format!(
                "clsact {name} {side}: {}",
                host.sh(&format!("tc filter show dev {name} {side}"))
            ));
        }
    }
    host.enter(|| {
        for name in names {
            for (side, attach) in [("ingress", TcAttachType::Ingress), ("egress", TcAttachType::Egress)] {
                let Ok((_, programs)) = SchedClassifier::query_tcx(name, attach) else { continue };
                let programs = programs
                    .iter()
                    .map(|program| format!("{} {}", program.id(), program.name_as_str().unwrap_or("?")));
                lines.push(format!("tcx {name} {side}: {}", programs.collect::<Vec<_>>().join(", ")));
            }
        }
        lines
    })
}

/// An instance's files and what is in them; its lock is left out.
fn files(dir: &Path) -> Vec<String> {
    let paths =
        files_below(dir).into_iter().filter(|path| path.file_name().is_none_or(|name| name != "lock"));
    // A revision counts commands; what they did is in the rest.
    let content = |path: &Path| {
        let text = fs::read_to_string(path).unwrap_or_default();
        text.lines().filter(|line| !line.contains("\"revision\":")).collect::<Vec<_>>().join(" ")
    };
    let line = |path: &Path| format!("{}: {}", path.display(), content(path));
    paths.map(|path| line(&path)).collect()
}

/// What `ip netns exec` shows in the lab's namespaces instead of the machine's files. Lines have no order.
pub fn names(lab: &Lab) -> Vec<String> {
    let files = files_below(Path::new("/etc/netns"));
    let ours = |path: &&PathBuf| path.to_string_lossy().contains(&lab.id);
    let mut lines = Vec::new();
    for path in files.iter().filter(ours) {
        lines.push(format!("{} is there", path.display()));
        let text = fs::read_to_string(path).unwrap_or_default();
        let active = text.lines().filter(|line| !line.starts_with('#'));
        lines.extend(active.map(|line| format!("{}: {}", path.display(), line.trim_end())));
    }
    lines.sort();
    lines
}

/// Pins, and what is in the maps that commands fill.
fn pins(dir: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    for path in files_below(dir) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        lines.push(format!("pin {}", path.display()));
        let is_map = path.parent().is_some_and(|parent| parent.ends_with("maps"));
        if is_map && maps::is_of_commands(&path) && !OF_PACKETS.iter().any(|prefix| name.starts_with(prefix))
        {
            lines.extend(maps::dump(&path).into_iter().map(|entry| format!("map {name}: {entry}")));
        }
    }
    lines
}

/// From here on no link of the namespace waits a second until its address is valid.
pub fn without_duplicate_detection(netns: &Netns) {
    for of in ["all", "default"] {
        netns.set_sysctl(&format!("net/ipv6/conf/{of}/accept_dad"), "0");
    }
}
