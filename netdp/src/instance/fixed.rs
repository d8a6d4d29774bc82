//! What an instance's first command has fixed.

use crate::cli::{DatapathChoice, Global};
use crate::datapath::Kind;
use crate::net::NetNs;
use crate::refusal::Refusal;
use crate::state::State;
use crate::target;

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
        DatapathChoice::Ebpf => Some(Kind::Ebpf),
        DatapathChoice::Iptables => Some(Kind::Iptables),
    };
    if let Some(kind) = asked.filter(|kind| *kind != state.datapath) {
        return Err(Refusal::OtherDatapath { instance, asked: kind.name(), has: state.datapath.name() });
    }
    if let Some(asked) = global.flows_max.filter(|asked| state.flows_max != Some(*asked)) {
        return Err(Refusal::OtherFlowsMax { asked });
    }
    match global.firewall {
        Some(asked) if asked != state.firewall => {
            Err(Refusal::OtherFirewall { asked: asked.name(), has: state.firewall.name() })
        }
        _ => Ok(()),
    }
}
