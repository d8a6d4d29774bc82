//! The namespace lab and the tools that netdp's scenarios are made of.
//!
//! Everything happens in network namespaces that a [`lab::Lab`] makes and removes. Traffic is sent and
//! answered by threads of the test that entered a namespace; ordinary programs (ping, curl, iperf3) run there
//! as processes. A test panics on what should not be, since a panic says where.

pub use ::netdp::bench::load::socket;

pub mod ask;
pub mod backlog;
pub mod behaviour;
pub mod build;
pub mod capture;
pub mod consistent;
pub mod counters;
pub mod footprint;
pub mod frame;
pub mod kernel;
pub mod lab;
pub mod maps;
pub mod masquerade;
pub mod netdp;
pub mod netns;
pub mod odd;
pub mod packet;
pub mod process;
pub mod race;
pub mod raw;
pub mod router;
pub mod seccomp;
pub mod server;
pub mod snapshot;
mod sweep;
pub mod sysctl;
pub mod timeouts;
pub mod told;
pub mod tunnel;
pub mod uplink;
pub mod variant;
pub mod wire;
