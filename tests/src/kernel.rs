//! The programs in the kernel without hooks: loaded, never pinned or attached, and run on one packet at a time
//! (BPF_PROG_TEST_RUN), beside the same core on the host.
//!
//! [`site`] is the namespace that their helpers look at, [`tables`] what both sides are told, [`programs`] the
//! kernel's side, [`model`] the host's.

pub mod bench;
pub mod frames;
pub mod model;
pub mod parity;
pub mod programs;
pub mod site;
pub mod tables;
