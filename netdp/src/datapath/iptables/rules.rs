//! The rules: a pure function of the model.
//!
//! ```text
//! raw PREROUTING      who may have sent this? (spoofed)
//! mangle PREROUTING   addressed to an endpoint directly? (not_published, isolated)
//!                     to a published port that has sources? (not_allowed)
//! nat PREROUTING      published ports, for packets to addresses of this host
//! filter FORWARD      between networks, and out (internal, isolated, untranslated)
//! nat POSTROUTING     MASQUERADE, and what comes back to the network that it came from
//! nat OUTPUT          published ports, for the host itself
//! ```
//! A verdict of netdp's is the last word only in its own table and hook: the checks stand in tables where nobody
//! else accepts anything, and the accepting rules stand before everybody's.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::super::{EndpointEntry, PublishEntry};
use super::family::Family;
use super::model::{Model, Network};
use super::names::Names;
use super::ruleset::{Chains, Place, Ruleset, Table};

mod clients;
mod forward;
mod guard;
mod ingress;
mod ports;
mod source;

/// Chains that count. The drops' names are those of [`netdp_common::verdict::DropReason`].
pub(super) mod counter {
    pub(in super::super) const SPOOFED: &str = "spoofed";
    pub(in super::super) const NOT_PUBLISHED: &str = "not_published";
    pub(in super::super) const NOT_ALLOWED: &str = "not_allowed";
    pub(in super::super) const ISOLATED: &str = "isolated";
    pub(in super::super) const INTERNAL: &str = "internal";
    pub(in super::super) const UNTRANSLATED: &str = "untranslated";
    pub(in super::super) const NO_ROUTE: &str = "no_route";
    pub(in super::super) const PACKETS: &str = "packets";
    pub(in super::super) const SNAT_ALLOCATED: &str = "snat_allocated";
    /// Those that drop.
    pub(in super::super) const DROPS: [&str; 7] =
        [SPOOFED, NOT_PUBLISHED, NOT_ALLOWED, ISOLATED, INTERNAL, UNTRANSLATED, NO_ROUTE];
}

/// Everything that one family has.
pub(super) fn ruleset(model: &Model, instance: &str, family: Family) -> Ruleset {
    let names = Names::of(instance);
    let rules = Rules { model, names: &names, instance, family };
    let mut set = Ruleset::default();
    rules.ingress(set.table(Table::Raw));
    rules.direct(set.table(Table::Mangle));
    rules.clients(set.table(Table::Mangle));
    rules.published(set.table(Table::Nat));
    rules.sources(set.table(Table::Nat));
    rules.forward(set.table(Table::Filter));
    rules.guard(set.table(Table::Filter));
    set
}

/// A prefix as iptables-save shows it: one address has no length.
fn shown(net: &IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() { net.addr().to_string() } else { net.to_string() }
}

/// What all of them are made from.
struct Rules<'a> {
    model: &'a Model,
    names: &'a Names,
    instance: &'a str,
    family: Family,
}

impl<'a> Rules<'a> {
    fn chain(&self, what: &str) -> String {
        self.names.chain(what)
    }

    /// Networks with their bridge's ifindex.
    fn networks(&self) -> impl Iterator<Item = (u32, &'a Network)> {
        self.model.networks.iter().map(|(bridge, network)| (*bridge, network))
    }

    /// Published ports of this family.
    fn entries(&self) -> impl Iterator<Item = &'a PublishEntry> {
        let family = self.family;
        self.model.published.iter().filter(move |entry| family.has(&entry.endpoint))
    }

    /// What an endpoint may send from besides its addresses.
    fn allowed(&self, endpoint: &EndpointEntry) -> Vec<String> {
        endpoint.allowed.iter().filter(|net| self.family.has_net(net)).map(shown).collect()
    }

    /// What a network's endpoints may send from besides their addresses, each once.
    fn allowed_on(&self, bridge: u32) -> BTreeSet<String> {
        self.model.endpoints_of(bridge).flat_map(|endpoint| self.allowed(endpoint)).collect()
    }

    /// Jumps from a chain of the kernel's, with a remark whose it is.
    fn jump(&self, chains: &mut Chains, from: &'static str, place: Place, matches: &str, to: &str) {
        let remark = format!("-m comment --comment \"netdp {}\"", self.instance);
        let space = if matches.is_empty() { "" } else { " " };
        chains.jump(from, place, format!("{matches}{space}{remark}"), self.chain(to));
    }

    /// The chain that counts something, as a target.
    fn count(&self, chains: &mut Chains, what: &'static str, target: &'static str) -> String {
        let chain = self.chain(what);
        chains.counters.insert(chain.clone(), target);
        chain
    }

    /// The chain that drops for a reason.
    fn drop(&self, chains: &mut Chains, reason: &'static str) -> String {
        self.count(chains, reason, "DROP")
    }

    /// The chain that drops what comes from another network of this instance.
    fn peers(&self, chains: &mut Chains) -> String {
        let (peers, isolated) = (self.chain("PEERS"), self.drop(chains, counter::ISOLATED));
        if chains.chain(&peers).is_empty() {
            for (_, network) in self.networks() {
                chains.rule(&peers, format!("-i {} -j {isolated}", network.entry.bridge_ifname));
            }
        }
        peers
    }

    /// The chain that drops what is addressed to an endpoint and has no right to.
    fn denied(&self, chains: &mut Chains) -> String {
        let denied = self.chain("DENIED");
        if chains.chain(&denied).is_empty() {
            let (peers, closed) = (self.peers(chains), self.drop(chains, counter::NOT_PUBLISHED));
            chains.rule(&denied, format!("-j {peers}"));
            chains.rule(&denied, format!("-j {closed}"));
        }
        denied
    }
}

#[cfg(test)]
mod tests;
