//! The race: new flows at the same instant, and what became of each. The flows are those of `netdp bench`.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use netdp::bench::load::{self, Peer, Transport};

use crate::lab::Container;
use crate::netns::Netns;

mod check;
mod one_flow;

pub use check::{Arena, FEW_FLOWS, FEW_PORTS};
pub use load::ClashReport;
pub use one_flow::{OneFlow, OneFlowReport};

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

impl Clash<'_> {
    /// Opens the flows and waits for their fates; `server` is the namespace of the destination.
    pub fn run(&self, server: &Netns) -> ClashReport {
        let mut clients = Vec::new();
        for client in self.clients {
            clients.push(Peer { ns: &client.netns, address: client.address });
        }
        let (source_ports, to) = (self.source_ports.clone(), SocketAddr::new(self.to.0, self.to.1));
        let clash = load::Clash { clients: &clients, source_ports, to, transport: self.transport };
        let report = clash.run(server).unwrap_or_else(|error| panic!("opening flows: {error}"));
        assert_eq!(report.overflows, 0, "the test's own server could not keep up");
        report
    }
}
