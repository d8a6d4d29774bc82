//! The race: new flows at the same instant, and what became of each.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use super::{Peer, Transport, socket};
use crate::bench::{Error, counters};
use crate::net::NetNs;

mod tcp;
mod udp;

/// A lost SYN comes again after a second: what takes half of that is not just a busy machine.
pub const SLOW: Duration = Duration::from_millis(500);
/// When to call a flow without an answer lost: after the second retransmission of a SYN.
const LOST: Duration = Duration::from_secs(4);

/// Several containers opening flows to one destination, from the same source ports, at the same instant.
#[derive(Debug)]
pub struct Clash<'a> {
    /// Who opens them.
    pub clients: &'a [Peer<'a>],
    /// The source ports, each used by every client.
    pub source_ports: Range<u16>,
    /// The one destination.
    pub to: SocketAddr,
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
    /// Times to the answers, in no order.
    pub latencies: Vec<Duration>,
    /// Flows that the server saw with another flow's address and port.
    pub duplicates: usize,
    /// Answers that belong to another flow.
    pub strayed: usize,
    /// SYN and SYN-ACK that were sent again, by all clients and the server.
    pub syn_retransmitted: u64,
    /// How many flows the server saw from which address.
    pub seen_as: BTreeMap<IpAddr, usize>,
    /// What the server's own sockets dropped: then it is not the NAT that is measured.
    pub overflows: u64,
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
    pub fn run(&self, server: &NetNs) -> Result<ClashReport, Error> {
        // A client's and a server's end for each flow.
        socket::allow_files(2 * self.clients.len() * self.source_ports.len())?;
        let namespaces = || self.clients.iter().map(|client| client.ns).chain([server]);
        let before = (counters::syn_retransmitted(namespaces())?, counters::overflows(server)?);
        let start = Barrier::new(self.clients.len());
        let fates = super::all(self.clients, |number, client| self.open(number, *client, &start))?;
        let mut report = ClashReport::of(&fates.concat());
        report.syn_retransmitted = counters::syn_retransmitted(namespaces())? - before.0;
        report.overflows = counters::overflows(server)? - before.1;
        Ok(report)
    }

    fn open(&self, number: usize, client: Peer<'_>, start: &Barrier) -> Result<Vec<Fate>, Error> {
        let ready = super::pin(number).and_then(|()| super::enter(client.ns));
        let sources: Vec<SocketAddr> =
            self.source_ports.clone().map(|port| SocketAddr::new(client.address, port)).collect();
        match self.transport {
            Transport::Tcp => tcp::open(sources, self.to, ready, start),
            Transport::Udp => udp::open(&sources, self.to, ready, start),
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
                report.latencies.push(fate.latency);
                *report.seen_as.entry(peer.ip()).or_default() += 1;
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

    /// The longest time to an answer.
    pub fn slowest(&self) -> Duration {
        self.latencies.iter().copied().max().unwrap_or_default()
    }

    /// Adds another clash's numbers.
    pub fn add(&mut self, other: Self) {
        self.offered += other.offered;
        self.answered += other.answered;
        self.refused += other.refused;
        self.slow += other.slow;
        self.latencies.extend(other.latencies);
        self.duplicates += other.duplicates;
        self.strayed += other.strayed;
        self.syn_retransmitted += other.syn_retransmitted;
        self.overflows += other.overflows;
        for (address, flows) in other.seen_as {
            *self.seen_as.entry(address).or_default() += flows;
        }
    }

    /// Nothing lost, refused, sent again or mixed up. How slow it was is the machine's affair: a SYN that a NAT lost
    /// has been sent again.
    pub fn is_clean(&self) -> bool {
        self.answered == self.offered && self.syn_retransmitted == 0 && self.duplicates + self.strayed == 0
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
            self.slowest().as_secs_f64() * 1e3,
        )
    }
}

/// Time left until nobody waits any longer.
fn time_left(since: Instant) -> Option<Duration> {
    LOST.checked_sub(since.elapsed()).filter(|left| !left.is_zero() && !crate::bench::stop::requested())
}
