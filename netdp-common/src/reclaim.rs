//! Ending a flow while packets may be using it, and finding those that have ended.
//!
//! There is one gate. A remover marks the initiator's entry as dying by compare-and-swap from exactly the state
//! in which it judged the flow, then the responder's; if a packet has refreshed either meanwhile, it takes the
//! mark back and leaves the flow alone. A packet that finds an entry idle refreshes it by compare-and-swap too,
//! so either the packet or the remover wins, never both. Then the initiator's entry is deleted before the
//! responder's: a flow that can be found forward can always be found backward.

use bytemuck::Zeroable as _;

use crate::family::{Address, Be16};
use crate::flow::{FLOW_INITIATOR, Flow, Pressure, Timeouts, Tuple};
use crate::lifetime;
use crate::meta::Meta;
use crate::quota;
use crate::tables::{Entry, Flows, Host, RingSlot, Step};
use crate::verdict::Event;

/// Slots that each new flow inspects: enough that the hand frees flows as fast as they are made.
const HAND: u32 = 4;

/// Slots that are inspected at most until a free one is found.
const FIND_FREE: u32 = 64;

/// The top bit of a slot's owner: taken.
const TAKEN: u64 = 1 << 63;

/// Owner of a slot whose key is being written.
const FILLING: u64 = 1;

/// Reads an element that a look-up of `key` found. False if it has been removed, or is being removed, or reused.
///
/// (Written in place, as by [`crate::parse::parse`].)
#[inline(always)]
pub fn read_alive<A: Address, E: Entry<A>>(entry: &E, key: &Tuple<A>, flow: &mut Flow<A>) -> bool {
    let meta = take_alive(entry, |found| {
        *flow = *found;
        // Compared at once: there are too many words to keep them.
        is_own(flow, key)
    });
    flow.meta = meta.0;
    meta != Meta::GONE
}

/// Takes something out of an element; its meta word then, or [`Meta::GONE`] if it has been removed, or is being removed
/// or reused, or if `take` says that it is another's.
#[inline(always)]
fn take_alive<A: Address, E: Entry<A>>(entry: &E, take: impl FnOnce(&Flow<A>) -> bool) -> Meta {
    // Both ends before and after the rest: see Flow::tag.
    let tag = entry.tag();
    let meta = entry.meta();
    if !entry.read_with(take) {
        return Meta::GONE;
    }
    let same = entry.meta().generation() == meta.generation() && entry.tag() == tag && tag == meta.tag();
    if same && !meta.is_dying() { meta } else { Meta::GONE }
}

#[inline(always)]
pub(crate) fn is_own<A: Address>(flow: &Flow<A>, key: &Tuple<A>) -> bool {
    flow.own_sport == key.sport
        && flow.own_dport == key.dport
        && flow.own_src == key.src
        && flow.own_dst == key.dst
}

/// The key of the other entry of a flow.
#[inline(always)]
pub fn other_key<A: Address>(flow: &Flow<A>, proto: u8) -> Tuple<A> {
    Tuple { src: flow.dst, dst: flow.src, sport: flow.dport, dport: flow.sport, proto, pad: [0; 3] }
}

/// Whether a responder's entry is that of the very flow whose first tuple this is.
#[inline(never)]
pub fn is_answer_to<A: Address, E: Entry<A>>(entry: &E, first: &Tuple<A>) -> bool {
    let flow = entry.read();
    flow.dst == first.src && flow.src == first.dst && flow.dport == first.sport && flow.sport == first.dport
}

/// Under which key it is remembered that every port towards a remote is taken.
#[inline(always)]
pub fn remote_of<A: Address>(answer: &Tuple<A>) -> Tuple<A> {
    Tuple { dport: Be16::new(0), ..*answer }
}

/// [`Tuple::pad`] of [`sweep_mark`].
pub const SWEEPING: [u8; 3] = [1, 0, 0];

