//! What an instance's first command has fixed, and what this version can't do at all.

use crate::cli::{DatapathChoice, Global};
use crate::datapath::Kind;
use crate::net::NetNs;
use crate::refusal::Refusal;
use crate::state::State;
use crate::target;

/// Refuses what this version doesn't have.
pub(super) fn check_options(global: &Global) -> Result<(), Refusal> {
    if global.datapath == DatapathChoice::Iptables {
        let remedy = "use --datapath ebpf or auto";
        return Err(Refusal::NotInThisVersion { what: "--datapath iptables".into(), remedy });
    }
    Ok(())
}

/// Refuses another host, datapath or table size than the instance's.
pub(super) fn check_fixed(global: &Global, state: &State, host: &NetNs) -> Result<(), Refusal> {
    let instance = global.instance.clone();
    if state.host != host.id() {
        let serves = state.host;
        return Err(if target::exists(serves) {
            Refusal::OtherHost { instance, serves, here: host.id() }
        } else {
            Refusal::HostGone { instance, serves }
        });
    }
    let asked = match global.datapath {
        DatapathChoice::Auto => None,
        DatapathChoice::Ebpf => Some((Kind::Ebpf, "ebpf")),
        DatapathChoice::Iptables => Some((Kind::Iptables, "iptables")),
    };
    if let Some((kind, asked)) = asked
        && kind != state.datapath
    {
        let has = if state.datapath == Kind::Ebpf { "ebpf" } else { "iptables" };
        return Err(Refusal::OtherDatapath { instance, asked, has });
    }
    match global.flows_max {
        Some(asked) if state.flows_max != Some(asked) => Err(Refusal::OtherFlowsMax { asked }),
        _ => Ok(()),
    }
}
