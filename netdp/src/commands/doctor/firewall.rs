//! What `doctor` sees of the host's firewall, which each datapath meets in its own way.

use std::fs;

use super::Check;
use crate::datapath::Kind;
use crate::error::Error;
use crate::net::forwarding::{self, ForwardChain};
use crate::net::sysctl;
use crate::output;
use crate::state::Network;

/// firewalld's table.
const FIREWALLD: &str = "firewalld";

/// Who else decides about forwarded packets, and what that means for a datapath's.
pub(super) fn check<'a>(
    datapath: Option<Kind>,
    networks: impl Iterator<Item = &'a Network>,
) -> Result<Check, Error> {
    let chains = forwarding::chains()?;
    if datapath != Some(Kind::Iptables) {
        return Ok(Check::new("firewall", true, bypassed(&chains)));
    }
    let others: Vec<ForwardChain> = chains.into_iter().filter(|chain| !chain.is_of_iptables()).collect();
    if others.is_empty() {
        return Ok(Check::new("firewall", true, "nobody but iptables decides what is forwarded"));
    }
    let mut strangers = Vec::new();
    for network in networks {
        let known = forwarding::tables_naming(&network.bridge)?;
        let knows =
            |chain: &ForwardChain| known.iter().any(|table| *table == (chain.family, chain.table.clone()));
        let ignorant = others.iter().filter(|chain| !knows(chain));
        strangers.extend(ignorant.map(|chain| stranger(chain, &network.bridge)));
    }
    if strangers.is_empty() {
        let detail =
            format!("{} decide too what is forwarded, whatever netdp accepts", output::joined(&others));
        return Ok(Check::new("firewall", true, detail));
    }
    Ok(Check::new("firewall", false, strangers.join("; ")))
}

/// What the fast path goes around. Not wrong, but to be known.
fn bypassed(chains: &[ForwardChain]) -> String {
    let tables = fs::read_to_string("/proc/thread-self/net/ip_tables_names").unwrap_or_default();
    let bridged = sysctl::get(&["net", "bridge", "bridge-nf-call-iptables"]).is_ok_and(|value| value == "1");
    let mut detail = "the fast path goes around the FORWARD and DOCKER-USER chains, nft forward, raw and netdev rules, and qdiscs of host veths".to_owned();
    let mut filters: Vec<String> = chains.iter().map(ToString::to_string).collect();
    if tables.lines().any(|table| table == "filter") {
        filters.push("iptables-legacy's filter table".to_owned());
    }
    if !filters.is_empty() {
        detail.push_str(&format!("; here, {} don't see translated packets", output::joined(&filters)));
    }
    if bridged {
        detail.push_str("; bridge-nf-call-iptables is 1: what the bridge itself forwards passes FORWARD");
    }
    detail
}

/// A chain without a word about a bridge: by its rules for everybody, it may drop what netdp accepts.
fn stranger(chain: &ForwardChain, bridge: &str) -> String {
    let remedy = if chain.table == FIREWALLD {
        format!(
            "firewall-cmd --permanent --zone=trusted --add-interface={bridge}, firewall-cmd --reload, netdp repair"
        )
    } else {
        format!("accept there what comes from {bridge} and what goes to it")
    };
    format!("{chain} does not know {bridge} and may drop what netdp accepts: {remedy}")
}
