//! A CPU with a packet on it: the hooks as `netdp-ebpf` has them, over any flow table.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use bytemuck::Pod;
use netdp_common::family::{Address, Family};
use netdp_common::flow::{
    Config, Endpoint, FragmentKey, FragmentWay, Network, NextHop, Probing, Published, PublishedKey,
    SourceList, TimeoutSet, Tuple, Uplink,
};
use netdp_common::header::ethernet;
use netdp_common::packet::{L4Fix, Packet};
use netdp_common::quota::Held;
use netdp_common::tables::{Flows, Host, RingSlot, Route, Scratch, Step, StepOn};
use netdp_common::verdict::{Action, DropReason, Event, Verdict};
use netdp_common::{
    closing, firewall, fragment, icmp_error, inbound, link, nat, opening, outbound, own, refusal,
};

use crate::hook::{Fate, Hook};
use crate::plan::Plan;
use crate::table::Table;
use crate::{World, checksum, frame, ifindex, mac, waiting};

/// `MAX_TAIL_CALL_CNT` of the kernel.
const TAIL_CALLS: u32 = 33;

/// What the CPUs of a host share and change: the flow table, the ring, what is known of exhausted remotes.
pub trait Shared<A: Address>: Flows<A> + Copy {
    /// A slot of the ring.
    type Slot: RingSlot<A>;
    /// [`Host::slot`].
    fn slot(&self, number: u32) -> Option<Self::Slot>;
    /// [`Host::advance_hand`].
    fn advance_hand(&self, n: u32) -> u32;
    /// [`Host::exhausted`], with the range and the tick at which it was found so.
    fn exhausted(&self, remote: &Tuple<A>, found: (u32, u32)) -> bool;
    /// [`Host::set_exhausted`], or with none [`Host::clear_exhausted`].
    fn set_exhausted(&self, remote: &Tuple<A>, found: Option<(u32, u32)>);
    /// A packet starts over, for the first time (0) or once more: elsewhere, others get on.
    fn start_over(&self, times: u32);
}

/// A CPU that runs the hooks.
pub struct Cpu<'w, F: Plan, S> {
    /// What the control plane has set up.
    pub world: &'w World<F::Addr>,
    /// What this CPU shares with others.
    pub shared: S,
    /// The packet.
    pub frame: Vec<u8>,
    /// The interface it is seen on.
    pub ifindex: u32,
    /// The frame has a VLAN tag that the NIC took off.
    pub vlan: bool,
    /// A socket of the host made the packet.
    pub own: bool,
    /// The packet is aggregated of segments with so many bytes of payload.
    pub segment_size: u32,
    /// The clock.
    pub now: Cell<u32>,
    /// What the packet's verdict says about its next hop.
    pub next_hop: [u32; 4],
    /// Frames that are to come in once more, and by which interface.
    pub again: RefCell<Vec<(u32, Vec<u8>)>>,
    /// Packets counted as dropped besides the one at hand.
    pub lost: RefCell<Vec<DropReason>>,
    seed: Cell<u64>,
    counts: RefCell<HashMap<Event, u64>>,
    scratch: Scratch<F::Addr>,
}

impl<'w, F: Plan, S: Shared<F::Addr>> Cpu<'w, F, S> {
    /// A CPU whose random numbers start from `seed`.
    pub fn new(world: &'w World<F::Addr>, shared: S, seed: u64, now: u32) -> Self {
        Self {
            world,
            shared,
            frame: Vec::new(),
            ifindex: 0,
            vlan: false,
            own: false,
            segment_size: 0,
            now: Cell::new(now),
            next_hop: [0; 4],
            again: RefCell::default(),
            lost: RefCell::default(),
            seed: Cell::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            counts: RefCell::default(),
            scratch: Scratch::empty(),
        }
    }

    /// How often an event was counted.
    pub fn counted(&self, event: Event) -> u64 {
        self.counts.borrow().get(&event).copied().unwrap_or(0)
    }

    /// Runs a hook's programs on a frame, as `netdp-ebpf/src/main.rs` does.
    pub fn run(&mut self, hook: Hook, frame: Vec<u8>) -> Fate {
        self.frame = frame;
        self.next_hop = [0; 4];
        self.ifindex = hook.interface();
        match (self.ethertype(), hook) {
            (ethertype, _) if ethertype == F::ETHERTYPE => self.walk(hook),
            (ethertype, Hook::FromContainer(_)) if ethertype == <F::Other as Family>::ETHERTYPE => {
                self.unserved(hook)
            }
            (_, Hook::FromContainer(_)) if F::Addr::BITS == 32 => {
                Fate::of(link::from_container::<F, Self>(self))
            }
            _ => Fate::Stack,
        }
    }

