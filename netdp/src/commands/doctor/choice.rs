//! Which datapath, and why.

use super::Check;
use crate::cli::{DatapathChoice, Global};
use crate::datapath::Kind;
use crate::datapath::ebpf::Probe;
use crate::datapath::select::Feature;
use crate::state::State;

/// What the programs can't be loaded or attached without.
const NEEDED: [&str; 2] = ["programs", "attachment"];

/// What netfilter can't do for netdp (design G15).
const LIMITS: [&str; 5] = [
    "two connections that start at once may get one port, and one of them is lost (conntrack_insert_failed in netdp stats)",
    "what finds no port or no room is dropped without a word to the sender",
    "a closed connection's port serves the same remote again only after netfilter's own timeouts",
    "the host reaches no published port at [::1], and a process can still bind one",
    "what one endpoint may hold is not limited, and a forged ARP answer is not seen",
];

/// Whether eBPF works here; or why not.
pub(super) fn ebpf(global: &Global, probes: &[Probe]) -> Result<(), String> {
    if global.without.contains(&Feature::Ebpf) {
        return Err("--without ebpf".into());
    }
    let missing = probes.iter().find(|probe| NEEDED.contains(&probe.name) && !probe.ok);
    missing.map_or(Ok(()), |probe| Err(format!("{}: {}", probe.name, probe.detail)))
}

/// The instance's datapath, or what its first command would take.
pub(super) fn datapath(
    global: &Global,
    state: Option<&State>,
    ebpf: Result<(), String>,
    iptables: Result<String, String>,
) -> (Option<Kind>, String) {
    if let Some(State { datapath, datapath_reason, .. }) = state {
        let why = datapath_reason.clone().unwrap_or_else(|| "since the instance's first command".into());
        return (Some(*datapath), why);
    }
    let asked = global.datapath != DatapathChoice::Ebpf;
    match (ebpf, iptables) {
        (_, Ok(_)) if global.datapath == DatapathChoice::Iptables => {
            (Some(Kind::Iptables), "as --datapath says".into())
        }
        (Ok(()), _) if global.datapath != DatapathChoice::Iptables => {
            (Some(Kind::Ebpf), "the eBPF programs load".into())
        }
        (Err(why), Ok(_)) if asked => (Some(Kind::Iptables), format!("eBPF doesn't work here: {why}")),
        (Err(why), Err(also)) => (None, format!("eBPF doesn't work here: {why}; nor does iptables: {also}")),
        (Err(why), _) | (_, Err(why)) => (None, why),
        (Ok(()), Ok(_)) => (None, "no datapath was asked for".into()),
    }
}

/// What to know about the iptables datapath.
pub(super) fn limits() -> Vec<Check> {
    LIMITS.iter().map(|limit| Check::new("limit", true, *limit)).collect()
}
