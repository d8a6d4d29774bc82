//! What is checked of a packet before anything is done with it.

use super::{Chains, Place, Rules, counter};

impl Rules<'_> {
    /// An endpoint's packets come by its own veth, with its own MAC and address. What the bridge forwards by itself is
    /// checked too where br_netfilter shows it; ARP never is.
    pub(super) fn ingress(&self, chains: &mut Chains) {
        let from = self.chain("FROM");
        let spoofed = self.drop(chains, counter::SPOOFED);
        self.jump(chains, "PREROUTING", Place::First, "", "FROM");
        chains.rule(&from, "-i lo -j RETURN");
        for (bridge, network) in self.networks() {
            let own = self.names.of_network("IN", bridge);
            chains.rule(&from, format!("-i {} -g {own}", network.entry.bridge_ifname));
            self.senders(chains, &own, bridge, network.filtered);
        }
        // Behind the bridges: who has an endpoint's address anywhere else is not that endpoint.
        for (_, network) in self.networks() {
            for net in network.subnets(self.family) {
                chains.rule(&from, format!("-s {net} -j {spoofed}"));
            }
        }
    }

    fn senders(&self, chains: &mut Chains, own: &str, bridge: u32, by_port: bool) {
        let closed = self.drop(chains, counter::NOT_PUBLISHED);
        // The bridge has route_localnet, so that answers to the host's 127.0.0.1 are taken; nothing else may be.
        chains.rule(own, format!("-d {} -j {closed}", self.family.loopback()));
        for endpoint in self.model.endpoints_of(bridge) {
            let port = if by_port {
                format!(" -m physdev --physdev-in {}", endpoint.host_ifname)
            } else {
                String::new()
            };
            let mac = crate::net::Mac(endpoint.mac);
            let own_addresses = endpoint.addresses.iter().filter(|addr| self.family.has(addr));
            let sources = own_addresses.map(ToString::to_string).chain(self.allowed(endpoint));
            for source in sources {
                chains.rule(own, format!("-s {source}{port} -m mac --mac-source {mac} -j RETURN"));
            }
        }
        for anybody in self.family.anybody() {
            chains.rule(own, format!("-s {anybody} -j RETURN"));
        }
        let spoofed = self.chain(counter::SPOOFED);
        chains.rule(own, format!("-j {spoofed}"));
    }

    /// What is not published is not reachable, whatever FORWARD says. Behind connection tracking, because answers are
    /// addressed to endpoints too; before NAT, because what is published isn't yet.
    pub(super) fn direct(&self, chains: &mut Chains) {
        let direct = self.chain("DIRECT");
        self.jump(chains, "PREROUTING", Place::First, "", "DIRECT");
        chains.rule(&direct, "-i lo -j RETURN");
        chains.rule(&direct, "-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN");
        for (_, network) in self.networks() {
            for gateway in network.gateways(self.family) {
                chains.rule(&direct, format!("-d {gateway} -j RETURN"));
            }
        }
        for (bridge, network) in self.networks() {
            let to = if network.entry.routed { self.peers(chains) } else { self.denied(chains) };
            for subnet in network.subnets(self.family) {
                chains.rule(&direct, format!("! -i {} -d {subnet} -j {to}", network.entry.bridge_ifname));
            }
            for net in self.allowed_on(bridge) {
                chains.rule(&direct, format!("! -i {} -d {net} -j {to}", network.entry.bridge_ifname));
            }
        }
    }
}