    /// The other family's programs: the networks do not serve it.
    fn unserved(&mut self, hook: Hook) -> Fate {
        let (world, table) = (World::unserved::<F::Other>(), Table::new(0, 0));
        let mut other = Cpu::<F::Other, _>::new(&world, &table, 0, self.now.get());
        (other.frame, other.ifindex) = (std::mem::take(&mut self.frame), self.ifindex);
        let fate = other.walk(hook);
        self.frame = other.frame;
        fate
    }

    fn walk(&mut self, hook: Hook) -> Fate {
        let before = self.frame.clone();
        for times in 0..TAIL_CALLS.div_ceil(2) {
            let mut scratch = self.scratch;
            let mut verdict = match hook {
                Hook::FromContainer(_) => nat::from_container::<F, Self>(self, &mut scratch.known),
                Hook::FromWorld => nat::from_world::<F, Self>(self, &mut scratch.known),
                Hook::ToWorld => nat::to_world::<F, Self>(self),
                Hook::ToContainer(_) => {
                    firewall::to_container::<F, Self>(self, &mut scratch.known);
                    return Fate::Stack;
                }
            };
            if verdict == Verdict::ICMP_ERROR {
                return Fate::of(icmp_error::translate::<F, Self>(self, &mut scratch));
            }
            if verdict == Verdict::PRIVATE {
                return match Fate::of(fragment::leave::<F, Self>(self, &mut scratch.known)) {
                    Fate::Stack => Fate::Leaves,
                    fate => fate,
                };
            }
            if verdict == Verdict::OWN {
                verdict = own::leave::<F, Self>(self, &mut scratch.known);
            }
            if verdict == Verdict::FRAGMENT {
                verdict = fragment::carry::<F, Self>(self, &mut scratch.known);
            }
            if verdict == Verdict::CLOSING {
                verdict = closing::follow::<F, Self>(self, &mut scratch, hook == Hook::ToWorld);
            }
            if verdict == Verdict::NO_FLOW_YET {
                verdict = match hook {
                    Hook::FromContainer(_) => outbound::open::<F, Self>(self, &mut scratch),
                    Hook::FromWorld => inbound::open::<F, Self>(self, &mut scratch),
                    Hook::ToWorld | Hook::ToContainer(_) => own::open::<F, Self>(self, &mut scratch),
                };
            }
            while verdict == Verdict::CLAIM {
                verdict = opening::open::<F, Self>(self, &mut scratch);
            }
            if verdict == Verdict::OVERTAKEN || verdict == Verdict::OVERTAKEN_TO_HOST {
                let to_host = verdict == Verdict::OVERTAKEN_TO_HOST;
                verdict = fragment::wait::<F, Self>(self, &mut scratch.known, to_host);
            }
            if hook != Hook::ToWorld && verdict.is_told() {
                return self.refuse(verdict);
            }
            self.scratch = scratch;
            if verdict != Verdict::FLOW_OPENED {
                return match Fate::of(verdict) {
                    Fate::Stack if hook == Hook::ToWorld && self.frame != before => Fate::Leaves,
                    fate => fate,
                };
            }
            self.shared.start_over(times);
        }
        Fate::Dropped(DropReason::ClaimContended)
    }

    /// Tells who sent a packet about its drop.
    fn refuse(&mut self, verdict: Verdict) -> Fate {
        let Fate::Dropped(reason) = Fate::of(verdict) else { panic!("told of {verdict:?}") };
        let (_, refused) = verdict.parts();
        match refusal::tell::<F, Self>(self, refused).action() {
            Action::ToEndpoint(back) | Action::ToLink(back) if back == self.ifindex => Fate::Answered(reason),
            // It has no answer.
            Action::Refused => Fate::Dropped(reason),
            other => panic!("a refused packet goes on: {other:?}"),
        }
    }
}

impl<F: Plan, S> Cpu<'_, F, S> {
    fn traces(&self) -> std::sync::MutexGuard<'_, crate::Traces<F::Addr>> {
        self.world.traces.lock().expect("nobody panicked with it")
    }
}

