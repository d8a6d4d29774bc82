//! Memory of the flow table: what the kernel says that it uses for it, with that many flows in it.

use std::fs;

use super::forward::{flows, too_many_to_track, way};
use super::{Case, Round};
use crate::bench::Error;
use crate::bench::arena::{Arena, Shape};
use crate::bench::competitor::Competitor;
use crate::bench::load::Transport;
use crate::bench::options::Effort;
use crate::bench::programs;
use crate::bench::results::{Better, Metric};
use crate::bench::wiring::Forward;

const MIB: f64 = (1 << 20) as f64;
const LENGTH: usize = 60;
/// Nothing is published.
const NONE: Forward = Forward { host_port: 0, port: 0, count: 1, transport: Transport::Udp };
/// The slab cache of netfilter's connections; their extensions and hash table come on top of it.
const CONNTRACK: &str = "nf_conntrack";

struct Memory {
    flows: u32,
}

/// 100 000 and 1 000 000 flows.
pub(super) fn cases(effort: Effort, _rounds: u32) -> Vec<Box<dyn Case>> {
    let sizes = effort.choose(vec![100_000, 1_000_000], vec![20_000]);
    sizes.into_iter().map(|flows| Box::new(Memory { flows }) as Box<dyn Case>).collect()
}

impl Case for Memory {
    fn name(&self) -> String {
        flows(self.flows)
    }

    fn about(&self) -> String {
        "memory of netdp's maps, sized for that many flows (beside it, what IPv6 takes), and of netfilter's \
         connections (their slab, without extensions and hash table)"
            .into()
    }

    fn metrics(&self) -> Vec<Metric> {
        let memory = |name| Metric::new(name, "MiB", Better::Lower);
        vec![memory("memory"), Metric::new("per_flow", "B", Better::Lower), memory("memory_v6")]
    }

    /// netdp on iptables has netfilter's.
    fn suits(&self, competitor: Competitor) -> bool {
        matches!(competitor, Competitor::RandomFully | Competitor::NetdpEbpf)
    }

    fn obstacle(&self, competitor: Competitor) -> Option<String> {
        too_many_to_track(competitor, self.flows)
    }

    fn shape(&self) -> Shape {
        Shape { clients: 1, flows: Some(self.flows) }
    }

    fn prepare<'a>(&'a self, arena: &'a Arena) -> Result<Round<'a>, Error> {
        let mut path = way(arena, false, NONE, self.flows, LENGTH)?;
        Ok(Box::new(move |_| {
            arena.forget_flows()?;
            let before = tracked()?;
            let mut sample = path.measure(0)?;
            let bytes = match arena.netdp() {
                Some(instance) => {
                    let memory = programs::memory_of_pins(instance.name())?;
                    sample.metrics.insert("memory_v6".into(), memory.v6 as f64 / MIB);
                    memory.v4
                }
                None => tracked()?.saturating_sub(before),
            };
            sample.metrics.insert("memory".into(), bytes as f64 / MIB);
            sample.metrics.insert("per_flow".into(), bytes as f64 / f64::from(self.flows));
            Ok(sample)
        }))
    }
}

/// Bytes of all connections that netfilter tracks on this machine.
fn tracked() -> Result<u64, Error> {
    let text = fs::read_to_string("/proc/slabinfo").map_err(Error::system("reading /proc/slabinfo"))?;
    // slabinfo(5): name, active objects, objects, bytes of each.
    let fields = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let own = fields.filter(|fields| fields.first() == Some(&CONNTRACK));
    let bytes =
        |fields: Vec<&str>| Some(fields.get(1)?.parse::<u64>().ok()? * fields.get(3)?.parse::<u64>().ok()?);
    Ok(own.filter_map(bytes).sum())
}
