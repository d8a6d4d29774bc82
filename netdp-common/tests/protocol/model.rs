//! What the scenarios share: a host with few ports, CPUs with one packet each, and what must hold at the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use loom::model::Builder;
use loom::thread::{self, JoinHandle};
use netdp_common::family::{Ipv4Addr, V4};
use netdp_common::flow::{FLOW_INITIATOR, Flow, PortSpans, Pressure, Tuple};
use netdp_common::header::{tcp, udp};
use netdp_common::meta::Meta;
use netdp_common::reclaim::{Judged, other_key, remove_exact, remove_if_expired};
use netdp_common::tables::{Entry, Flows};
use netdp_common::verdict::DropReason;

use crate::table::{Copied, Table};
use netdp_model::cpu::Cpu;
use netdp_model::frame::{Carries, Sent, load};
use netdp_model::hook::{Fate, Hook};
use netdp_model::plan::{Place, Plan};
use netdp_model::{NEXT_HOP, TIMEOUTS, World, ifindex};

/// The first port of every range.
pub(crate) const PORT: u16 = 5000;

/// A tick at which a UDP flow of tick 0 is idle, but has not expired.
pub(crate) const IDLE: u32 = TIMEOUTS.udp - 1;
/// A tick at which it has.
pub(crate) const EXPIRED: u32 = TIMEOUTS.udp;

/// One run of a model.
#[derive(Clone)]
pub(crate) struct Model {
    world: Arc<World<Ipv4Addr>>,
    pub(crate) table: Arc<Table>,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Outcome {
    /// It left as (source, destination, source port, destination port).
    Sent(Ipv4Addr, Ipv4Addr, u16, u16),
    /// It was left to the host's stack.
    Stack,
    /// It was dropped.
    Dropped(DropReason),
}

/// Runs `scenario` in every interleaving, or in those with up to `preemptions` preemptions.
pub(crate) fn explore(name: &str, preemptions: Option<usize>, scenario: impl Fn() + Send + Sync + 'static) {
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&runs);
    let mut builder = Builder::new();
    builder.max_branches = 100_000;
    builder.preemption_bound = preemptions;
    let start = std::time::Instant::now();
    let scenario = Arc::new(scenario);
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        let scenario = Arc::clone(&scenario);
        spawn(move || scenario()).join().unwrap();
    });
    let runs = runs.load(Ordering::Relaxed);
    println!("{name}: {runs} interleavings (preemptions: {preemptions:?}) in {:?}", start.elapsed());
}

/// Starts a thread of the model. By itself loom gives it 32 KiB of stack, and frames are built there.
fn spawn<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    const STACK_WORDS: usize = 0x4000;
    thread::Builder::new().stack_size(STACK_WORDS).spawn(work).expect("a thread of the model")
}

impl Model {
    /// A host whose mappings have `ports` ports, and a table for `entries` entries.
    pub(crate) fn new(ports: u16, entries: usize, copied: Copied) -> Self {
        let spans = PortSpans::new(PORT, PORT + ports - 1, (1, 1));
        let mut world = World::new::<V4>(spans);
        world.publish::<V4>(udp::PROTO, 8053..=8053, Place::A, 53);
        Self { world: Arc::new(world), table: Arc::new(Table::new(entries, copied)) }
    }

    /// The same, where the host's firewall decides.
    pub(crate) fn honouring(mut self) -> Self {
        let world = Arc::get_mut(&mut self.world).expect("nobody else's yet");
        world.config.honours_firewall = 1;
        self
    }

    /// On a CPU of its own: a packet, at a tick.
    pub(crate) fn packet(&self, cpu: u64, now: u32, hook: Hook, sent: Sent<Ipv4Addr>) -> JoinHandle<Outcome> {
        self.spawn(move |model| model.packet_here(cpu, now, hook, sent))
    }

