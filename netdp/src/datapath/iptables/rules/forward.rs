//! Between networks, in and out.

use super::super::family::Family;
use super::{Chains, Network, Place, Rules, counter};

/// Of a connection that was let through.
const KNOWN: &str = "-m conntrack --ctstate RELATED,ESTABLISHED";
/// Of a connection to a published port.
const PUBLISHED: &str = "-m conntrack --ctstate DNAT";
/// Who has this address, and I have it (RFC 4861, 4.3 and 4.4): what ARP is in IPv4, and netfilter sees it.
const DISCOVERY: [u8; 2] = [135, 136];

impl Rules<'_> {
    /// Stands before everybody's rules: with Docker's `FORWARD DROP`, who isn't accepted here isn't anywhere.
    pub(super) fn forward(&self, chains: &mut Chains) {
        let forward = self.chain("FORWARD");
        self.jump(chains, "FORWARD", Place::First, "", "FORWARD");
        chains.chain(&forward);
        for (bridge, network) in self.networks() {
            let to = self.names.of_network("TO", bridge);
            chains.rule(&forward, format!("-o {} -g {to}", network.entry.bridge_ifname));
            self.towards_network(chains, &to, bridge, network);
        }
        for (bridge, network) in self.networks() {
            let out = self.names.of_network("OUT", bridge);
            chains.rule(&forward, format!("-i {} -g {out}", network.entry.bridge_ifname));
            self.out_of_network(chains, &out, network);
        }
    }

    fn towards_network(&self, chains: &mut Chains, to: &str, bridge: u32, network: &Network) {
        let lan = self.names.of_network("LAN", bridge);
        let translated = self.count(chains, counter::PACKETS, "ACCEPT");
        let internal = self.drop(chains, counter::INTERNAL);
        chains.rule(to, format!("-i {} -g {lan}", network.entry.bridge_ifname));
        self.within_network(chains, &lan, network);
        chains.rule(to, format!("{KNOWN} -g {translated}"));
        if network.entry.internal {
            chains.rule(to, format!("-j {internal}"));
            return;
        }
        for (other, inner) in self.networks() {
            if other != bridge && inner.entry.internal {
                chains.rule(to, format!("-i {} -j {internal}", inner.entry.bridge_ifname));
            }
        }
        chains.rule(to, format!("{PUBLISHED} -g {translated}"));
        if network.entry.routed {
            let peers = self.peers(chains);
            chains.rule(to, format!("-j {peers}"));
            chains.rule(to, "-j ACCEPT");
        } else {
            let denied = self.denied(chains);
            chains.rule(to, format!("-g {denied}"));
        }
    }

    /// What the bridge forwards by itself comes here with br_netfilter only.
    fn within_network(&self, chains: &mut Chains, lan: &str, network: &Network) {
        if network.entry.no_icc {
            let isolated = self.drop(chains, counter::ISOLATED);
            chains.rule(lan, format!("{KNOWN} -j ACCEPT"));
            chains.rule(lan, format!("{PUBLISHED} -j ACCEPT"));
            if self.family == Family::V6 {
                // Who was reached at a published port has to find its neighbour to answer.
                for kind in DISCOVERY {
                    chains.rule(lan, format!("-p ipv6-icmp -m icmp6 --icmpv6-type {kind} -j ACCEPT"));
                }
            }
            chains.rule(lan, format!("-j {isolated}"));
        } else {
            chains.rule(lan, "-j ACCEPT");
        }
    }

    fn out_of_network(&self, chains: &mut Chains, out: &str, network: &Network) {
        if network.entry.internal {
            let internal = self.drop(chains, counter::INTERNAL);
            chains.rule(out, format!("-j {internal}"));
            return;
        }
        if network.translates(self.family) {
            // NAT leaves alone what connection tracking can't make sense of.
            let untranslated = self.drop(chains, counter::UNTRANSLATED);
            chains.rule(out, format!("-m conntrack --ctstate INVALID,UNTRACKED -j {untranslated}"));
        }
        let translated = self.count(chains, counter::PACKETS, "ACCEPT");
        chains.rule(out, format!("-g {translated}"));
    }
}