/// [`Tuple::pad`] of the key under which it is remembered that the ports that are tried first are taken. It only says
/// in which order ports are tried, and so outlasts one that is freed.
pub const SPENT: [u8; 3] = [2, 0, 0];

/// Under which key it is remembered that somebody goes through all ports towards a remote.
#[inline(always)]
pub fn sweep_mark<A: Address>(answer: &Tuple<A>) -> Tuple<A> {
    Tuple { dport: Be16::new(0), pad: SWEEPING, ..*answer }
}

/// A responder's entry has been removed. The mark first, see `claim::remember_exhausted`.
#[inline(always)]
pub fn port_freed<A: Address, H: Host<A>>(host: &H, answer: &Tuple<A>) {
    // One tuple: the stack is short here.
    let mut remote = sweep_mark(answer);
    host.clear_exhausted(&remote);
    remote.pad = [0; 3];
    host.clear_exhausted(&remote);
}

/// Ticks until a flow expires whose two directions are in these states; 0: it has.
#[inline(always)]
pub fn remaining(proto: u8, initiator: Meta, responder: Meta, now: u32, timeouts: &Timeouts) -> u32 {
    let state = lifetime::state(proto, initiator.bits(), responder.bits());
    let timeout = lifetime::timeout(proto, state, timeouts);
    let (a, b) = (initiator.idle(now), responder.idle(now));
    timeout.saturating_sub(if a < b { a } else { b })
}

/// What [`remove_if_expired`] found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Judged {
    /// The flow has not expired.
    Alive,
    /// Somebody else removes or refreshes it at this moment.
    Contended,
    /// It had expired, and the key is free now.
    Gone,
}

/// Removes the flow that `entry`, found by `key`, belongs to, if it has expired by its network's timeouts.
#[inline(never)]
pub fn remove_if_expired<A: Address, H: Host<A>>(
    host: &H,
    entry: &H_Entry<A, H>,
    key: &Tuple<A>,
    now: u32,
    pressure: Pressure,
) -> Judged {
    let mut other_key = Tuple::zeroed();
    let (mut flags, mut holder) = (0, 0);
    let mut timeouts = None;
    let own = take_alive(entry, |flow| {
        other_key = self::other_key(flow, key.proto);
        flags = flow.flags;
        holder = flow.holder();
        timeouts = host.timeouts(flow.timeouts);
        is_own(flow, key)
    });
    if own == Meta::GONE {
        return Judged::Contended;
    }
    let Some(timeouts) = timeouts else { return Judged::Alive };
    let other = host.flows().get(&other_key);
    let other_meta = match other {
        Some(other) => other.meta(),
        None => own,
    };
    let is_initiator = flags & FLOW_INITIATOR != 0;
    let (initiator, responder) = if is_initiator { (own, other_meta) } else { (other_meta, own) };
    let paired = other.is_some() && own.generation() == other_meta.generation();
    let (initiator, responder) = if paired { (initiator, responder) } else { (own, own) };
    let left = remaining(key.proto, initiator, responder, now, timeouts.under(pressure));
    if other_meta.is_dying() {
        return Judged::Contended;
    }
    if left > 0 {
        return Judged::Alive;
    }
    let gone = if !paired {
        remove_single(host, entry, own, key)
    } else if let Some(other) = other {
        if is_initiator {
            remove_pair(host, (entry, own, key), (&other, other_meta, &other_key))
        } else {
            remove_pair(host, (&other, other_meta, &other_key), (entry, own, key))
        }
    } else {
        false
    };
    if !gone {
        return Judged::Contended;
    }
    host.count(Event::FlowsExpired, 1);
    host.add_held(holder, -1);
    Judged::Gone
}

/// An element of a host's flow table.
#[expect(type_alias_bounds, reason = "the bound says what the alias is of")]
#[expect(
    non_camel_case_types,
    reason = "reads as H::Entry, which Rust can't write for a nested associated type"
)]
pub type H_Entry<A, H: Host<A>> = <H::Flows as Flows<A>>::Entry;

