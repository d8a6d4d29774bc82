//! The programs in the kernel without hooks: loaded, never pinned or attached, and run on one packet at a time
//! (BPF_PROG_TEST_RUN), beside the same core on the host.
//!
//! Written once for both families: [`plan`] has their addresses. [`site`] is the namespace that their helpers look at, [`tables`] what both sides are told, [`programs`] the
//! kernel's side, [`model`] the host's.

pub mod bench;
pub mod corpus;
pub mod frames;
pub mod model;
pub mod parity;
pub mod plan;
pub mod programs;
pub mod site;
pub mod tables;

/// Makes each named function, generic over the family, a test for IPv4 and one for IPv6.
#[macro_export]
macro_rules! in_both_families {
    ($($test:ident),+ $(,)?) => {$(
        mod $test {
            #[test]
            #[ignore = "needs root"]
            fn v4() {
                super::$test::<netdp_common::family::V4>();
            }

            #[test]
            #[ignore = "needs root"]
            fn v6() {
                super::$test::<netdp_common::family::V6>();
            }
        }
    )+};
}
