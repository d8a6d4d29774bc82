//! What forwarding a packet costs: frames of flows that are established, as fast as one CPU sends them. A veth passes
//! a packet on to the next interface on the same CPU, so the sender's time is that of the whole way; what sending
//! itself costs is measured beside it and taken off.

use std::time::Duration;

use super::{Case, Round};
use crate::bench::Error;
use crate::bench::arena::{Arena, ETH0, Shape, UPLINK, WORLD_LINK};
use crate::bench::competitor::Competitor;
use crate::bench::load::frames::{Sender, Stream, Way};
use crate::bench::load::{self, Transport};
use crate::bench::machine;
use crate::bench::options::Effort;
use crate::bench::programs::{Expected, Sink};
use crate::bench::results::{Better, Metric, Run, Sample};
use crate::bench::wiring::{Forward, HOST_IFNAME};

/// The remotes' port.
const PORT: u16 = 9000;
/// Reached from outside.
const PUBLISHED: Forward = Forward { host_port: 8080, port: 80, count: 1, transport: Transport::Udp };
/// Which CPU sends: not the first, which has most of the machine's interrupts.
const CPU: usize = 1;
/// What may be missing of all packets: those that wait for a neighbour's address.
const LOST: f64 = 0.001;
/// Above so many flows, netdp's table is asked for with room for them; below, it has its default size.
const MANY: u32 = 100_000;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Direction {
    Out,
    In,
}

struct Forwarding {
    direction: Direction,
    length: usize,
    flows: u32,
    packets: u64,
}

/// Directions, lengths, numbers of flows.
pub(super) fn cases(effort: Effort, _rounds: u32) -> Vec<Box<dyn Case>> {
    use Direction::{In, Out};
    let full = [
        (Out, 60, 1),
        (Out, 60, 10_000),
        (Out, 60, 1_000_000),
        (Out, 1400, 1),
        (In, 60, 1),
        (In, 60, 10_000),
        (In, 60, 1_000_000),
        (In, 1400, 1),
    ];
    let quick = |(direction, length, flows): &(Direction, usize, u32)| {
        *length == 60 && *flows == if *direction == Out { 10_000 } else { 1 }
    };
    let packets = effort.choose(1_000_000, 150_000);
    let wanted = full.into_iter().filter(|case| effort == Effort::Full || quick(case));
    wanted
        .map(|(direction, length, flows)| {
            Box::new(Forwarding { direction, length, flows, packets }) as Box<dyn Case>
        })
        .collect()
}

impl Case for Forwarding {
    fn name(&self) -> String {
        let way = if self.direction == Direction::Out { "out" } else { "in" };
        format!("{way}, {} B, {}", self.length, flows(self.flows))
    }

    fn about(&self) -> String {
        let way = match self.direction {
            Direction::Out => "from a container to the world",
            Direction::In => "from the world to a published port",
        };
        format!(
            "time per packet of {} bytes {way}, {}, one CPU, the sender's own taken off",
            self.length,
            flows(self.flows)
        )
    }

    fn metrics(&self) -> Vec<Metric> {
        metrics()
    }

    fn suits(&self, _: Competitor) -> bool {
        true
    }

    fn obstacle(&self, competitor: Competitor) -> Option<String> {
        too_many_to_track(competitor, self.flows)
    }

    fn shape(&self) -> Shape {
        Shape { clients: 1, flows: table_for(self.flows) }
    }

    fn prepare<'a>(&'a self, arena: &'a Arena) -> Result<Round<'a>, Error> {
        if self.direction == Direction::In {
            arena.publish(&[PUBLISHED])?;
        }
        let mut way = way(arena, self.direction == Direction::In, PUBLISHED, self.flows, self.length)?;
        Ok(Box::new(move |_| way.measure(self.packets)))
    }

    /// What sending itself costs is known only when all have sent.
    fn finish(&self, runs: &mut [Run]) {
        take_senders_cost_off(runs);
    }
}

/// Those of every way: on the clock and on the CPU, without the sender's own and with it.
pub(super) fn metrics() -> Vec<Metric> {
    let time = |name| Metric::new(name, "ns", Better::Lower);
    ["cost", "cpu_cost", "with_sender", "cpu_with_sender"].map(time).into()
}

/// Why netfilter can't track so many flows here.
pub(super) fn too_many_to_track(competitor: Competitor, flows: u32) -> Option<String> {
    let max = machine::conntrack_max().filter(|_| competitor.is_tracked())?;
    (u64::from(flows) > max).then(|| format!("net.netfilter.nf_conntrack_max is {max} on this machine"))
}

/// How big netdp's table must be.
pub(super) fn table_for(flows: u32) -> Option<u32> {
    (flows > MANY).then_some(flows + flows / 4)
}

