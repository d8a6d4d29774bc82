//! The race checks, as functions that report: the scenarios and the mutant test use the same ones.

use std::ops::Range;

use super::{Clash, ClashReport, OneFlow, OneFlowReport};
use crate::ask::Transport;
use crate::lab::{Container, Lab, WORLD};
use crate::process::eventually;
use crate::server::Server;

/// How many containers.
const CLIENTS: [&str; 4] = ["a", "b", "c", "d"];
/// Destination ports, one for each round: towards a new one every port is free again.
const ROUND_PORTS: Range<u16> = 7000..7100;
/// A range that four times [`FEW_FLOWS`] fill to three quarters: two CPUs often want the same port.
pub const FEW_PORTS: &str = "--snat-ports 40000-40255";
/// Flows of each container towards one destination within [`FEW_PORTS`].
pub const FEW_FLOWS: u16 = 48;
/// First source port of every container.
const SOURCE: u16 = 20_000;

/// Containers and servers of a race.
#[derive(Debug)]
pub struct Arena<'a> {
    lab: &'a Lab,
    clients: Vec<Container>,
    servers: [Server; 2],
}

impl<'a> Arena<'a> {
    /// Attaches four containers to a new network with these options, and starts the servers.
    pub fn new(lab: &'a Lab, network_options: &str) -> Self {
        lab.netdp.ok(&format!("network create race {} {network_options}", lab.subnet("10.60.0.0/24")));
        let clients = CLIENTS.map(|name| lab.container(name, "--network race"));
        Self::of(lab, clients.into())
    }

    /// The same for containers that are attached already, by whatever.
    pub fn of(lab: &'a Lab, clients: Vec<Container>) -> Self {
        let ports: Vec<u16> = ROUND_PORTS.collect();
        let servers = [
            Server::tcp(&lab.world, "world", lab.at(WORLD), &ports),
            Server::udp(&lab.world, "world", lab.at(WORLD), &ports),
        ];
        Self { lab, clients, servers }
    }

    /// All containers open `flows` flows each, from the same source ports, to one destination; again and again.
    pub fn clash(&self, transport: Transport, flows: u16, rounds: u16) -> ClashReport {
        let mut sum = ClashReport::default();
        for port in ROUND_PORTS.take(rounds.into()) {
            let source_ports = SOURCE..SOURCE + flows;
            let clash =
                Clash { clients: &self.clients, source_ports, to: (self.lab.at(WORLD), port), transport };
            sum.add(clash.run(&self.lab.world));
            // The next round needs the files.
            eventually("connections closed", || self.servers.iter().all(|server| server.open() == 0));
        }
        sum
    }

    /// One container's new flows, each from several threads at once; `flows` towards each of `rounds` destinations.
    pub fn one_flow(&self, flows: u16, rounds: u16, threads: usize) -> OneFlowReport {
        let mut sum = OneFlowReport::default();
        for port in ROUND_PORTS.take(rounds.into()) {
            let source_ports = SOURCE..SOURCE + flows;
            sum.add(
                &OneFlow { client: &self.clients[0], source_ports, to: (self.lab.at(WORLD), port), threads }
                    .run(),
            );
        }
        sum
    }
}
