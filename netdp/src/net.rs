//! The host's and the containers' network objects: namespaces, links, addresses, routes, neighbours.
//!
//! [`Net`] speaks rtnetlink in one namespace; [`NetNs`] names a namespace. Nothing here calls a program, forks,
//! or moves the calling thread: whatever has to happen in another namespace happens on a throw-away thread,
//! because a namespace is a property of a thread, and a socket stays in the namespace it was made in.
//!
//! Modules that read `/proc` ([`sysctl`], [`sockets`], [`ports`]) see the namespace of the calling thread; wrap
//! the call in [`NetNs::run`] for another.

use std::time::Duration;

use futures_util::{Stream, TryStreamExt};
use tokio::runtime::Handle as Runtime;
use tokio::time::timeout;

use crate::failpoint;

mod address;
mod blocking;
pub mod bpffs;
mod bridge;
pub mod cgroup;
pub mod conntrack;
mod error;
pub mod ethtool;
mod fdb;
mod filter;
pub mod forwarding;
pub mod ipsec;
mod link;
mod mac;
mod named;
mod neighbour;
pub mod netfilter;
mod netns;
pub mod ports;
mod qdisc;
mod route;
pub mod skipped;
pub mod sockets;
pub mod sysctl;
mod veth;

pub use blocking::blocking;
pub use bridge::{BridgeSpec, PortFlags};
pub use error::{Error, Result};
pub use fdb::FdbEntry;
pub use filter::Filter;
pub use link::{Framing, Link, is_link_name};
pub use mac::{Mac, MacError};
pub use netns::{NetNs, NetNsId, is_namespace};
pub use route::Route;
pub use veth::VethSpec;

/// Loopback's name in every namespace.
pub const LOOPBACK: &str = "lo";

/// How long the kernel may take to answer a request: thousands of times what it does take. The library drops an
/// answer that it can't decode, and would wait for ever.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// An rtnetlink connection to one network namespace.
#[derive(Clone, Debug)]
pub struct Net {
    handle: rtnetlink::Handle,
}

impl Net {
    /// Connects to `ns`. The connection's task runs on the tokio runtime of the caller, which needs I/O and time
    /// enabled, and ends when the last clone of the result is dropped.
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

/// Waits for the answer to an rtnetlink request that changes something; `doing` says what was being done to what, if
/// it fails.
async fn answer<T>(
    request: impl Future<Output = Result<T, rtnetlink::Error>>,
    doing: impl FnOnce() -> String,
) -> Result<T> {
    let doing = doing();
    failpoint::pass(&doing).map_err(Error::system(|| doing.clone()))?;
    within(request, || doing).await
}

async fn within<T>(
    request: impl Future<Output = Result<T, rtnetlink::Error>>,
    doing: impl FnOnce() -> String,
) -> Result<T> {
    match timeout(ANSWER_WITHIN, request).await {
        Ok(answer) => answer.map_err(Error::netlink(doing)),
        Err(_) => Err(Error::NoAnswer { doing: doing(), seconds: ANSWER_WITHIN.as_secs() }),
    }
}

/// Waits for all answers to a question.
async fn answers<T>(
    messages: impl Stream<Item = Result<T, rtnetlink::Error>>,
    doing: impl FnOnce() -> String,
) -> Result<Vec<T>> {
    within(messages.try_collect(), doing).await
}