pub(super) fn flows(count: u32) -> String {
    if count == 1 { "1 flow".into() } else { format!("{count} flows") }
}

/// From a sender through a competitor to a sink.
pub(super) struct Path {
    sender: Sender,
    sink: Sink,
    flows: u32,
}

/// The way out of the first container, or in to one of its published ports.
pub(super) fn way(
    arena: &Arena,
    inbound: bool,
    forward: Forward,
    flows: u32,
    length: usize,
) -> Result<Path, Error> {
    let client = &arena.clients[0];
    let direct = arena.competitor == Competitor::Direct;
    let first_hop = format!("{HOST_IFNAME}0");
    let (sender, sink) = if inbound {
        let (address, port) = arena.reach(forward);
        let stream = Stream {
            from: arena.world_mac,
            to: arena.uplink_mac,
            way: Way::In(address, port),
            flows,
            length,
        };
        let expected = Expected { source: None, destination: Some(client.address), port: Some(forward.port) };
        let (ns, interface) = if direct { (&arena.host, UPLINK) } else { (&client.ns, ETH0) };
        (Sender::new(&arena.world, WORLD_LINK, stream)?, Sink::hook(ns, interface, expected)?)
    } else {
        let way = Way::Out(client.address, PORT);
        let stream = Stream { from: client.mac, to: client.gateway_mac, way, flows, length };
        let expected = Expected { source: Some(arena.seen_as(0)), destination: None, port: Some(PORT) };
        let (ns, interface) =
            if direct { (&arena.host, first_hop.as_str()) } else { (&arena.world, WORLD_LINK) };
        (Sender::new(&client.ns, ETH0, stream)?, Sink::hook(ns, interface, expected)?)
    };
    Ok(Path { sender, sink, flows })
}

impl Path {
    /// Opens or refreshes every flow, then sends so many packets (at least one of each flow) and times them.
    pub(super) fn measure(&mut self, packets: u64) -> Result<Sample, Error> {
        let packets = packets.max(self.flows.into());
        let (flows, sender) = (u64::from(self.flows), &mut self.sender);
        let refreshed = |sender: &mut Sender| {
            load::pin(CPU)?;
            sender.send(flows)
        };
        load::all([&mut *sender], |_, sender| refreshed(sender))?;
        let before = self.sink.arrived()?;
        let timed = load::all([sender], |_, sender| {
            load::pin(CPU)?;
            sender.send(packets)
        })?;
        let arrived = self.sink.arrived()?.since(before);
        let nanoseconds = |time: Duration| time.as_secs_f64() * 1e9 / packets as f64;
        let mut sample = Sample::new([
            ("with_sender", nanoseconds(timed[0].wall)),
            ("cpu_with_sender", nanoseconds(timed[0].cpu)),
            ("sent", packets as f64),
            ("arrived", arrived.as_expected as f64),
        ]);
        let lost = 1.0 - arrived.as_expected as f64 / packets as f64;
        sample.invalid_if(lost > LOST || arrived.otherwise > 0, || {
            format!(
                "of {packets} packets {} arrived as they should, and {} otherwise",
                arrived.as_expected, arrived.otherwise
            )
        });
        Ok(sample)
    }
}

/// Derives `cost` and `cpu_cost` from what includes the sender's own, round by round.
pub(super) fn take_senders_cost_off(runs: &mut [Run]) {
    let Some(direct) = runs.iter().find(|run| run.competitor == Competitor::Direct).cloned() else { return };
    let others = runs.iter_mut().filter(|run| run.competitor != Competitor::Direct);
    for sample in others.flat_map(|run| &mut run.samples) {
        let own = direct.samples.iter().find(|own| own.round == sample.round && own.invalid.is_none());
        for (cost, all) in [("cost", "with_sender"), ("cpu_cost", "cpu_with_sender")] {
            let own = own.and_then(|own| own.metrics.get(all));
            if let (Some(all), Some(own)) = (sample.metrics.get(all), own) {
                sample.metrics.insert(cost.into(), all - own);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_senders_cost_is_that_of_the_same_round() {
        let run = |competitor, values: [f64; 2]| Run {
            competitor,
            absent: None,
            samples: (1..)
                .zip(values)
                .map(|(round, value)| Sample { round, ..Sample::new([("with_sender", value)]) })
                .collect(),
        };
        let mut runs = [run(Competitor::Direct, [100.0, 150.0]), run(Competitor::NetdpEbpf, [300.0, 360.0])];
        runs[0].samples[1].invalid = Some("nothing arrived".into());
        take_senders_cost_off(&mut runs);
        assert_eq!(runs[1].values("cost").collect::<Vec<_>>(), [200.0]);
        assert_eq!(runs[0].values("cost").count(), 0);
    }
}
