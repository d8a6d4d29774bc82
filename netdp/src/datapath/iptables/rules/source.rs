//! Whose source address becomes which.

use super::super::super::Proto;
use super::super::family::Family;
use super::{Chains, Network, Place, Rules, counter};

impl Rules<'_> {
    pub(super) fn sources(&self, chains: &mut Chains) {
        let post = self.chain("POST");
        self.jump(chains, "POSTROUTING", Place::First, "", "POST");
        chains.rule(&post, "-o lo -j RETURN");
        for (bridge, network) in self.networks() {
            let back = self.names.of_network("BACK", bridge);
            chains.rule(&post, format!("-o {} -g {back}", network.entry.bridge_ifname));
            self.sources_within(chains, &back, bridge, network);
        }
        for (bridge, network) in self.networks().filter(|(_, network)| network.translates(self.family)) {
            let snat = self.names.of_network("SNAT", bridge);
            for subnet in network.subnets(self.family) {
                chains.rule(&post, format!("-s {subnet} -g {snat}"));
            }
            for net in self.allowed_on(bridge) {
                chains.rule(&post, format!("-s {net} -g {snat}"));
            }
            self.outside(chains, &snat, network);
        }
    }

    /// An endpoint can't answer an address of its own, nor one of the host's loopback: it sees the gateway.
    fn sources_within(&self, chains: &mut Chains, back: &str, bridge: u32, network: &Network) {
        chains.chain(back);
        let Some(gateway) = network.gateways(self.family).next() else { return };
        let seen = format!("-j SNAT --to-source {gateway}");
        if self.family == Family::V4 {
            chains.rule(back, format!("-s {} {seen}", self.family.loopback()));
        }
        for endpoint in self.model.endpoints_of(bridge) {
            for addr in endpoint.addresses.iter().filter(|addr| self.family.has(addr)) {
                chains.rule(back, format!("-s {addr} -d {addr} {seen}"));
            }
        }
        if !network.filtered {
            // Neighbours answer each other past the host, which would have to translate the answer back.
            for subnet in network.subnets(self.family) {
                chains.rule(back, format!("-s {subnet} -m conntrack --ctstate DNAT {seen}"));
            }
        }
    }

    fn outside(&self, chains: &mut Chains, snat: &str, network: &Network) {
        let counted = self.count(chains, counter::SNAT_ALLOCATED, "RETURN");
        chains.rule(snat, format!("-j {counted}"));
        let (first, last) = network.entry.snat_ports;
        let ports = format!("{first}-{last}");
        for proto in [Proto::Tcp, Proto::Udp, Proto::Sctp] {
            let to = match network.snat_to(self.family) {
                Some(addr) => format!("SNAT --to-source {}", Family::with_ports(*addr, &ports)),
                None => format!("MASQUERADE --to-ports {ports}"),
            };
            chains.rule(snat, format!("-p {} -j {to} --random-fully", proto.name()));
        }
        let to = match network.snat_to(self.family) {
            Some(addr) => format!("SNAT --to-source {addr}"),
            None => "MASQUERADE".to_owned(),
        };
        chains.rule(snat, format!("-j {to} --random-fully"));
    }
}