/// The gate, see the module. Takes (entry, the meta it was judged by, key) of the initiator and the responder.
#[inline(always)]
pub fn remove_pair<A: Address, H: Host<A>>(
    host: &H,
    initiator: (&H_Entry<A, H>, Meta, &Tuple<A>),
    responder: (&H_Entry<A, H>, Meta, &Tuple<A>),
) -> bool {
    if initiator.1.is_held() || responder.1.is_held() {
        return false;
    }
    let dying = initiator.1.with_bits(initiator.1.bits() | Meta::DYING);
    if !initiator.0.swap_meta(initiator.1, dying) {
        return false;
    }
    let responder_dying = responder.1.with_bits(responder.1.bits() | Meta::DYING);
    if !responder.0.swap_meta(responder.1, responder_dying) {
        initiator.0.swap_meta(dying, initiator.1);
        return false;
    }
    host.flows().remove(initiator.2);
    host.flows().remove(responder.2);
    host.count(Event::FlowsRemoved, 1);
    port_freed(host, responder.2);
    true
}

/// Removes an entry whose other half is gone.
#[inline(always)]
fn remove_single<A: Address, H: Host<A>>(
    host: &H,
    entry: &H_Entry<A, H>,
    meta: Meta,
    key: &Tuple<A>,
) -> bool {
    if meta.is_held() || !entry.swap_meta(meta, meta.with_bits(meta.bits() | Meta::DYING)) {
        return false;
    }
    host.flows().remove(key);
    host.count(Event::FlowsRemoved, 1);
    port_freed(host, key);
    true
}

/// Removes one very flow (user space asks for it): the one of generation `generation` whose initiator's key this is.
/// A packet that refreshes it meanwhile does not save it.
#[inline(always)]
pub fn remove_exact<A: Address, H: Host<A>>(host: &H, key: &Tuple<A>, generation: u32) -> bool {
    let Some(entry) = host.flows().get(key) else { return false };
    for _ in 0..REMOVE_TRIES {
        let (mut answer, mut holder) = (Tuple::zeroed(), 0);
        let meta = take_alive(&entry, |flow| {
            answer = other_key(flow, key.proto);
            holder = flow.holder();
            is_own(flow, key)
        });
        if meta == Meta::GONE || meta.generation() != generation {
            return false;
        }
        if remove_judged(host, (&entry, meta, key), &answer) {
            host.add_held(holder, -1);
            return true;
        }
    }
    false
}

/// Packets that may refresh a flow, once a tick each, while it is being removed.
const REMOVE_TRIES: u32 = 4;

#[inline(always)]
fn remove_judged<A: Address, H: Host<A>>(
    host: &H,
    (entry, meta, key): (&H_Entry<A, H>, Meta, &Tuple<A>),
    answer: &Tuple<A>,
) -> bool {
    if let Some(other) = host.flows().get(answer) {
        // One load: the element may be another flow's by the next.
        let other_meta = other.meta();
        if other_meta.generation() == meta.generation() {
            return !other_meta.is_dying()
                && remove_pair(host, (entry, meta, key), (&other, other_meta, answer));
        }
    }
    remove_single(host, entry, meta, key)
}

/// Enters a new flow into the ring and lets the clock hand inspect a few slots on the way.
#[inline(never)]
pub fn enter<A: Address, H: Host<A>>(host: &H, answer: &Tuple<A>, meta: u64) {
    let mut hand = Hand {
        host,
        pressure: Pressure::NONE,
        base: host.advance_hand(HAND),
        now: host.now(),
        enter: TAKEN | u64::from(Meta(meta).generation()),
        key: answer,
        emergency: false,
        holder: 0,
        freed: 0,
    };
    host.repeat(FIND_FREE, &mut hand);
    if hand.enter != 0 {
        host.count(Event::RingFull, 1);
    }
}

