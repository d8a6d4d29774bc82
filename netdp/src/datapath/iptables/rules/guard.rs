//! The host does not become a router for others.

use super::{Chains, Place, Rules, counter};

impl Rules<'_> {
    /// An uplink forwards because answers to endpoints come by it. Before netdp it forwarded nothing, so whatever else
    /// comes goes nowhere, as before. Behind everybody's rules: who accepts something means it.
    pub(super) fn guard(&self, chains: &mut Chains) {
        let Some(uplinks) = self.model.guarded.get(&self.family).filter(|uplinks| !uplinks.is_empty()) else {
            return;
        };
        let guard = self.chain("GUARD");
        let no_route = self.drop(chains, counter::NO_ROUTE);
        self.jump(chains, "FORWARD", Place::Last, "", "GUARD");
        chains.rule(&guard, "-m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j RETURN");
        for uplink in uplinks {
            chains.rule(&guard, format!("-i {uplink} -j {no_route}"));
        }
    }
}
