//! What `doctor` sees of the host's firewall, which each datapath meets in its own way.

use std::fs;
use std::path::Path;

use super::Check;
use crate::datapath::{Firewall, Kind};
use crate::error::Error;
use crate::net::forwarding::{self, ForwardChain};
use crate::net::skipped::{self, SkippedChain};
use crate::net::sysctl;
use crate::output;
use crate::state::Network;

/// firewalld's table.
const FIREWALLD: &str = "firewalld";
/// The tables of iptables whose rules decide about forwarded packets.
const DECIDING: [&str; 4] = ["raw", "mangle", "filter", "security"];

/// Who else decides about forwarded packets, and what that means for a datapath's.
pub(super) fn check<'a>(
    datapath: Option<Kind>,
    mode: Firewall,
    networks: impl Iterator<Item = &'a Network>,
) -> Result<Check, Error> {
    if datapath != Some(Kind::Iptables) {
        let chains = skipped::chains()?;
        let detail = match mode {
            Firewall::Bypass => bypassed(&chains),
            Firewall::Honour => honoured(&chains),
        };
        return Ok(Check::new("firewall", true, detail));
    }
    let others: Vec<ForwardChain> =
        forwarding::chains()?.into_iter().filter(|chain| !chain.is_of_iptables()).collect();
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
fn bypassed(chains: &[SkippedChain]) -> String {
    let bridged = sysctl::get(&["net", "bridge", "bridge-nf-call-iptables"]).is_ok_and(|value| value == "1");
    let mut detail = "mode bypass: translated packets, and those between endpoints, go around FORWARD, DOCKER-USER, raw and netdev rules, and qdiscs of host veths".to_owned();
    match listed(chains) {
        None => detail.push_str("; this host has none that decide anything"),
        Some(list) => detail.push_str(&format!("; skipped here: {list}")),
    }
    if bridged {
        detail.push_str("; bridge-nf-call-iptables is 1: what the bridge itself forwards passes FORWARD");
    }
    detail
}

/// What the host's own rules decide about.
fn honoured(chains: &[SkippedChain]) -> String {
    let mut detail = "mode honour: what endpoints and the outside send each other passes this host's rules, with the endpoint's address: a flow's first packets, and of what they let through one a second and direction; only hairpins, what goes between endpoints, and ICMP errors go around them".to_owned();
    match listed(chains) {
        None => detail.push_str("; this host has none that decide anything"),
        Some(list) => detail.push_str(&format!("; here: {list}")),
    }
    detail
}

/// Chains that decide something; none: there is none.
fn listed(chains: &[SkippedChain]) -> Option<String> {
    let mut found: Vec<String> = chains.iter().map(ToString::to_string).collect();
    for (list, program) in [("ip_tables_names", "iptables-legacy"), ("ip6_tables_names", "ip6tables-legacy")]
    {
        let tables = fs::read_to_string(Path::new("/proc/thread-self/net").join(list)).unwrap_or_default();
        let deciding = tables.lines().filter(|table| DECIDING.contains(table));
        found.extend(deciding.map(|table| format!("{program}'s {table} table")));
    }
    (!found.is_empty()).then(|| output::joined(&found))
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