/// The table is full, or `holder` (not 0) has all that it may have: inspects up to `slots` slots until one flow, of
/// that endpoint's, has been reclaimed. True: one was. `answer`: the key of the flow that wants room; it enters later.
#[inline(never)]
pub fn make_room<A: Address, H: Host<A>>(
    host: &H,
    answer: &Tuple<A>,
    now: u32,
    slots: u32,
    holder: u32,
) -> bool {
    let mut hand = Hand {
        host,
        pressure: Pressure::SPENT,
        // Who has all that it may have looks around the hand, which its new flow will move.
        base: host.advance_hand(if holder == 0 { slots } else { 0 }),
        now,
        enter: 0,
        key: answer,
        emergency: true,
        holder,
        freed: 0,
    };
    host.repeat(slots, &mut hand);
    hand.freed != 0
}

struct Hand<'a, A, H> {
    host: &'a H,
    pressure: Pressure,
    base: u32,
    now: u32,
    /// Who looks for a free slot; 0: nobody (any more).
    enter: u64,
    /// With which key.
    key: &'a Tuple<A>,
    /// Look at every flow, and stop at the first that could be reclaimed.
    emergency: bool,
    /// Only at flows of this endpoint, see [`Flow::holder`]; 0: at everybody's.
    holder: u32,
    /// 1 once a flow has been reclaimed.
    freed: u32,
}

impl<A: Address, H: Host<A>> Step for Hand<'_, A, H> {
    #[inline(always)]
    fn step(&mut self, i: u32) -> bool {
        let mut number = self.base.wrapping_add(i);
        if self.holder != 0 && i >= quota::AHEAD {
            number = number.wrapping_sub(quota::AHEAD + quota::BEHIND);
        }
        let Some(slot) = self.host.slot(number) else { return false };
        let owner = slot.owner();
        if owner != 0 && !self.inspect(&slot, owner) {
            return self.goes_on(i);
        }
        if self.enter != 0 && slot.swap_owner(0, FILLING) {
            slot.set_key(self.key);
            slot.set_due(self.now.wrapping_add(1));
            slot.swap_owner(FILLING, self.enter);
            self.enter = 0;
        }
        self.goes_on(i)
    }
}

impl<A: Address, H: Host<A>> Hand<'_, A, H> {
    /// A new flow inspects its share and then until it has a slot; an emergency until something was freed.
    #[inline(always)]
    fn goes_on(&self, i: u32) -> bool {
        if self.emergency { self.freed == 0 } else { self.enter != 0 || i + 1 < HAND }
    }

    /// Whether the slot is free now.
    #[inline(always)]
    fn inspect(&mut self, slot: &H::Slot, owner: u64) -> bool {
        let due = slot.due();
        if owner == FILLING || (!self.emergency && (due.wrapping_sub(self.now) as i32) > 0) {
            return false;
        }
        let key = slot.key();
        let generation = owner as u32 & 0xff_ffff;
        if let Some(entry) = self.host.flows().get(&key) {
            let meta = entry.meta();
            if meta.generation() == generation {
                if self.holder != 0 && entry.read_with(Flow::holder) != self.holder {
                    return false;
                }
                if remove_if_expired(self.host, &entry, &key, self.now, self.pressure) != Judged::Gone {
                    slot.set_due(self.now.wrapping_add(self.revisit(&entry, &key)));
                    return false;
                }
                self.freed = 1;
            }
        }
        slot.swap_owner(owner, 0)
    }

    /// Ticks after which it is worth looking at a flow again.
    #[inline(always)]
    fn revisit(&self, entry: &H_Entry<A, H>, key: &Tuple<A>) -> u32 {
        let meta = entry.meta();
        let Some(timeouts) = self.host.timeouts(entry.read_with(|flow| flow.timeouts)) else { return 1 };
        let left = remaining(key.proto, meta, meta, self.now, timeouts.under(self.pressure));
        if left == 0 { 1 } else { left.min(REVISIT_MAX) }
    }
}

/// A flow's state can change and shorten its life (a FIN): look at least this often, in ticks.
const REVISIT_MAX: u32 = 64;