    fn spawn<T: Send + 'static>(&self, work: impl FnOnce(&Self) -> T + Send + 'static) -> JoinHandle<T> {
        let model = self.clone();
        model.table.comes();
        spawn(move || {
            let done = work(&model);
            model.table.goes();
            done
        })
    }

    /// The same on this CPU.
    pub(crate) fn packet_here(&self, cpu: u64, now: u32, hook: Hook, sent: Sent<Ipv4Addr>) -> Outcome {
        let mut host = Cpu::<V4, &Table>::new(&self.world, &self.table, cpu, now);
        match host.run(hook, sent.at(hook).bytes::<V4>()) {
            Fate::Stack => Outcome::Stack,
            Fate::Leaves => outcome(&host.frame),
            Fate::Waits => panic!("no fragments here"),
            Fate::Dropped(reason) | Fate::Answered(reason) => Outcome::Dropped(reason),
            fate => {
                check_way(&host, fate);
                outcome(&host.frame)
            }
        }
    }

    /// On a CPU of its own: whoever reclaims looks at the flow with this key. True if it removed it.
    pub(crate) fn remover(&self, cpu: u64, now: u32, key: Tuple<Ipv4Addr>) -> JoinHandle<bool> {
        self.spawn(move |model| {
            let host = Cpu::<V4, &Table>::new(&model.world, &model.table, cpu, now);
            match (&*model.table).get(&key) {
                Some(entry) => remove_if_expired(&host, &entry, &key, now, Pressure::NONE) == Judged::Gone,
                None => false,
            }
        })
    }

    /// On a CPU of its own: user space lists the flow with this key and removes that very one.
    pub(crate) fn flush(&self, cpu: u64, now: u32, key: Tuple<Ipv4Addr>) -> JoinHandle<Flushed> {
        self.spawn(move |model| {
            let host = Cpu::<V4, &Table>::new(&model.world, &model.table, cpu, now);
            let Some(entry) = (&*model.table).get(&key) else { return Flushed::NotThere };
            let generation = entry.meta().generation();
            if remove_exact(&host, &key, generation) {
                Flushed::Removed(generation)
            } else {
                Flushed::NotRemoved(generation)
            }
        })
    }

    /// What is in the table, as (initiator's key, its entry), after checking that it is consistent: every entry has
    /// its other half, of the same generation and its exact mirror (but for tombstones), none is being removed.
    pub(crate) fn flows(&self) -> Vec<(Tuple<Ipv4Addr>, Flow<Ipv4Addr>)> {
        let entries = self.table.entries();
        for (key, flow) in &entries {
            let meta = Meta(flow.meta);
            assert!(!meta.is_dying(), "left dying: {key:?}");
            let other = other_key(flow, key.proto);
            if is_tombstone(key, flow, &entries) {
                continue;
            }
            let found = entries.iter().find(|(key, _)| *key == other);
            let (_, mirror) = found.unwrap_or_else(|| panic!("{key:?} has no other half {other:?}"));
            assert_eq!(Meta(mirror.meta).generation(), meta.generation(), "halves of different flows");
            assert_eq!(other_key(mirror, key.proto), *key, "not each other's mirror");
            assert_eq!((mirror.flags ^ flow.flags) & FLOW_INITIATOR, FLOW_INITIATOR, "who began?");
        }
        entries.into_iter().filter(|(_, flow)| flow.flags & FLOW_INITIATOR != 0).collect()
    }
}

/// The responder's entry of a closed connection may be alone.
fn is_tombstone(
    key: &Tuple<Ipv4Addr>,
    flow: &Flow<Ipv4Addr>,
    entries: &[(Tuple<Ipv4Addr>, Flow<Ipv4Addr>)],
) -> bool {
    let closed = key.proto == tcp::PROTO && Meta(flow.meta).bits() & Meta::CLOSED != 0;
    let other = other_key(flow, key.proto);
    closed
        && flow.flags & FLOW_INITIATOR == 0
        && entries.iter().all(|(key, flow)| *key != other || other_key(flow, key.proto) != other)
}

/// What [`Model::flush`] did with the generation that it listed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Flushed {
    NotThere,
    Removed(u32),
    NotRemoved(u32),
}

/// A translated packet goes where its own mapping says, not where another's does.
fn check_way(host: &Cpu<'_, V4, &Table>, fate: Fate) {
    let Outcome::Sent(_, dst, ..) = outcome(&host.frame) else { panic!("{fate:?} without ports") };
    let expected = match host.world.endpoints.get(&dst) {
        Some(endpoint) => Fate::ToEndpoint(endpoint.ifindex),
        None => Fate::ToNextHop(ifindex::UPLINK),
    };
    assert_eq!(fate, expected, "sent the wrong way");
    if let Fate::ToNextHop(_) = fate {
        assert_eq!(host.next_hop, NEXT_HOP);
    }
}

fn outcome(frame: &[u8]) -> Outcome {
    let at = |at| load::<u32>(frame, at).map(Ipv4Addr).expect("an address");
    let port = |at| load::<u16>(frame, at).map(u16::from_be).expect("a port");
    Outcome::Sent(at(26), at(30), port(34), port(36))
}

/// A UDP datagram of an endpoint to the first remote.
pub(crate) fn datagram(from: Place, sport: u16) -> Sent<Ipv4Addr> {
    Sent {
        src: V4::at(from),
        dst: V4::at(Place::Remote(9)),
        sport,
        dport: 53,
        carries: Carries::Udp,
        ttl: 64,
    }
}

/// What the remote answers to a datagram that came from `port` of the host.
pub(crate) fn answer(port: u16) -> Sent<Ipv4Addr> {
    Sent { src: V4::at(Place::Host), sport: port, ..datagram(Place::A, 0) }.answered(Carries::Udp)
}

/// The same datagram as the remote sees it.
pub(crate) fn seen(port: u16) -> Outcome {
    Outcome::Sent(V4::at(Place::Host), V4::at(Place::Remote(9)), port, 53)
}

/// The answer as the endpoint sees it.
pub(crate) fn answered(to: Place, sport: u16) -> Outcome {
    Outcome::Sent(V4::at(Place::Remote(9)), V4::at(to), 53, sport)
}

/// A packet's key in the flow table.
pub(crate) fn key(sent: &Sent<Ipv4Addr>) -> Tuple<Ipv4Addr> {
    let proto =
        if let Carries::Tcp(_) | Carries::Segment(_) = sent.carries { tcp::PROTO } else { udp::PROTO };
    let port = netdp_common::family::Be16::new;
    Tuple {
        src: sent.src,
        dst: sent.dst,
        sport: port(sent.sport),
        dport: port(sent.dport),
        proto,
        pad: [0; 3],
    }
}

/// The ports of the host that these outcomes show.
pub(crate) fn ports(outcomes: &[Outcome]) -> Vec<u16> {
    let mut ports: Vec<u16> = outcomes
        .iter()
        .filter_map(|outcome| if let Outcome::Sent(_, _, port, _) = outcome { Some(*port) } else { None })
        .collect();
    ports.sort_unstable();
    ports
}
