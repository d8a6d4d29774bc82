//! What every scenario runs on: each datapath, with the interfaces' offloads on and off.

use crate::lab::Lab;

/// A datapath of netdp.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Datapath {
    /// TC and cgroup programs.
    Ebpf,
    /// Netfilter rules.
    Iptables,
}

impl Datapath {
    /// What `--datapath` calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ebpf => "ebpf",
            Self::Iptables => "iptables",
        }
    }

    /// Whether `stats` has a counter of that name: netfilter doesn't count everything (design G15).
    pub fn counts(self, counter: &str) -> bool {
        self == Self::Ebpf || !UNCOUNTED.contains(&counter)
    }
}

/// What netfilter doesn't tell.
const UNCOUNTED: [&str; 5] =
    ["snat_collisions", "snat_exhausted", "flows_expired", "flows_recycled", "dnat_port_changed"];

/// The family that a scenario's traffic has; the lab has addresses of both.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6, on networks with both.
    V6,
}

/// One way to run a scenario.
#[derive(Clone, Copy, Debug)]
pub struct Variant {
    /// The instance's datapath.
    pub datapath: Datapath,
    /// Checksum offload and GSO of every interface: with them, packets are 64 KiB and their sums unfinished.
    pub offloads: bool,
    /// The traffic's family.
    pub family: Family,
    /// Programs are links (TCX); otherwise filters behind `clsact`, as before Linux 6.6.
    pub tcx: bool,
}

impl Variant {
    /// Whether the host reaches ports published at its loopback address of this family (design G15).
    pub fn serves_loopback(self) -> bool {
        self.datapath == Datapath::Ebpf || self.family == Family::V4
    }

    /// Where below an instance's pins those of the interfaces' programs are.
    pub fn hooks(self) -> &'static str {
        if self.tcx { "v1/tcx" } else { "v1/filters" }
    }

    /// eBPF, as interfaces are by default.
    pub const EBPF: Self = Self { datapath: Datapath::Ebpf, offloads: true, family: Family::V4, tcx: true };
    /// eBPF, every packet as it would be on a wire.
    pub const EBPF_PLAIN: Self = Self { offloads: false, ..Self::EBPF };
    /// eBPF, traffic by IPv6.
    pub const EBPF_V6: Self = Self { family: Family::V6, ..Self::EBPF };
    /// eBPF, traffic by IPv6, every packet as it would be on a wire.
    pub const EBPF_V6_PLAIN: Self = Self { offloads: false, ..Self::EBPF_V6 };
    /// eBPF behind `clsact`.
    pub const CLSACT: Self = Self { tcx: false, ..Self::EBPF };
    /// eBPF behind `clsact`, traffic by IPv6.
    pub const CLSACT_V6: Self = Self { tcx: false, ..Self::EBPF_V6 };
    /// iptables, as interfaces are by default.
    pub const IPTABLES: Self = Self { datapath: Datapath::Iptables, ..Self::EBPF };
    /// iptables, every packet as it would be on a wire.
    pub const IPTABLES_PLAIN: Self = Self { offloads: false, ..Self::IPTABLES };
    /// iptables (ip6tables), traffic by IPv6.
    pub const IPTABLES_V6: Self = Self { family: Family::V6, ..Self::IPTABLES };
}

/// Runs a scenario in a lab of its own.
pub fn run(variant: Variant, scenario: fn(&Lab)) {
    let lab = Lab::new(variant);
    scenario(&lab);
}

/// Makes each named function (of `&Lab`) a test on every datapath.
#[macro_export]
macro_rules! on_every_datapath {
    ($($scenario:ident),+ $(,)?) => {$(
        mod $scenario {
            $crate::variants!($scenario: ebpf EBPF, iptables IPTABLES);
        }
    )+};
}

/// On every datapath, and on eBPF without TCX.
#[macro_export]
macro_rules! on_every_datapath_and_clsact {
    ($($scenario:ident),+ $(,)?) => {$(
        mod $scenario {
            $crate::variants!($scenario: ebpf EBPF, clsact CLSACT, iptables IPTABLES);
        }
    )+};
}

/// The same, with offloads on and off.
#[macro_export]
macro_rules! with_and_without_offloads {
    ($($scenario:ident),+ $(,)?) => {$(
        mod $scenario {
            $crate::variants!(
                $scenario: ebpf EBPF, ebpf_without_offloads EBPF_PLAIN,
                iptables IPTABLES, iptables_without_offloads IPTABLES_PLAIN
            );
        }
    )+};
}

/// The same with traffic of both families.
#[macro_export]
macro_rules! with_and_without_offloads_in_both_families {
    ($($scenario:ident),+ $(,)?) => {$(
        mod $scenario {
            $crate::variants!(
                $scenario: ebpf EBPF, ebpf_without_offloads EBPF_PLAIN,
                ebpf_v6 EBPF_V6, ebpf_v6_without_offloads EBPF_V6_PLAIN,
                iptables IPTABLES, iptables_without_offloads IPTABLES_PLAIN, iptables_v6 IPTABLES_V6
            );
        }
    )+};
}

/// On every datapath, with traffic of both families.
#[macro_export]
macro_rules! on_every_datapath_in_both_families {
    ($($scenario:ident),+ $(,)?) => {$(
        mod $scenario {
            $crate::variants!(
                $scenario: ebpf EBPF, ebpf_v6 EBPF_V6,
                iptables IPTABLES, iptables_v6 IPTABLES_V6
            );
        }
    )+};
}

/// On the eBPF datapath only: what iptables can't do (design G15), each with the reason.
#[macro_export]
macro_rules! on_ebpf_only {
    ($($scenario:ident: $reason:literal),+ $(,)?) => {$(
        #[doc = concat!("Not on iptables: ", $reason, ".")]
        mod $scenario {
            $crate::variants!($scenario: ebpf EBPF, ebpf_without_offloads EBPF_PLAIN);
        }
    )+};
}

/// The same with and without TCX.
#[macro_export]
macro_rules! on_ebpf_as_attached {
    ($($scenario:ident: $reason:literal),+ $(,)?) => {$(
        #[doc = concat!("Not on iptables: ", $reason, ".")]
        mod $scenario {
            $crate::variants!($scenario: ebpf EBPF, clsact CLSACT);
        }
    )+};
}

/// The same with traffic of both families.
#[macro_export]
macro_rules! on_ebpf_only_in_both_families {
    ($($scenario:ident: $reason:literal),+ $(,)?) => {$(
        #[doc = concat!("Not on iptables: ", $reason, ".")]
        mod $scenario {
            $crate::variants!(
                $scenario: ebpf EBPF, ebpf_without_offloads EBPF_PLAIN,
                ebpf_v6 EBPF_V6, ebpf_v6_without_offloads EBPF_V6_PLAIN
            );
        }
    )+};
}

/// Each in the variants that are named after it.
#[macro_export]
macro_rules! in_variants {
    ($($(#[$doc:meta])* $scenario:ident: $($name:ident $variant:ident),+;)+) => {$(
        $(#[$doc])*
        mod $scenario {
            $crate::variants!($scenario: $($name $variant),+);
        }
    )+};
}

/// One test for each variant.
#[macro_export]
macro_rules! variants {
    ($scenario:ident: $($name:ident $variant:ident),+) => {$(
        #[test]
        #[ignore = "needs root"]
        fn $name() {
            $crate::variant::run($crate::variant::Variant::$variant, super::$scenario);
        }
    )+};
}