impl<F: Plan, S> Packet for Cpu<'_, F, S> {
    fn l3(&self) -> usize {
        ethernet::LEN
    }

    fn ethertype(&self) -> u16 {
        if self.vlan { 0 } else { frame::ethertype(&self.frame) }
    }

    fn len(&self) -> usize {
        self.frame.len()
    }

    fn addressed_to_us(&self) -> bool {
        self.frame.starts_with(&mac(self.ifindex))
    }

    fn load<T: Pod>(&self, at: usize) -> Option<T> {
        frame::load(&self.frame, at)
    }

    fn store<T: Pod>(&mut self, at: usize, value: &T) -> Option<()> {
        frame::store(&mut self.frame, at, value)
    }

    fn segment_size(&self) -> u32 {
        self.segment_size
    }

    fn resize(&mut self, len: usize) -> Option<()> {
        self.frame.resize(len, 0);
        Some(())
    }

    fn replace_head(&mut self, old: usize, new: usize) -> Option<()> {
        frame::replace_head(&mut self.frame, old, new)
    }

    fn set_next_hop(&mut self, via: [u32; 4], _via_v6: bool) {
        self.next_hop = via;
    }

    fn fix_l4_checksum(&mut self, at: usize, fix: &L4Fix) -> Option<()> {
        checksum::fix_l4_checksum(&mut self.frame, at, fix)
    }
}

