//! The host's side: the same core over plain Rust tables and a packet in a vector.

use std::rc::Rc;

use netdp_common::family::{Family as _, Ipv4Addr as Addr, V4};
use netdp_common::flow::{Config, Endpoint, Network, Published, PublishedKey, Timeouts, Tuple, Uplink};
use netdp_common::packet::Packet as _;
use netdp_common::tables::{Flows as _, Host, RingSlot, Route, Scratch, Step};
use netdp_common::verdict::{Action, DropReason, Event, Verdict};
use netdp_common::{closing, icmp_error, inbound, nat, outbound, refusal};

use self::flows::FlowTable;
use super::programs::{Code, Outcome};
use super::site::{GATEWAY, HOST, NEXT_HOP, Site};
use super::tables::{FlowEntry, Tables, now};

mod flows;
mod packet;

/// Where a packet meets the NAT.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Hook {
    /// Ingress of an endpoint's host veth.
    FromContainer,
    /// Ingress of an uplink.
    FromWorld,
    /// Egress of an uplink.
    ToWorld,
}

impl Hook {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::FromContainer, Self::FromWorld, Self::ToWorld];

    /// The program's name.
    pub const fn program(self) -> &'static str {
        match self {
            Self::FromContainer => "from_container",
            Self::FromWorld => "from_world",
            Self::ToWorld => "to_world",
        }
    }
}

/// The tables, and the routes of a [`Site`].
pub struct Model {
    site: Site,
    tables: Rc<Tables>,
    config: Config,
    flows: Rc<FlowTable>,
}

impl Model {
    /// With these tables.
    pub fn new(site: &Site, tables: Tables) -> Self {
        let config = Config {
            secret: [1, 2],
            host_netns_cookie: 0,
            ring_slots: 1024,
            trace: 0,
            timeouts: Timeouts::DEFAULT.in_ticks(),
            pressed: Timeouts::PRESSED.in_ticks(),
        };
        let flows = FlowTable::default();
        for (key, flow) in &tables.flows {
            flows.insert(key, flow).expect("no flow twice");
        }
        Self { site: *site, tables: Rc::new(tables), config, flows: Rc::new(flows) }
    }

    /// What the hook does with a packet, as the kernel would tell it.
    pub fn run(&self, hook: Hook, packet: &[u8], ifindex: u32) -> Outcome {
        let mut frame = Frame {
            bytes: packet.to_vec(),
            ifindex,
            site: self.site,
            tables: Rc::clone(&self.tables),
            config: self.config,
            flows: Rc::clone(&self.flows),
        };
        let (verdict, told) = walk(hook, &mut frame);
        let (action, reason) = match verdict.action() {
            Action::Stack => (Code::Next, None),
            Action::Drop(reason) => (Code::Shot, Some(reason)),
            Action::Refused => (Code::Shot, told),
            Action::ToEndpoint(_) | Action::ToNextHop(_) => (Code::Redirect, told),
        };
        Outcome { action, reason, packet: frame.bytes }
    }

    /// All entries of the flow table.
    pub fn flows(&self) -> Vec<FlowEntry> {
        self.flows.entries()
    }
}

/// As the hooks of `netdp-ebpf` do it. The reason: of a packet that its sender is told about.
fn walk(hook: Hook, frame: &mut Frame) -> (Verdict, Option<DropReason>) {
    for _ in 0..TAIL_CALLS {
        let mut scratch = Scratch::empty();
        let verdict = match hook {
            _ if frame.ethertype() != V4::ETHERTYPE => Verdict::STACK,
            Hook::FromContainer => nat::from_container::<V4, _>(frame, &mut scratch.known),
            Hook::FromWorld => nat::from_world::<V4, _>(frame, &mut scratch.known),
            Hook::ToWorld => nat::to_world::<V4, _>(frame),
        };
        if verdict == Verdict::ICMP_ERROR {
            return (icmp_error::translate::<V4, _>(frame, &mut scratch), None);
        }
        let verdict = match verdict {
            Verdict::CLOSING => closing::follow::<V4, _>(frame, &mut scratch),
            verdict => verdict,
        };
        if verdict != Verdict::NO_FLOW_YET {
            return (verdict, None);
        }
        let verdict = match hook {
            Hook::FromContainer => outbound::open::<V4, _>(frame, &mut scratch),
            Hook::FromWorld | Hook::ToWorld => inbound::open::<V4, _>(frame, &mut scratch),
        };
        if hook == Hook::FromContainer
            && verdict.is_told()
            && let Action::Drop(reason) = verdict.action()
        {
            return (refusal::reset::<V4, _>(frame), Some(reason));
        }
        if verdict != Verdict::FLOW_OPENED {
            return (verdict, None);
        }
    }
    panic!("the packet goes back and forth for ever");
}

/// The kernel's limit is 33.
const TAIL_CALLS: u32 = 16;

