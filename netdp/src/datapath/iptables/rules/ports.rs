//! Published ports.

use super::super::super::PublishEntry;
use super::super::family::Family;
use super::{Chains, Place, Rules};

impl Rules<'_> {
    /// For packets to addresses of this host only. What is published on 127.0.0.1 is in the way of the host's own
    /// packets alone.
    pub(super) fn published(&self, chains: &mut Chains) {
        let (ports, local) = (self.chain("PORTS"), self.chain("LOCAL"));
        let to_host = "-m addrtype --dst-type LOCAL";
        let from_wire = format!("! -d {} {to_host}", self.family.loopback());
        self.jump(chains, "PREROUTING", Place::First, &from_wire, "PORTS");
        // No way leads a packet from ::1 to another interface.
        let from_host = if self.family == Family::V4 { to_host } else { &from_wire };
        self.jump(chains, "OUTPUT", Place::First, from_host, "LOCAL");
        chains.chain(&ports);
        for entry in self.entries() {
            let loopback = entry.host_addr.is_some_and(|addr| addr.is_loopback());
            chains.rule(if loopback { &local } else { &ports }, rule(entry));
        }
        chains.rule(&local, format!("-j {ports}"));
    }
}

/// One rule for a port or range.
fn rule(entry: &PublishEntry) -> String {
    let to_addr = entry.host_addr.map(|addr| format!("-d {addr} ")).unwrap_or_default();
    let (proto, first, last) = (entry.proto.name(), entry.host_port, entry.host_port_end);
    let from = if first == last { first.to_string() } else { format!("{first}:{last}") };
    let to = if first == entry.port {
        entry.endpoint.to_string()
    } else if first == last {
        Family::with_ports(entry.endpoint, &entry.port.to_string())
    } else {
        // The host port less the base is what is added to the first one (iptables 1.8, Linux 4.18).
        let end = entry.port + (last - first);
        Family::with_ports(entry.endpoint, &format!("{}-{end}/{first}", entry.port))
    };
    format!("{to_addr}-p {proto} -m {proto} --dport {from} -j DNAT --to-destination {to}")
}
