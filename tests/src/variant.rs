//! What every scenario runs on: each datapath, with the interfaces' offloads on and off.

use crate::lab::Lab;

/// A datapath of netdp.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Datapath {
    /// TC and cgroup programs.
    Ebpf,
}

impl Datapath {
    /// What `--datapath` calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ebpf => "ebpf",
        }
    }
}

/// One way to run a scenario.
#[derive(Clone, Copy, Debug)]
pub struct Variant {
    /// The instance's datapath.
    pub datapath: Datapath,
    /// Checksum offload and GSO of every interface: with them, packets are 64 KiB and their sums unfinished.
    pub offloads: bool,
}

impl Variant {
    /// eBPF, as interfaces are by default.
    pub const EBPF: Self = Self { datapath: Datapath::Ebpf, offloads: true };
    /// eBPF, every packet as it would be on a wire.
    pub const EBPF_PLAIN: Self = Self { datapath: Datapath::Ebpf, offloads: false };
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
            #[test]
            #[ignore = "needs root"]
            fn ebpf() {
                $crate::variant::run($crate::variant::Variant::EBPF, super::$scenario);
            }
        }
    )+};
}

/// The same, with offloads on and off.
#[macro_export]
macro_rules! with_and_without_offloads {
    ($($scenario:ident),+ $(,)?) => {$(
        mod $scenario {
            #[test]
            #[ignore = "needs root"]
            fn ebpf() {
                $crate::variant::run($crate::variant::Variant::EBPF, super::$scenario);
            }

            #[test]
            #[ignore = "needs root"]
            fn ebpf_without_offloads() {
                $crate::variant::run($crate::variant::Variant::EBPF_PLAIN, super::$scenario);
            }
        }
    )+};
}