/// A packet and all that it may need.
struct Frame {
    bytes: Vec<u8>,
    ifindex: u32,
    site: Site,
    tables: Rc<Tables>,
    config: Config,
    flows: Rc<FlowTable>,
}

impl Host<Addr> for Frame {
    type Flows = FlowTable;
    type Slot = NoSlot;

    fn flows(&self) -> &FlowTable {
        &self.flows
    }

    fn endpoint(&self, addr: &Addr) -> Option<&Endpoint<Addr>> {
        self.tables.endpoints.iter().find(|endpoint| endpoint.addr == *addr)
    }

    fn sender(&self, ifindex: u32) -> Option<&Endpoint<Addr>> {
        self.tables.endpoints.iter().find(|endpoint| endpoint.ifindex == ifindex)
    }

    fn network(&self, bridge: u32) -> Option<&Network<Addr>> {
        let (key, network) = &self.tables.network;
        (*key == bridge).then_some(network)
    }

    fn published(&self, key: &PublishedKey<Addr>) -> Option<&Published<Addr>> {
        let port = |key: &PublishedKey<Addr>, bits| u32::from(key.port.get()) >> (16 - bits);
        let found = self.tables.published.iter().filter(|publication| {
            let (own, bits) = (&publication.key, publication.port_bits);
            (own.addr, own.proto) == (key.addr, key.proto) && port(own, bits) == port(key, bits)
        });
        found.max_by_key(|publication| publication.port_bits).map(|publication| &publication.value)
    }

    fn uplink(&self, ifindex: u32) -> Option<&Uplink<Addr>> {
        self.tables.uplinks.iter().find(|(key, _)| *key == ifindex).map(|(_, uplink)| uplink)
    }

    fn reserved(&self, proto: u8, port: u16) -> bool {
        self.tables.published.iter().any(|publication| {
            let first = publication.key.port.get();
            let last = first + ((1u32 << (16 - publication.port_bits)) - 1) as u16;
            publication.key.proto == proto && (first..=last).contains(&port)
        })
    }

    fn private_prefix(&self, digest: u16) -> bool {
        digest == self.tables.prefix_digest()
    }

    fn config(&self) -> Option<&Config> {
        Some(&self.config)
    }

    fn now(&self) -> u32 {
        now()
    }

    fn random(&self) -> u32 {
        4
    }

    fn nanoseconds(&self) -> u64 {
        0
    }

    fn count(&self, _event: Event, _n: u64) {}

    fn route(&self, tuple: &Tuple<Addr>, _iif: u32) -> Route<Addr> {
        route(&self.site, tuple.dst)
    }

    fn host_socket(&self, _sent: &Tuple<Addr>) -> bool {
        false
    }

    fn exhausted(&self, _remote: &Tuple<Addr>, _range: u32) -> bool {
        false
    }

    fn set_exhausted(&self, _remote: &Tuple<Addr>, _range: u32) {}

    fn clear_exhausted(&self, _remote: &Tuple<Addr>) {}

    fn advance_hand(&self, _n: u32) -> u32 {
        0
    }

    fn slot(&self, _number: u32) -> Option<NoSlot> {
        None
    }

    fn repeat<S: Step>(&self, n: u32, step: &mut S) {
        (0..n).take_while(|i| step.step(*i)).for_each(drop);
    }

    fn ifindex(&self) -> u32 {
        self.ifindex
    }
}

/// The routing table that a [`Site`]'s namespace has.
fn route(site: &Site, dst: Addr) -> Route<Addr> {
    let addr = std::net::Ipv4Addr::from(dst);
    let [a, b, c, _] = addr.octets();
    let out = |oif, via: Addr, src: std::net::Ipv4Addr| Route::Out {
        oif,
        via: [via.0, 0, 0, 0],
        via_v6: false,
        src: src.into(),
    };
    match [a, b, c] {
        _ if addr == GATEWAY || addr == HOST || a == 127 => Route::Local,
        [10, 88, 0] => out(site.bridge, dst, GATEWAY),
        [198, 51, 100] => out(site.uplink, dst, HOST),
        _ => out(site.uplink, NEXT_HOP.into(), HOST),
    }
}

/// There is no reclaim ring here: nothing expires within a test.
#[derive(Clone, Copy)]
enum NoSlot {}

impl RingSlot<Addr> for NoSlot {
    fn owner(&self) -> u64 {
        match *self {}
    }
    fn swap_owner(&self, _old: u64, _new: u64) -> bool {
        match *self {}
    }
    fn due(&self) -> u32 {
        match *self {}
    }
    fn set_due(&self, _due: u32) {
        match *self {}
    }
    fn key(&self) -> Tuple<Addr> {
        match *self {}
    }
    fn set_key(&self, _key: &Tuple<Addr>) {
        match *self {}
    }
}
