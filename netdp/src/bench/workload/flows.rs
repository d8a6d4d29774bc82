//! New UDP flows: every packet opens one.

use super::forward::flows;
use super::{Case, Round};
use crate::bench::Error;
use crate::bench::arena::{Arena, ETH0, Shape, WORLD_LINK};
use crate::bench::load;
use crate::bench::load::frames::{FLOWS_OF_A_REMOTE, Sender, Stream, Way};
use crate::bench::options::Effort;
use crate::bench::programs::{Expected, Sink};
use crate::bench::results::{Better, Metric, Sample};

/// The remotes' port.
const PORT: u16 = 9000;
/// The shortest frame of Ethernet.
const LENGTH: usize = 60;
const CLIENTS: usize = 4;
/// Which CPU sends: not the first, which has most of the machine's interrupts.
const CPU: usize = 1;

#[derive(Clone, Copy)]
struct NewFlows {
    name: &'static str,
    /// Of each container.
    flows: u32,
    /// Each container has remotes of its own.
    apart: bool,
}

/// Towards one destination, and towards many.
pub(super) fn cases(effort: Effort, _rounds: u32) -> Vec<Box<dyn Case>> {
    // One destination has 64 512 ports for all of them, and netfilter tracks 262 144 connections by default.
    let one = NewFlows { name: "udp, one remote", flows: 12_000, apart: false };
    let many =
        NewFlows { name: "udp, many remotes", flows: effort.choose(FLOWS_OF_A_REMOTE, 10_000), apart: true };
    effort
        .choose(vec![one, many], vec![many])
        .into_iter()
        .map(|case| Box::new(case) as Box<dyn Case>)
        .collect()
}

impl NewFlows {
    /// A remote is an address and a port.
    fn port(&self, client: usize) -> u16 {
        let own = if self.apart { client } else { 0 };
        PORT + u16::try_from(own).unwrap_or(0)
    }
}

impl Case for NewFlows {
    fn name(&self) -> String {
        self.name.into()
    }

    fn about(&self) -> String {
        format!(
            "{CLIENTS} containers, one after the other, send one datagram on each of {} as fast as one CPU can; the \
             table is empty before",
            flows(self.flows)
        )
    }

    fn metrics(&self) -> Vec<Metric> {
        vec![
            Metric::new("rate", "flows/s", Better::Higher),
            Metric::new("lost", "", Better::Lower),
            Metric::new("cpu_per_flow", "ns", Better::Lower),
        ]
    }

    fn shape(&self) -> Shape {
        Shape { clients: CLIENTS, flows: None }
    }

    fn prepare<'a>(&'a self, arena: &'a Arena) -> Result<Round<'a>, Error> {
        let mut senders = Vec::new();
        for (number, client) in arena.clients.iter().enumerate() {
            let way = Way::Out(client.address, self.port(number));
            let (from, to) = (client.mac, client.gateway_mac);
            let stream = Stream { from, to, way, flows: self.flows, length: LENGTH };
            senders.push(Sender::new(&client.ns, ETH0, stream)?);
        }
        let source = arena.competitor.translates().then(|| arena.seen_as(0));
        let sink = Sink::hook(&arena.world, WORLD_LINK, Expected { source, ..Expected::default() })?;
        Ok(Box::new(move |_| self.round(arena, &mut senders, &sink)))
    }
}

impl NewFlows {
    fn round(&self, arena: &Arena, senders: &mut [Sender], sink: &Sink) -> Result<Sample, Error> {
        arena.forget_flows()?;
        let before = sink.arrived()?;
        let (mut wall, mut cpu) = (0.0, 0.0);
        for sender in senders.iter_mut() {
            let spent = load::all([sender], |_, sender| {
                load::pin(CPU)?;
                sender.send(self.flows.into())
            })?;
            wall += spent[0].wall.as_secs_f64();
            cpu += spent[0].cpu.as_secs_f64();
        }
        let arrived = sink.arrived()?.since(before);
        let offered = f64::from(self.flows) * senders.len() as f64;
        let mut sample = Sample::new([
            ("rate", arrived.as_expected as f64 / wall),
            ("lost", offered - arrived.as_expected as f64),
            ("cpu_per_flow", cpu * 1e9 / offered),
            // Without that of emptying the table.
            ("cpu", cpu),
        ]);
        sample.invalid_if(arrived.as_expected == 0, || "nothing arrived".into());
        sample.invalid_if(arrived.otherwise > 0, || {
            format!("{} packets arrived that were not translated", arrived.otherwise)
        });
        Ok(sample)
    }
}
