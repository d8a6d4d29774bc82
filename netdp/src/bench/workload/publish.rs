//! Published ports: how long it takes to publish them, and what a packet to the last of them costs.

use std::time::Instant;

use super::forward;
use super::{Case, Round};
use crate::bench::Error;
use crate::bench::arena::{Arena, Shape};
use crate::bench::competitor::Competitor;
use crate::bench::load::Transport;
use crate::bench::options::Effort;
use crate::bench::results::{Better, Metric, Run};
use crate::bench::wiring::Forward;

/// The first published port, and the one in the container.
const HOST_PORT: u16 = 30_000;
const PORT: u16 = 10_000;
const LENGTH: usize = 60;

struct Publish {
    ports: u16,
    /// All in one: `-p 30000-39999:10000-19999`.
    range: bool,
    packets: u64,
}

/// 1, 100, 10 000 ports, and 10 000 in one range.
pub(super) fn cases(effort: Effort, _rounds: u32) -> Vec<Box<dyn Case>> {
    let packets = effort.choose(500_000, 50_000);
    let all = [(1, false), (100, false), (10_000, false), (10_000, true)];
    let wanted = all.into_iter().filter(|(ports, range)| effort == Effort::Full || (*ports == 100 && !range));
    wanted.map(|(ports, range)| Box::new(Publish { ports, range, packets }) as Box<dyn Case>).collect()
}

impl Publish {
    fn forwards(&self) -> Vec<Forward> {
        let whole =
            Forward { host_port: HOST_PORT, port: PORT, count: self.ports, transport: Transport::Udp };
        if self.range {
            return vec![whole];
        }
        (0..self.ports)
            .map(|n| Forward { host_port: HOST_PORT + n, port: PORT + n, count: 1, ..whole })
            .collect()
    }

    /// The last one, which a list of rules comes to last.
    fn last(&self) -> Forward {
        let n = self.ports - 1;
        Forward { host_port: HOST_PORT + n, port: PORT + n, count: 1, transport: Transport::Udp }
    }
}

impl Case for Publish {
    fn name(&self) -> String {
        match (self.ports, self.range) {
            (ports, true) => format!("a range of {ports}"),
            (1, false) => "1 port".into(),
            (ports, false) => format!("{ports} ports"),
        }
    }

    fn about(&self) -> String {
        "time to publish them by one command, and per packet of a flow to the last of them".into()
    }

    fn metrics(&self) -> Vec<Metric> {
        let mut metrics = vec![Metric::new("time", "ms", Better::Lower)];
        metrics.extend(forward::metrics());
        metrics
    }

    /// Where nothing translates, nothing is published: plain routing shows the packet's cost alone.
    fn suits(&self, competitor: Competitor) -> bool {
        !matches!(competitor, Competitor::Redirect | Competitor::RedirectNextHop)
    }

    fn shape(&self) -> Shape {
        Shape { clients: 1, flows: None }
    }

    fn prepare<'a>(&'a self, arena: &'a Arena) -> Result<Round<'a>, Error> {
        let forwards = self.forwards();
        let mut path = forward::way(arena, true, self.last(), 1, LENGTH)?;
        Ok(Box::new(move |_| {
            let since = Instant::now();
            arena.publish(&forwards)?;
            let milliseconds = since.elapsed().as_secs_f64() * 1e3;
            let sample = path.measure(self.packets);
            arena.unpublish()?;
            arena.forget_flows()?;
            let mut sample = sample?;
            if arena.competitor.translates() {
                sample.metrics.insert("time".into(), milliseconds);
            }
            Ok(sample)
        }))
    }

    fn finish(&self, runs: &mut [Run]) {
        forward::take_senders_cost_off(runs);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_one_by_one_and_as_a_range_are_the_same_ports() {
        let one_by_one = Publish { ports: 10_000, range: false, packets: 1 };
        let range = Publish { range: true, ..one_by_one };
        assert_eq!(one_by_one.forwards().len(), 10_000);
        assert_eq!(one_by_one.forwards().last(), Some(&range.last()));
        assert_eq!(range.forwards()[0].count, 10_000);
        assert_eq!(range.forwards()[0].host_port + 9_999, range.last().host_port);
    }
}
