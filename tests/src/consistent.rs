//! Whether what an instance says it has is all that there is of it: on the host, in its files, pins and maps.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::footprint::files_below;
use crate::lab::{Lab, UPLINK};
use crate::maps;
use crate::variant::Datapath;

/// What an instance lists.
struct Listed {
    networks: Vec<Value>,
    /// Those with an interface.
    endpoints: Vec<Value>,
}

/// Every contradiction between the listings and the host; empty if there is none. Of published ports only single ones
/// are understood.
pub fn contradictions(lab: &Lab) -> Vec<String> {
    let list = |line: &str| lab.netdp.json(line).as_array().cloned().unwrap_or_default();
    let has_interface = |endpoint: &Value| !endpoint["host_ifname"].is_null();
    let endpoints = list("ls").into_iter().filter(has_interface).collect();
    let listed = Listed { networks: list("network ls"), endpoints };
    let mut found = duplicates(&listed);
    found.extend(links(lab, &listed));
    found.extend(neighbours(lab, &listed));
    found.extend(files(lab));
    found.extend(match lab.variant.datapath {
        Datapath::Ebpf => pinned(lab, &listed),
        Datapath::Iptables => ruled(lab, &listed),
    });
    found
}

/// What differs between two sets, each with a name.
fn differences<T: Ord + std::fmt::Debug>(
    what: &str,
    listed: &BTreeSet<T>,
    there: &BTreeSet<T>,
) -> Vec<String> {
    let missing = listed.difference(there).map(|one| format!("{what}: {one:?} is listed, and not there"));
    let left = there.difference(listed).map(|one| format!("{what}: {one:?} is there, and not listed"));
    missing.chain(left).collect()
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn duplicates(listed: &Listed) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for endpoint in &listed.endpoints {
        let addresses =
            endpoint["addresses"].as_array().into_iter().flatten().map(|addr| format!("address {addr}"));
        let ports = endpoint["published"].as_array().into_iter().flatten();
        let ports = ports
            .map(|port| format!("port {}/{} at {}", port["host_port"], port["proto"], port["host_addr"]));
        let mac = format!("MAC {}", endpoint["mac"]);
        for one in addresses.chain(ports).chain([mac]) {
            if !seen.insert(one.clone()) {
                found.push(format!("two endpoints have the {one}"));
            }
        }
    }
    found
}

fn links(lab: &Lab, listed: &Listed) -> Vec<String> {
    let mut names: BTreeSet<String> = ["lo", UPLINK].map(str::to_owned).into();
    names.extend(listed.networks.iter().map(|network| text(&network["bridge"])));
    names.extend(listed.endpoints.iter().map(|endpoint| text(&endpoint["host_ifname"])));
    let shown = lab.host.sh("ip -o link");
    // `3: up0@if2: <...`
    let there =
        shown.lines().filter_map(|line| line.split([':', '@']).nth(1)).map(|name| name.trim().to_owned());
    let mut found = differences("link", &names, &there.collect());
    for endpoint in &listed.endpoints {
        let (name, mac) = (text(&endpoint["host_ifname"]), text(&endpoint["mac"]));
        let fdb = lab.host.sh(&format!("bridge fdb show dev {name}"));
        if !fdb.lines().any(|line| line.starts_with(&mac) && line.contains("static")) {
            found.push(format!("{name}: no static entry of {mac}"));
        }
        let port = lab.host.sh(&format!("ip -d -o link show {name}"));
        if !port.contains("learning off flood off") {
            found.push(format!("{name}: the bridge learns or floods: {port}"));
        }
    }
    found
}

fn neighbours(lab: &Lab, listed: &Listed) -> Vec<String> {
    let of_endpoint = |endpoint: &Value| {
        let addresses = endpoint["addresses"].as_array().cloned().unwrap_or_default();
        let mac = text(&endpoint["mac"]);
        let bare = move |addr: Value| format!("{} {mac}", text(&addr).split('/').next().unwrap_or_default());
        addresses.into_iter().map(bare).collect::<Vec<_>>()
    };
    let expected: BTreeSet<String> = listed.endpoints.iter().flat_map(of_endpoint).collect();
    let shown = lab.host.sh("ip neigh show nud permanent");
    let there = shown.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        // `10.50.0.2 dev nd-blue lladdr 02:... PERMANENT`
        let mac = words.iter().position(|word| *word == "lladdr").and_then(|at| words.get(at + 1))?;
        Some(format!("{} {mac}", words.first()?))
    });
    differences("neighbour", &expected, &there.collect())
}