impl<F: Plan, S: Shared<F::Addr>> Host<F::Addr> for Cpu<'_, F, S> {
    type Flows = S;
    type Slot = S::Slot;
    type Place = waiting::Place<F::Addr>;

    fn flows(&self) -> &S {
        &self.shared
    }

    fn endpoint(&self, addr: &F::Addr) -> Option<&Endpoint<F::Addr>> {
        self.world.endpoints.get(addr)
    }

    fn sender(&self, ifindex: u32) -> Option<&Endpoint<F::Addr>> {
        self.world.senders.get(&ifindex)
    }

    fn allowed(&self, sender: u32, addr: &F::Addr) -> bool {
        let covers = |(veth, prefix, bits): &(u32, F::Addr, u32)| {
            *veth == sender && crate::same_prefix(prefix, addr, *bits)
        };
        self.world.allowed.iter().any(covers)
    }

    fn network(&self, bridge: u32) -> Option<&Network<F::Addr>> {
        self.world.networks.get(&bridge)
    }

    fn published(&self, key: &PublishedKey<F::Addr>) -> Option<&Published<F::Addr>> {
        let found = self.world.published.iter().find(|(first, last, _)| {
            first.addr == key.addr
                && first.proto == key.proto
                && (first.port.get()..=*last).contains(&key.port.get())
        });
        found.map(|(_, _, published)| published)
    }

    fn is_source(&self, list: SourceList, addr: &F::Addr) -> bool {
        let mut sources = self.world.sources.iter().filter(|(number, ..)| *number == list);
        sources.any(|(_, prefix, bits)| crate::same_prefix(prefix, addr, *bits))
    }

    fn moved_at(&self) -> u32 {
        self.world.moved_at
    }

    fn uplink(&self, ifindex: u32) -> Option<&Uplink<F::Addr>> {
        self.world.uplinks.get(&ifindex)
    }

    fn reserved(&self, proto: u8, port: u16) -> bool {
        self.world.reserved.contains(&(proto, port))
    }

    fn private_prefix(&self, digest: u16) -> bool {
        let allowed = self.world.allowed.iter().map(|(_, addr, _)| addr);
        self.world.endpoints.keys().chain(allowed).any(|addr| <F as Family>::prefix_digest(addr) == digest)
    }

    fn config(&self) -> Option<&Config> {
        Some(&self.world.config)
    }

    fn timeouts(&self, number: u16) -> Option<&TimeoutSet> {
        self.world.timeouts.get(usize::from(number))
    }

    fn has_policies(&self) -> bool {
        self.world.has_policies
    }

    fn is_tracked_liberally(&self) -> bool {
        self.world.is_tracked_liberally
    }

    fn now(&self) -> u32 {
        self.now.get()
    }

    fn random(&self) -> u32 {
        // SplitMix64's state is a counter.
        let state = self.seed.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.seed.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed >> 32) as u32
    }

    fn nanoseconds(&self) -> u64 {
        u64::from(self.now.get()) << 30
    }

    fn count(&self, event: Event, n: u64) {
        *self.counts.borrow_mut().entry(event).or_default() += n;
    }

    fn route(&self, tuple: &Tuple<F::Addr>, _iif: u32) -> Route<F::Addr> {
        match self.world.routes.get(&tuple.dst) {
            Some(route) => *route,
            None => crate::out::<F>(ifindex::UPLINK),
        }
    }

    fn link_mtu(&self, ifindex: u32) -> u16 {
        self.world.mtus.get(&ifindex).copied().unwrap_or(crate::MTU)
    }

    fn probing(&self, hop: &NextHop) -> Option<Probing> {
        self.traces().probing.get(hop).copied()
    }

    fn set_probing(&self, hop: &NextHop, probing: Probing) {
        self.traces().probing.insert(*hop, probing);
    }

    fn fragment(&self, key: &FragmentKey<F::Addr>) -> Option<FragmentWay<F::Addr>> {
        self.traces().fragments.iter().rfind(|(known, _)| known == key).map(|(_, way)| *way)
    }

    fn set_fragment(&self, key: &FragmentKey<F::Addr>, way: &FragmentWay<F::Addr>) {
        self.traces().fragments.push((*key, *way));
    }

    fn place(&self, number: u32) -> Option<Self::Place> {
        self.world.waiting.place(number)
    }

    fn advance_waiting(&self, set: u32, n: u32) -> u32 {
        self.world.waiting.advance(set, n)
    }

    fn keep(&self, place: &Self::Place) -> u32 {
        place.keep(&self.frame)
    }

    fn become_kept(&mut self, place: &Self::Place, len: u32) -> bool {
        self.frame = place.kept();
        self.frame.len() == len as usize
    }

    fn come_again(&self, ifindex: u32) -> bool {
        self.again.borrow_mut().push((ifindex, self.frame.clone()));
        true
    }

    fn lose(&self, reason: DropReason) {
        self.lost.borrow_mut().push(reason);
    }

    fn take_turn(&self, ifindex: u32, take: impl Fn(u64) -> Option<u64>) -> bool {
        let mut traces = self.traces();
        let due = traces.turns.entry(ifindex).or_default();
        take(*due).map(|next| *due = next).is_some()
    }

    fn host_socket(&self, sent: &Tuple<F::Addr>) -> bool {
        self.world.sockets.contains(&(sent.proto, sent.sport.get()))
    }

    fn note_mapped(&self, _port: u16) {}

    fn may_be_mapped(&self, _port: u16) -> bool {
        true
    }

    fn is_own(&self) -> bool {
        self.own
    }

    fn exhausted(&self, remote: &Tuple<F::Addr>, range: u32) -> bool {
        self.shared.exhausted(remote, (range, self.now.get()))
    }

    fn set_exhausted(&self, remote: &Tuple<F::Addr>, range: u32) {
        self.shared.set_exhausted(remote, Some((range, self.now.get())));
    }

    fn clear_exhausted(&self, remote: &Tuple<F::Addr>) {
        self.shared.set_exhausted(remote, None);
    }

    fn held(&self, holder: u32) -> Held {
        let traces = self.traces();
        let count = |holder: &u32| traces.held.get(holder).copied().unwrap_or(0).max(0) as u32;
        let own = count(&holder);
        Held { own, both: own, all: traces.held.keys().map(count).sum() }
    }

    fn add_held(&self, holder: u32, change: i32) {
        *self.traces().held.entry(holder).or_default() += change;
    }

    fn endpoints(&self) -> u32 {
        self.world.senders.len() as u32
    }

    fn advance_hand(&self, n: u32) -> u32 {
        self.shared.advance_hand(n)
    }

    fn slot(&self, number: u32) -> Option<S::Slot> {
        self.shared.slot(number)
    }

    fn repeat_on<T: StepOn<Self>>(&mut self, n: u32, step: &mut T) {
        (0..n).for_each(|i| step.step_on(self, i));
    }

    fn repeat<T: Step>(&self, n: u32, step: &mut T) {
        for i in 0..n {
            if !step.step(i) {
                break;
            }
        }
    }

    fn ifindex(&self) -> u32 {
        self.ifindex
    }
}
