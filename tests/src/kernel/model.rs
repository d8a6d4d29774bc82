//! The host's side: the same core over plain Rust tables and a packet in a vector.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use netdp_common::family::Address;
use netdp_common::flow::{
    Config, Endpoint, FragmentKey, FragmentWay, Network, NextHop, Probing, Published, PublishedKey,
    SourceList, TimeoutSet, Tuple, Uplink, mapped_bit,
};
use netdp_common::packet::Packet as _;
use netdp_common::quota::Held;
use netdp_common::tables::{Flows as _, Host, RingSlot, Route, Scratch, Step, StepOn};
use netdp_common::verdict::{Action, DropReason, Event, Verdict};
use netdp_common::{closing, fragment, icmp_error, inbound, nat, opening, outbound, own, refusal};
use netdp_model::{same_prefix, waiting};

use self::flows::FlowTable;
use super::plan::Plan;
use super::programs::{Code, Outcome};
use super::site::{MTU, Site};
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
pub struct Model<F: Plan> {
    site: Site,
    tables: Rc<Tables<F::Addr>>,
    config: Config,
    flows: Rc<FlowTable<F::Addr>>,
    traces: Rc<RefCell<Traces<F::Addr>>>,
}

/// What packets leave behind besides flows.
struct Traces<A> {
    probing: HashMap<NextHop, Probing>,
    fragments: Vec<(FragmentKey<A>, FragmentWay<A>)>,
    waiting: waiting::Places<A>,
    again: Vec<(u32, Vec<u8>)>,
    /// A bit for each 1024 ports of which a mapping has had one.
    mapped: u64,
    /// Counted besides the packet at hand.
    lost: Option<DropReason>,
}

impl<F: Plan> Model<F> {
    /// With these tables.
    pub fn new(site: &Site, tables: Tables<F::Addr>) -> Self {
        let config = Config {
            secret: [1, 2],
            host_netns_cookie: 0,
            ring_slots: 1024,
            trace: 0,
            flows_max: u32::MAX,
            honours_firewall: 0,
        };
        let traces = Traces {
            probing: HashMap::new(),
            fragments: Vec::new(),
            waiting: waiting::Places::default(),
            again: Vec::new(),
            mapped: 0,
            lost: None,
        };
        let flows = FlowTable::default();
        for (key, flow) in &tables.flows {
            flows.insert(key, flow).expect("no flow twice");
        }
        Self {
            site: *site,
            tables: Rc::new(tables),
            config,
            flows: Rc::new(flows),
            traces: Rc::new(RefCell::new(traces)),
        }
    }

    /// What the hook does with a packet, as the kernel would tell it.
    pub fn run(&self, hook: Hook, packet: &[u8], ifindex: u32) -> Outcome {
        let mut frame = Frame::<F> {
            bytes: packet.to_vec(),
            ifindex,
            site: self.site,
            tables: Rc::clone(&self.tables),
            config: self.config,
            flows: Rc::clone(&self.flows),
            traces: Rc::clone(&self.traces),
        };
        let (verdict, told) = walk(hook, &mut frame);
        let (action, reason) = match verdict.action() {
            Action::Stack => (Code::Next, None),
            Action::Drop(reason) => (Code::Shot, Some(reason)),
            Action::Refused => (Code::Shot, told),
            Action::Wait => (Code::Shot, None),
            Action::ToEndpoint(_) | Action::ToNextHop(_) | Action::ToLink(_) => (Code::Redirect, told),
        };
        // Who counts can't tell whose reason it is.
        let reason = reason.or(self.traces.borrow_mut().lost.take());
        Outcome { action, reason, packet: frame.bytes }
    }

    /// What is to come in once more: interfaces and frames.
    pub fn again(&self) -> Vec<(u32, Vec<u8>)> {
        std::mem::take(&mut self.traces.borrow_mut().again)
    }

    /// All entries of the flow table.
    pub fn flows(&self) -> Vec<FlowEntry<F::Addr>> {
        self.flows.entries()
    }
}