/// A state and a lock, nothing half done.
fn files(lab: &Lab) -> Vec<String> {
    let mut expected = BTreeSet::from(["lock", "state.json"].map(|name| lab.netdp.state().join(name)));
    if lab.variant.datapath == Datapath::Iptables {
        expected.insert(lab.netdp.state().join("iptables.json"));
    }
    let there = files_below(&lab.netdp.state()).into_iter();
    differences("file", &expected, &there.collect())
}

/// Rules for every endpoint and published port, and no others; none of them changed by somebody else.
fn ruled(lab: &Lab, listed: &Listed) -> Vec<String> {
    let mut found = Vec::new();
    for (program, sign) in [("iptables", '.'), ("ip6tables", ':')] {
        let rules = lab.host.sh(&format!("{program}-save"));
        let count = |what: &str| rules.lines().filter(|line| line.contains(what)).count();
        let [.., (_, endpoints), (_, published)] = entries(listed, sign);
        for (what, listed) in [("--physdev-in", endpoints), ("-j DNAT", published)] {
            if count(what) != listed {
                found.push(format!("{program}: {} rules with {what}, and {listed} listed", count(what)));
            }
        }
    }
    // Rules need no programs: loading them for trial takes longer than all the rest.
    let report = lab.netdp.json("--without ebpf doctor");
    let checks = report["checks"].as_array().into_iter().flatten();
    found
        .extend(checks.filter(|check| check["name"] == "rules" && check["ok"] != true).map(Value::to_string));
    found
}

fn pinned(lab: &Lab, listed: &Listed) -> Vec<String> {
    let pins = files_below(&lab.netdp.pins());
    let hooks = lab.variant.hooks();
    let links = pins.iter().filter(|pin| pin.parent().is_some_and(|parent| parent.ends_with(hooks)));
    let name =
        |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let there = links.map(|pin| name(pin)).filter(|name| name.ends_with("-from_container")).collect();
    let expected =
        listed.endpoints.iter().map(|endpoint| format!("{}-from_container", endpoint["host_ifindex"]));
    let mut found = differences("pin", &expected.collect(), &there);
    let state = fs::read_to_string(lab.netdp.state().join("state.json")).unwrap_or_default();
    let state: Value = serde_json::from_str(&state).unwrap_or_default();
    let (said, there) = (state["xdp"].as_str().unwrap_or("off"), xdp_mode(lab, UPLINK));
    if said != there {
        found.push(format!("the XDP program: {there} on {UPLINK}, and {said} in the state"));
    }
    for (family, sign) in [("V4", '.'), ("V6", ':')] {
        for (map, count) in entries(listed, sign) {
            let map = format!("{map}_{family}");
            let pin = pins.iter().find(|pin| pin.ends_with(&map));
            let entries = pin.map_or(0, |pin| maps::dump(pin).len());
            if entries != count {
                found.push(format!("map {map}: {entries} entries, and {count} listed"));
            }
        }
    }
    found
}

/// The mode in which an interface of the host carries an XDP program, as `--xdp` calls it.
pub fn xdp_mode(lab: &Lab, interface: &str) -> &'static str {
    let shown = lab.host.sh(&format!("ip -o link show {interface}"));
    match shown.split_whitespace().find(|word| word.starts_with("xdp")) {
        None => "off",
        Some("xdp") => "native",
        Some("xdpgeneric") => "generic",
        Some(other) => panic!("{other}: {shown}"),
    }
}

/// How many entries a family's maps have. Its addresses have this sign in them; networks and senders are in both.
fn entries(listed: &Listed, sign: char) -> [(&'static str, usize); 4] {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let of_family = |value: &Value| text(value).contains(sign);
    let endpoints =
        listed.endpoints.iter().filter(|endpoint| list(&endpoint["addresses"]).iter().any(of_family));
    let applies = |port: &&Value| port["host_addr"].is_null() || of_family(&port["host_addr"]);
    let published = |endpoint: &Value| list(&endpoint["published"]).iter().filter(applies).count();
    [
        ("NETWORKS", listed.networks.len()),
        ("SENDERS", listed.endpoints.len()),
        ("ENDPOINTS", endpoints.clone().count()),
        ("PUBLISHED", endpoints.map(published).sum()),
    ]
}
