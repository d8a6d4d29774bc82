//! What people use today: iptables' MASQUERADE and DNAT, or nftables' masquerade and a map.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use super::Forward;
use crate::bench::arena::{HOST, UPLINK};
use crate::bench::competitor::Competitor;
use crate::bench::{Error, command};
use crate::net::{NetNs, conntrack};

/// The table, of either kind.
const NFT_TABLE: &str = "bench";

/// NAT by netfilter.
#[derive(Clone, Copy, Debug)]
pub(in crate::bench) enum Nat {
    /// iptables.
    Iptables,
    /// nftables.
    Nftables,
}

impl Nat {
    /// Adds the rules.
    pub(super) fn set_up(competitor: Competitor, host: &NetNs) -> Result<Self, Error> {
        if competitor == Competitor::Nftables {
            command::run_with_input(host, "nft -f -", &nft_table())?;
            return Ok(Self::Nftables);
        }
        let random = if competitor == Competitor::RandomFully { " --random-fully" } else { "" };
        let rule = format!("-A POSTROUTING -s 10.88.0.0/24 -o {UPLINK} -j MASQUERADE{random}");
        restore(host, &rule)?;
        Ok(Self::Iptables)
    }

    /// Leads ports of the host to a container, all in one transaction.
    pub(super) fn publish(self, host: &NetNs, to: Ipv4Addr, forwards: &[Forward]) -> Result<(), Error> {
        match self {
            Self::Iptables => restore(host, &dnat_rules(to, forwards)),
            Self::Nftables => {
                command::run_with_input(host, "nft -f -", &nft_elements(to, forwards)).map(drop)
            }
        }
    }

    /// Takes all of them back.
    pub(super) fn unpublish(self, host: &NetNs) -> Result<(), Error> {
        match self {
            Self::Iptables => command::run(host, "iptables -w -t nat -F PREROUTING").map(drop),
            Self::Nftables => {
                let flush: String =
                    ["tcp", "udp"].map(|proto| format!("flush map ip {NFT_TABLE} {proto}_ports\n")).concat();
                command::run_with_input(host, "nft -f -", &flush).map(drop)
            }
        }
    }
}

/// Deletes every connection that is tracked there.
pub(super) fn forget_flows(host: &NetNs) -> Result<(), Error> {
    Ok(host.run(conntrack::delete_all)??)
}

fn restore(host: &NetNs, rules: &str) -> Result<(), Error> {
    let input = format!("*nat\n{rules}\nCOMMIT\n");
    command::run_with_input(host, "iptables-restore -w --noflush", &input).map(drop)
}

/// One rule for each forward, a range too: `--to-destination` with a base port shifts it.
fn dnat_rules(to: Ipv4Addr, forwards: &[Forward]) -> String {
    let mut rules = String::new();
    for forward in forwards {
        let Forward { host_port, port, count, transport } = *forward;
        let (last, last_port, proto) = (host_port + (count - 1), port + (count - 1), transport.name());
        let (dport, target) = if count == 1 {
            (host_port.to_string(), format!("{to}:{port}"))
        } else {
            (format!("{host_port}:{last}"), format!("{to}:{port}-{last_port}/{host_port}"))
        };
        // Writing to a string does not fail.
        let _ = writeln!(
            rules,
            "-A PREROUTING -d {HOST}/32 -p {proto} --dport {dport} -j DNAT --to-destination {target}"
        );
    }
    rules
}

fn nft_table() -> String {
    let map = |proto| format!("map {proto}_ports {{ type inet_service : ipv4_addr . inet_service; }}\n");
    let rule = |proto| format!("ip daddr {HOST} dnat to {proto} dport map @{proto}_ports\n");
    format!(
        "table ip {NFT_TABLE} {{\n{}{}\
         chain pre {{ type nat hook prerouting priority dstnat;\n{}{}}}\n\
         chain post {{ type nat hook postrouting priority srcnat;\n\
         ip saddr 10.88.0.0/24 oifname {UPLINK} masquerade\n}}\n}}\n",
        map("tcp"),
        map("udp"),
        rule("tcp"),
        rule("udp"),
    )
}

/// A map has no ranges that shift: each port is an element.
fn nft_elements(to: Ipv4Addr, forwards: &[Forward]) -> String {
    let mut elements = String::new();
    for proto in ["tcp", "udp"] {
        let ports = forwards.iter().filter(|forward| forward.transport.name() == proto);
        let pairs: Vec<String> = ports
            .flat_map(|forward| (0..forward.count).map(|n| (forward.host_port + n, forward.port + n)))
            .map(|(host_port, port)| format!("{host_port} : {to} . {port}"))
            .collect();
        if !pairs.is_empty() {
            // Writing to a string does not fail.
            let _ = writeln!(elements, "add element ip {NFT_TABLE} {proto}_ports {{ {} }}", pairs.join(", "));
        }
    }
    elements
}
