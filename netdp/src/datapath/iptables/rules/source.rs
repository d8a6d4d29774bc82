//! Whose source address becomes which.

use std::net::IpAddr;

use super::super::super::{EndpointEntry, Proto};
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
            let snat = self.names.of_external(0, bridge);
            for subnet in network.subnets(self.family) {
                chains.rule(&post, format!("-s {subnet} -g {snat}"));
            }
            for net in self.allowed_on(bridge) {
                chains.rule(&post, format!("-s {net} -g {snat}"));
            }
            self.outside(chains, bridge, network);
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

    /// Netfilter asks no other address where one has no port left: each endpoint has its own.
    fn outside(&self, chains: &mut Chains, bridge: u32, network: &Network) {
        let counted = self.count(chains, counter::SNAT_ALLOCATED, "RETURN");
        let first = self.names.of_external(0, bridge);
        chains.rule(&first, format!("-j {counted}"));
        let addresses: Vec<IpAddr> = network.snat_to(self.family).copied().collect();
        if addresses.len() > 1 {
            for endpoint in self.model.endpoints_of(bridge) {
                self.choose(chains, bridge, endpoint, addresses.len());
            }
        }
        self.translate(chains, &first, network, addresses.first());
        for (number, addr) in addresses.iter().enumerate().skip(1) {
            self.translate(chains, &self.names.of_external(number, bridge), network, Some(addr));
        }
    }

    /// Sends an endpoint to its external address, unless that is the first of these.
    fn choose(&self, chains: &mut Chains, bridge: u32, endpoint: &EndpointEntry, addresses: usize) {
        let Some(addr) = endpoint.addresses.iter().find(|addr| self.family.has(addr)) else { return };
        let number = number_of(*addr, addresses);
        if number == 0 {
            return;
        }
        let (first, own) = (self.names.of_external(0, bridge), self.names.of_external(number, bridge));
        let sources = std::iter::once(addr.to_string()).chain(self.allowed(endpoint));
        sources.for_each(|source| chains.rule(&first, format!("-s {source} -g {own}")));
    }

    fn translate(&self, chains: &mut Chains, chain: &str, network: &Network, addr: Option<&IpAddr>) {
        let (first, last) = network.entry.snat_ports;
        let ports = format!("{first}-{last}");
        for proto in [Proto::Tcp, Proto::Udp, Proto::Sctp] {
            let to = match addr {
                Some(addr) => format!("SNAT --to-source {}", Family::with_ports(*addr, &ports)),
                None => format!("MASQUERADE --to-ports {ports}"),
            };
            chains.rule(chain, format!("-p {} -j {to} --random-fully", proto.name()));
        }
        let to = match addr {
            Some(addr) => format!("SNAT --to-source {addr}"),
            None => "MASQUERADE".to_owned(),
        };
        chains.rule(chain, format!("-j {to} --random-fully"));
    }
}

/// Which of so many external addresses an endpoint has; as in [`netdp_common::flow::Network::external`].
fn number_of(endpoint: IpAddr, addresses: usize) -> usize {
    let last = match endpoint {
        IpAddr::V4(addr) => addr.to_bits(),
        IpAddr::V6(addr) => addr.to_bits() as u32,
    };
    last as usize % addresses
}