/// As the hooks of `netdp-ebpf` do it. The reason: of a packet that its sender is told about.
fn walk<F: Plan>(hook: Hook, frame: &mut Frame<F>) -> (Verdict, Option<DropReason>) {
    for _ in 0..TAIL_CALLS {
        let mut scratch = Scratch::empty();
        let mut verdict = match hook {
            _ if frame.ethertype() != F::ETHERTYPE => Verdict::STACK,
            Hook::FromContainer => nat::from_container::<F, _>(frame, &mut scratch.known),
            Hook::FromWorld => nat::from_world::<F, _>(frame, &mut scratch.known),
            Hook::ToWorld => nat::to_world::<F, _>(frame),
        };
        if verdict == Verdict::ICMP_ERROR {
            return (icmp_error::translate::<F, _>(frame, &mut scratch), None);
        }
        if verdict == Verdict::PRIVATE {
            return (fragment::leave::<F, _>(frame, &mut scratch.known), None);
        }
        if verdict == Verdict::OWN {
            verdict = own::leave::<F, _>(frame, &mut scratch.known);
        }
        if verdict == Verdict::FRAGMENT {
            verdict = fragment::carry::<F, _>(frame, &mut scratch.known);
        }
        if verdict == Verdict::CLOSING {
            verdict = closing::follow::<F, _>(frame, &mut scratch, hook == Hook::ToWorld);
        }
        if verdict == Verdict::NO_FLOW_YET {
            verdict = match hook {
                Hook::FromContainer => outbound::open::<F, _>(frame, &mut scratch),
                Hook::FromWorld => inbound::open::<F, _>(frame, &mut scratch),
                Hook::ToWorld => own::open::<F, _>(frame, &mut scratch),
            };
        }
        while verdict == Verdict::CLAIM {
            verdict = opening::open::<F, _>(frame, &mut scratch);
        }
        if verdict == Verdict::OVERTAKEN || verdict == Verdict::OVERTAKEN_TO_HOST {
            let to_host = verdict == Verdict::OVERTAKEN_TO_HOST;
            verdict = fragment::wait::<F, _>(frame, &mut scratch.known, to_host);
        }
        if hook != Hook::ToWorld
            && verdict.is_told()
            && let Action::Drop(reason) = verdict.action()
        {
            let (_, refused) = verdict.parts();
            return (refusal::tell::<F, _>(frame, refused), Some(reason));
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
struct Frame<F: Plan> {
    bytes: Vec<u8>,
    ifindex: u32,
    site: Site,
    tables: Rc<Tables<F::Addr>>,
    config: Config,
    flows: Rc<FlowTable<F::Addr>>,
    traces: Rc<RefCell<Traces<F::Addr>>>,
}

impl<F: Plan> Host<F::Addr> for Frame<F> {
    type Flows = FlowTable<F::Addr>;
    type Slot = NoSlot;
    type Place = waiting::Place<F::Addr>;

    fn flows(&self) -> &Self::Flows {
        &self.flows
    }

    fn endpoint(&self, addr: &F::Addr) -> Option<&Endpoint<F::Addr>> {
        self.tables.endpoints.iter().find(|endpoint| endpoint.addr == *addr)
    }

    fn sender(&self, ifindex: u32) -> Option<&Endpoint<F::Addr>> {
        self.tables.endpoints.iter().find(|endpoint| endpoint.ifindex == ifindex)
    }

    fn allowed(&self, sender: u32, addr: &F::Addr) -> bool {
        self.tables
            .allowed
            .iter()
            .any(|(veth, prefix, bits)| *veth == sender && same_prefix(prefix, addr, *bits))
    }

    fn network(&self, bridge: u32) -> Option<&Network<F::Addr>> {
        let (key, network) = &self.tables.network;
        (*key == bridge).then_some(network)
    }

    fn published(&self, key: &PublishedKey<F::Addr>) -> Option<&Published<F::Addr>> {
        let port = |key: &PublishedKey<F::Addr>, bits| u32::from(key.port.get()) >> (16 - bits);
        let found = self.tables.published.iter().filter(|publication| {
            let (own, bits) = (&publication.key, publication.port_bits);
            (own.addr, own.proto) == (key.addr, key.proto) && port(own, bits) == port(key, bits)
        });
        found.max_by_key(|publication| publication.port_bits).map(|publication| &publication.value)
    }

    fn is_source(&self, list: SourceList, addr: &F::Addr) -> bool {
        let mut sources = self.tables.sources.iter().filter(|(number, ..)| *number == list);
        sources.any(|(_, prefix, bits)| same_prefix(prefix, addr, *bits))
    }

    fn moved_at(&self) -> u32 {
        0
    }

    fn uplink(&self, ifindex: u32) -> Option<&Uplink<F::Addr>> {
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
        let own = self.tables.endpoints.iter().map(|endpoint| &endpoint.addr);
        let allowed = self.tables.allowed.iter().map(|(_, addr, _)| addr);
        own.chain(allowed).any(|addr| F::prefix_digest(addr) == digest)
    }

    fn config(&self) -> Option<&Config> {
        Some(&self.config)
    }

    fn timeouts(&self, number: u16) -> Option<&TimeoutSet> {
        self.tables.timeouts.get(usize::from(number))
    }

    fn has_policies(&self) -> bool {
        false
    }

    fn is_tracked_liberally(&self) -> bool {
        false
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

    fn route(&self, tuple: &Tuple<F::Addr>, _iif: u32) -> Route<F::Addr> {
        route::<F>(&self.site, tuple.dst)
    }

    fn link_mtu(&self, _ifindex: u32) -> u16 {
        MTU
    }

    fn probing(&self, hop: &NextHop) -> Option<Probing> {
        self.traces.borrow().probing.get(hop).copied()
    }

    fn set_probing(&self, hop: &NextHop, probing: Probing) {
        self.traces.borrow_mut().probing.insert(*hop, probing);
    }

    fn fragment(&self, key: &FragmentKey<F::Addr>) -> Option<FragmentWay<F::Addr>> {
        self.traces.borrow().fragments.iter().rfind(|(known, _)| known == key).map(|(_, way)| *way)
    }

    fn set_fragment(&self, key: &FragmentKey<F::Addr>, way: &FragmentWay<F::Addr>) {
        self.traces.borrow_mut().fragments.push((*key, *way));
    }

    fn place(&self, number: u32) -> Option<Self::Place> {
        self.traces.borrow().waiting.place(number)
    }

    fn advance_waiting(&self, set: u32, n: u32) -> u32 {
        self.traces.borrow().waiting.advance(set, n)
    }

    fn keep(&self, place: &Self::Place) -> u32 {
        place.keep(&self.bytes)
    }

    fn become_kept(&mut self, place: &Self::Place, len: u32) -> bool {
        self.bytes = place.kept();
        self.bytes.len() == len as usize
    }

    fn come_again(&self, ifindex: u32) -> bool {
        self.traces.borrow_mut().again.push((ifindex, self.bytes.clone()));
        true
    }

    fn lose(&self, reason: DropReason) {
        let before = self.traces.borrow_mut().lost.replace(reason);
        assert_eq!(before, None, "one packet gives way to another");
    }

    /// The kernel's side is never asked for so many that it says no.
    fn take_turn(&self, _ifindex: u32, take: impl Fn(u64) -> Option<u64>) -> bool {
        take(0).is_some()
    }

    fn host_socket(&self, _sent: &Tuple<F::Addr>) -> bool {
        false
    }

    fn note_mapped(&self, port: u16) {
        self.traces.borrow_mut().mapped |= mapped_bit(port);
    }

    fn may_be_mapped(&self, port: u16) -> bool {
        self.traces.borrow().mapped & mapped_bit(port) != 0
    }

    /// What a test run sends came by no interface.
    fn is_own(&self) -> bool {
        true
    }

    fn exhausted(&self, _remote: &Tuple<F::Addr>, _range: u32) -> bool {
        false
    }

    fn set_exhausted(&self, _remote: &Tuple<F::Addr>, _range: u32) {}

    fn clear_exhausted(&self, _remote: &Tuple<F::Addr>) {}

    fn held(&self, _holder: u32) -> Held {
        Held::default()
    }

    fn add_held(&self, _holder: u32, _change: i32) {}

    fn endpoints(&self) -> u32 {
        1
    }

    fn advance_hand(&self, _n: u32) -> u32 {
        0
    }

    fn slot(&self, _number: u32) -> Option<NoSlot> {
        None
    }

    fn repeat_on<S: StepOn<Self>>(&mut self, n: u32, step: &mut S) {
        (0..n).for_each(|i| step.step_on(self, i));
    }

    fn repeat<S: Step>(&self, n: u32, step: &mut S) {
        (0..n).take_while(|i| step.step(*i)).for_each(drop);
    }

    fn ifindex(&self) -> u32 {
        self.ifindex
    }
}

/// The routing table that a [`Site`]'s namespace has.
fn route<F: Plan>(site: &Site, dst: F::Addr) -> Route<F::Addr> {
    let out = |oif, to: F::Addr, src| {
        let mut via = [0; 4];
        via[..to.words().len()].copy_from_slice(to.words());
        let (via_v6, resolved) = (F::ip(to).is_ipv6(), to == F::NEXT_HOP);
        Route::Out { oif, via, via_v6, src, resolved, mtu: MTU }
    };
    match dst {
        _ if dst == F::GATEWAY || dst == F::HOST || dst.is_loopback() => Route::Local,
        _ if F::same_link(dst, F::GATEWAY) => out(site.bridge, dst, F::GATEWAY),
        _ if F::same_link(dst, F::HOST) => out(site.uplink, dst, F::HOST),
        _ => out(site.uplink, F::NEXT_HOP, F::HOST),
    }
}

/// There is no reclaim ring here: nothing expires within a test.
#[derive(Clone, Copy)]
enum NoSlot {}

impl<A: Address> RingSlot<A> for NoSlot {
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
    fn key(&self) -> Tuple<A> {
        match *self {}
    }
    fn set_key(&self, _key: &Tuple<A>) {
        match *self {}
    }
}
