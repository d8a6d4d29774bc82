//! One new UDP flow whose first packets come from several CPUs.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use netdp::bench::load;

use crate::lab::Container;

/// Some threads send from one new socket at the same instant; again for every source port.
#[derive(Debug)]
pub struct OneFlow<'a> {
    /// Whose flows.
    pub client: &'a Container,
    /// One flow for each.
    pub source_ports: Range<u16>,
    /// The destination.
    pub to: (IpAddr, u16),
    /// Each sends one datagram per flow.
    pub threads: usize,
}

/// What the server saw of them.
#[derive(Clone, Copy, Debug, Default)]
pub struct OneFlowReport {
    /// New flows.
    pub flows: usize,
    /// Datagrams sent.
    pub sent: usize,
    /// Datagrams answered.
    pub answered: usize,
    /// Flows that the server saw from more than one address and port.
    pub split: usize,
}

impl OneFlow<'_> {
    /// Sends them all and reads the answers.
    pub fn run(&self) -> OneFlowReport {
        let to = SocketAddr::new(self.to.0, self.to.1);
        let sockets = self.client.netns.enter(|| {
            let bind = |port| {
                let socket = UdpSocket::bind((self.client.address, port)).expect("binding UDP");
                socket.connect(to).expect("connecting UDP");
                socket.set_read_timeout(Some(Duration::from_millis(500))).expect("a timeout");
                socket
            };
            self.source_ports.clone().map(bind).collect::<Vec<_>>()
        });
        let ready = AtomicUsize::new(0);
        thread::scope(|scope| {
            let (sockets, ready) = (&sockets, &ready);
            for number in 0..self.threads {
                scope.spawn(move || {
                    load::pin(number).expect("moving to a CPU");
                    self.send_all(sockets, ready);
                });
            }
        });
        let mut report = OneFlowReport {
            flows: sockets.len(),
            sent: sockets.len() * self.threads,
            ..OneFlowReport::default()
        };
        for socket in &sockets {
            self.read_answers(socket, &mut report);
        }
        report
    }

    /// Sends on one socket after the other, each at the same instant as the other threads.
    fn send_all(&self, sockets: &[UdpSocket], ready: &AtomicUsize) {
        for (round, socket) in sockets.iter().enumerate() {
            ready.fetch_add(1, Ordering::AcqRel);
            let all = (round + 1) * self.threads;
            let mut spins = 0u32;
            while ready.load(Ordering::Acquire) < all {
                std::hint::spin_loop();
                spins += 1;
                // More threads than CPUs: those that wait make room.
                if spins.is_multiple_of(1000) {
                    thread::yield_now();
                }
            }
            let _ = socket.send(b"one flow");
        }
    }

    fn read_answers(&self, socket: &UdpSocket, report: &mut OneFlowReport) {
        let mut seen = BTreeSet::new();
        let mut buffer = [0; 256];
        for _ in 0..self.threads {
            let Ok(length) = socket.recv(&mut buffer) else { break };
            report.answered += 1;
            seen.extend(load::split(&String::from_utf8_lossy(&buffer[..length])).map(|(_, peer)| peer));
        }
        report.split += usize::from(seen.len() > 1);
    }
}

impl OneFlowReport {
    /// Adds other flows' numbers.
    pub fn add(&mut self, other: &Self) {
        self.flows += other.flows;
        self.sent += other.sent;
        self.answered += other.answered;
        self.split += other.split;
    }

    /// One mapping each, every datagram answered.
    pub fn is_clean(&self) -> bool {
        self.answered == self.sent && self.split == 0
    }
}

impl fmt::Display for OneFlowReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lost = self.sent - self.answered;
        write!(f, "{} flows, {} datagrams: {lost} lost, {} flows split", self.flows, self.sent, self.split)
    }
}
