//! The bench's own load: threads of this process in the namespaces that they entered. The tests use it, too.

use std::net::{IpAddr, SocketAddr};
use std::thread;

use nix::sched::{CloneFlags, CpuSet, sched_getaffinity, sched_setaffinity, setns};
use nix::unistd::Pid;

use super::Error;
use crate::net::NetNs;

pub(super) mod bulk;
pub mod churn;
pub mod clash;
pub(super) mod exchange;
pub(super) mod frames;
pub(super) mod http;
pub mod poll;
pub mod server;
pub mod socket;

pub use clash::{Clash, ClashReport};
pub use server::Server;

/// A transport.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Transport {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Tcp, Self::Udp];

    /// As in a publish spec.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// Moves the calling thread into a namespace, for good: only for threads that end afterwards.
pub fn enter(ns: &NetNs) -> Result<(), Error> {
    setns(ns.fd(), CloneFlags::CLONE_NEWNET).map_err(Error::system(format!("entering {}", ns.id())))
}

/// Keeps the calling thread on one CPU, chosen by its number: left alone, the scheduler may put threads that just
/// woke on the same one, and nothing races.
pub fn pin(number: usize) -> Result<(), Error> {
    let this = Pid::from_raw(0);
    let allowed = sched_getaffinity(this).map_err(Error::system("asking for the CPUs"))?;
    let cpus: Vec<usize> = (0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu).unwrap_or(false)).collect();
    let mut one = CpuSet::new();
    one.set(cpus[number % cpus.len()]).map_err(Error::system("choosing a CPU"))?;
    sched_setaffinity(this, &one).map_err(Error::system("moving to a CPU"))
}

/// Runs one thread for each job and waits for all; the first error is the result.
pub(super) fn all<T: Send, J: Send>(
    jobs: impl IntoIterator<Item = J>,
    work: impl Fn(usize, J) -> Result<T, Error> + Sync,
) -> Result<Vec<T>, Error> {
    thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = jobs
            .into_iter()
            .enumerate()
            .map(|(number, job)| scope.spawn(move || work(number, job)))
            .collect();
        let join = |thread: thread::ScopedJoinHandle<'_, Result<T, Error>>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        // All are joined before the first error is returned.
        threads.into_iter().map(join).collect::<Vec<_>>().into_iter().collect()
    })
}

/// Reads a server's `NAME PEER …`.
pub fn split(text: &str) -> Option<(&str, SocketAddr)> {
    let mut words = text.split_whitespace();
    Some((words.next()?, words.next()?.parse().ok()?))
}

/// Who opens flows.
#[derive(Clone, Copy, Debug)]
pub struct Peer<'a> {
    /// From where.
    pub ns: &'a NetNs,
    /// With which source address.
    pub address: IpAddr,
}
