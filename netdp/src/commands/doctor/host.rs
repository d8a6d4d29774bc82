//! What `doctor` sees of the kernel and of the host's firewall.

use std::fs;
use std::path::Path;

use aya::programs::{SchedClassifier, TcAttachType};

use super::Check;
use crate::datapath::ebpf::TC_HOOKS;
use crate::net::{Filter, sysctl};

/// The oldest that the tests boot. Older ones get eBPF, too, if they take the programs.
const OLDEST: (u32, u32) = (6, 1);
/// The kernel's own type information.
const BTF: &str = "/sys/kernel/btf/vmlinux";

/// The kernel's version.
pub(super) fn kernel() -> Check {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    let ok = version(release).is_some_and(|version| version >= OLDEST);
    let detail = if ok {
        release.to_owned()
    } else {
        format!("{release}: the eBPF datapath is made for Linux 6.1 and newer")
    };
    Check::new("kernel", ok, detail)
}

/// Type information of the kernel.
pub(super) fn btf() -> Check {
    let ok = Path::new(BTF).exists();
    Check::new(
        "btf",
        ok,
        if ok {
            BTF.to_owned()
        } else {
            format!("{BTF} is missing: build the kernel with CONFIG_DEBUG_INFO_BTF")
        },
    )
}

/// TCX programs on an interface that are not netdp's, with where they are.
pub(super) fn foreign_programs(ifname: &str) -> Vec<String> {
    let mut foreign = Vec::new();
    for (direction, name) in [(TcAttachType::Ingress, "ingress"), (TcAttachType::Egress, "egress")] {
        // Kernels without TCX have none to show.
        let Ok((_, programs)) = SchedClassifier::query_tcx(ifname, direction) else { continue };
        let names =
            programs.iter().map(|program| program.name_as_str().unwrap_or("without a name").to_owned());
        let others = names.filter(|name| !TC_HOOKS.contains(&name.as_str()));
        foreign.extend(others.map(|program| format!("{program} at {ifname} {name}")));
    }
    foreign
}

/// A filter behind clsact that is not netdp's.
pub(super) fn foreign_filter(filter: &Filter, ifname: &str) -> Option<String> {
    let Filter { kind, program, egress, .. } = filter;
    if program.as_deref().is_some_and(|name| TC_HOOKS.contains(&name)) {
        return None;
    }
    let side = if *egress { "egress" } else { "ingress" };
    let program = program.as_deref().map(|name| format!(" {name}")).unwrap_or_default();
    Some(format!("{kind} filter{program} at {ifname} {side} (clsact)"))
}

/// Whether an interface forwards IPv4, as netdp set it.
pub(super) fn forwarding(ifname: &str) -> bool {
    sysctl::get(&["net", "ipv4", "conf", ifname, "forwarding"]).is_ok_and(|value| value == "1")
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(version("6.18.44-fc-v595"), Some((6, 18)));
        assert_eq!(version("6.6.0"), Some((6, 6)));
        assert_eq!(version("next"), None);
    }
}
