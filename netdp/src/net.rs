//! The host's and the containers' network objects: namespaces, links, addresses, routes, neighbours.
//!
//! [`Net`] speaks rtnetlink in one namespace; [`NetNs`] names a namespace. Nothing here calls a program, forks,
//! or moves the calling thread: whatever has to happen in another namespace happens on a throw-away thread,
//! because a namespace is a property of a thread, and a socket stays in the namespace it was made in.
//!
//! Modules that read `/proc` ([`sysctl`], [`sockets`], [`ports`]) see the namespace of the calling thread; wrap
//! the call in [`NetNs::run`] for another.

use tokio::runtime::Handle as Runtime;

mod address;
pub mod bpffs;
mod bridge;
pub mod cgroup;
mod error;
mod fdb;
mod link;
mod mac;
mod named;
mod neighbour;
mod netns;
pub mod ports;
mod route;
pub mod sockets;
pub mod sysctl;
mod veth;

pub use bridge::{BridgeSpec, PortFlags};
pub use error::{Error, Result};
pub use fdb::FdbEntry;
pub use link::Link;
pub use mac::{Mac, MacError};
pub use netns::{NetNs, NetNsId};
pub use route::Route;
pub use veth::VethSpec;

/// An rtnetlink connection to one network namespace.
#[derive(Clone, Debug)]
pub struct Net {
    handle: rtnetlink::Handle,
}

impl Net {
    /// Connects to `ns`. The connection's task runs on the tokio runtime of the caller and ends when the last
    /// clone of the result is dropped.
    pub fn open(ns: &NetNs) -> Result<Self> {
        let runtime = Runtime::try_current().map_err(|_| Error::NoRuntime)?;
        let opened = ns.run(|| {
            let _guard = runtime.enter();
            rtnetlink::new_connection()
        })?;
        let (connection, handle, _) =
            opened.map_err(Error::system(|| "opening an rtnetlink socket".to_owned()))?;
        runtime.spawn(connection);
        Ok(Self { handle })
    }
}
