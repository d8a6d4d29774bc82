//! The race: new flows at the same instant, and what became of each.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use crate::ask::Transport;
use crate::counters::{self, Retransmissions};
use crate::cpu;
use crate::lab::Container;
use crate::netns::Netns;
use crate::socket;

mod check;
mod one_flow;
mod tcp;
mod udp;

pub use check::{Arena, FEW_FLOWS, FEW_PORTS};
pub use one_flow::{OneFlow, OneFlowReport};

/// A lost SYN comes again after a second: what takes half of that is not just a busy machine.
pub const SLOW: Duration = Duration::from_millis(500);
/// When to call a flow without an answer lost: after the second retransmission of a SYN.
const LOST: Duration = Duration::from_secs(4);

/// Several containers opening flows to one destination, from the same source ports, at the same instant.
#[derive(Debug)]
pub struct Clash<'a> {
    /// Who opens them.
    pub clients: &'a [Container],
    /// The source ports, each used by every client.
    pub source_ports: Range<u16>,
    /// The one destination.
    pub to: (IpAddr, u16),
    /// TCP or UDP.
    pub transport: Transport,
}

/// What became of a clash.
#[derive(Clone, Debug, Default)]
pub struct ClashReport {
    /// Flows opened.
    pub offered: usize,
    /// Flows answered, however late.
    pub answered: usize,
    /// Flows refused at once: a local error, a reset, an ICMP error.
    pub refused: usize,
    /// Answered after [`SLOW`] or more.
    pub slow: usize,
    /// The longest time to an answer.
    pub slowest: Duration,
    /// Flows that the server saw with another flow's address and port.
    pub duplicates: usize,
    /// Answers that belong to another flow.
    pub strayed: usize,
    /// SYN and SYN-ACK that were sent again, by all clients and the server.
    pub syn_retransmitted: u64,
}

/// One flow's fate.
#[derive(Clone, Copy, Debug, Default)]
struct Fate {
    seen_as: Option<SocketAddr>,
    latency: Duration,
    refused: bool,
    strayed: bool,
}

impl Clash<'_> {
    /// Opens the flows and waits for their fates; `server` is the namespace of the destination.
    pub fn run(&self, server: &Netns) -> ClashReport {
        // A client's and a server's end for each flow.
        socket::allow_files(2 * self.clients.len() * self.source_ports.len());
        let namespaces = || self.clients.iter().map(|client| &client.netns).chain([server]);
        let before = Retransmissions::of(namespaces());
        let overflows_before = overflows(server);
        let start = Barrier::new(self.clients.len());
        let fates: Vec<Fate> = thread::scope(|scope| {
            let threads = self.clients.iter().enumerate().map(|(number, client)| {
                let start = &start;
                scope.spawn(move || self.open(number, client, start))
            });
            let threads: Vec<_> = threads.collect();
            threads.into_iter().flat_map(|thread| thread.join().expect("a client")).collect()
        });
        let mut report = ClashReport::of(&fates);
        assert_eq!(overflows(server), overflows_before, "the test's own server could not keep up");
        report.syn_retransmitted = Retransmissions::of(namespaces()).since(before).syn;
        report
    }

    fn open(&self, number: usize, client: &Container, start: &Barrier) -> Vec<Fate> {
        cpu::pin(number);
        client.netns.join();
        let to = SocketAddr::new(self.to.0, self.to.1);
        let sources = self.source_ports.clone().map(|port| SocketAddr::new(client.address, port));
        match self.transport {
            Transport::Tcp => tcp::open(sources, to, start),
            Transport::Udp => udp::open(sources, to, start),
        }
    }
}

impl ClashReport {
    fn of(fates: &[Fate]) -> Self {
        let mut seen = BTreeMap::<SocketAddr, usize>::new();
        let mut report = Self { offered: fates.len(), ..Self::default() };
        for fate in fates {
            report.refused += usize::from(fate.refused);
            report.strayed += usize::from(fate.strayed);
            if let Some(peer) = fate.seen_as {
                report.answered += 1;
                report.slow += usize::from(fate.latency >= SLOW);
                report.slowest = report.slowest.max(fate.latency);
                *seen.entry(peer).or_default() += 1;
            }
        }
        report.duplicates = seen.values().map(|flows| flows - 1).sum();
        report
    }

    /// Flows that nobody answered or refused.
    pub fn lost(&self) -> usize {
        self.offered - self.answered - self.refused
    }

    /// Adds another clash's numbers.
    pub fn add(&mut self, other: &Self) {
        self.offered += other.offered;
        self.answered += other.answered;
        self.refused += other.refused;
        self.slow += other.slow;
        self.slowest = self.slowest.max(other.slowest);
        self.duplicates += other.duplicates;
        self.strayed += other.strayed;
        self.syn_retransmitted += other.syn_retransmitted;
    }

    /// Nothing lost, refused, sent again or mixed up.
    pub fn is_clean(&self) -> bool {
        self.answered == self.offered
            && self.syn_retransmitted == 0
            && self.duplicates + self.strayed + self.slow == 0
    }
}

impl fmt::Display for ClashReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} flows: {} lost, {} refused, {} slower than {} ms, {} SYN sent again, {} sharing a port, \
             {} mixed up, slowest {:.1} ms",
            self.offered,
            self.lost(),
            self.refused,
            self.slow,
            SLOW.as_millis(),
            self.syn_retransmitted,
            self.duplicates,
            self.strayed,
            self.slowest.as_secs_f64() * 1e3,
        )
    }
}

/// What the server's sockets dropped because they were full: the tool's fault, not the NAT's.
fn overflows(server: &Netns) -> u64 {
    let queues = [("netstat", "TcpExt", "ListenDrops"), ("snmp", "Udp", "RcvbufErrors")];
    queues.into_iter().map(|(file, group, name)| counters::counter(server, file, group, name)).sum()
}

/// Time left until nobody waits any longer.
fn time_left(since: Instant) -> Option<Duration> {
    LOST.checked_sub(since.elapsed()).filter(|left| !left.is_zero())
}
