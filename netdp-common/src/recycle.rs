//! Giving the port of a closed connection to the next one towards the same remote (G5).
//!
//! The responder's entry of a closed connection is the tombstone of the remote's TIME_WAIT: it stays, alone in the
//! end, until it expires. A SYN that the remote takes all the same ([`Tombstone::takes`]) gets the entry without its
//! key ever being free: removing and inserting would forget the TIME_WAIT if somebody else inserts in between.
//!
//! The gate is that of [`crate::reclaim`]: the initiator's entry is marked as dying by compare-and-swap, then the
//! responder's. From then on nobody else writes there, so what it says is judged once more; then the old initiator's
//! entry goes, and the new responder's replaces the old one in one step.

use crate::family::Address;
use crate::flow::{FLOW_INITIATOR, FLOW_NO_TIMESTAMP, FLOW_TO_ENDPOINT, Kind};
use crate::header::tcp;
use crate::meta::Meta;
use crate::reclaim::{self, H_Entry, is_own};
use crate::tables::{Entry, Flows, Host, Request, Work};
use crate::tcp::{Takes, Tombstone, after};
use crate::verdict::Event;

/// Tries for which a port counts only if its connection was not closed in this very tick (half a second, on the
/// average): the last acknowledgement may have been lost, and the remote retransmits its FIN.
/// (The model checker has two tries in all.)
const RESTED_TRIES: u32 = if cfg!(loom) { 1 } else { 2 };
/// Milliseconds for which a port rests after the initiator's last segment, unless every port was tried. On another CPU,
/// or on another way, the SYN would overtake that segment, or reach the remote in the very moment in which the segment
/// ends the old connection there, and be dropped.
const REST: u32 = 16;
/// Tries after which a SYN may lose its timestamp. On kernels whose timestamps have an offset per pair of addresses
/// (before 165573e41f2f), the endpoint with the lowest clock finds no other port.
const STRIP_AFTER: u32 = 8;

/// What [`take_over`] did.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Taken {
    /// Nothing: it is no tombstone, or the remote would refuse this SYN.
    Not,
    /// Nothing, as somebody else is at it.
    Contended,
    /// The entry is [`Work::reverse`] now.
    Ours,
}

impl<A: Address> Request<A> {
    /// Whether it may have the port of a closed connection.
    #[inline(always)]
    pub(crate) fn recycles(&self) -> bool {
        self.first.proto == tcp::PROTO && may_take_over(self.kind)
    }
}

/// Whether a flow of this kind may have the port of a closed connection. Through a published port, the remote keeps its
/// own; and a socket of the host, whose flow leads to no endpoint, has all the other ports.
#[inline(always)]
pub(crate) const fn may_take_over(kind: u8) -> bool {
    kind != Kind::Dnat as u8 && kind != Kind::Own as u8
}

/// Whether an entry is worth [`take_over`] in try `i`; `again`: it is that of the same tuple's last connection.
#[inline(always)]
pub(crate) const fn is_candidate(meta: Meta, i: u32, again: bool, now: u32) -> bool {
    meta.bits() & Meta::CLOSED != 0 && (i >= RESTED_TRIES || again || meta.idle(now) > 0)
}

/// Gives the port of the closed connection whose responder's entry was found by [`Work::answer`] to the flow that is
/// being made, if the remote takes its SYN. `i`: which try this is.
#[inline(never)]
pub(crate) fn take_over<A: Address, H: Host<A>>(
    host: &H,
    work: &mut Work<A>,
    entry: &H_Entry<A, H>,
    i: u32,
) -> Taken {
    let strip = i >= STRIP_AFTER;
    let meta = entry.meta();
    if meta.bits() & (Meta::CLOSED | Meta::HELD | Meta::DYING) != Meta::CLOSED {
        return Taken::Contended;
    }
    if judge(work, entry, strip) == Takes::Not || (i < work.search.tries() && rests(host, work, entry)) {
        return Taken::Not;
    }
    let old = host.flows().get(&work.old);
    let old_meta = match &old {
        Some(old) => old.meta(),
        None => Meta::default(),
    };
    let paired = old.is_some() && old_meta.generation() == meta.generation();
    if let Some(old) = &old
        && paired
        && !mark(old, old_meta)
    {
        return Taken::Contended;
    }
    if !mark(entry, meta) {
        if let Some(old) = &old
            && paired
        {
            unmark(old, old_meta);
        }
        return Taken::Contended;
    }
    let takes = judge_again(work, entry, strip);
    if takes == Takes::Not {
        unmark(entry, meta);
        if let Some(old) = &old
            && paired
        {
            unmark(old, old_meta);
        }
        return Taken::Contended;
    }
    entry.read_with(|flow| work.tombstone = *flow);
    work.tombstone.meta = meta.0;
    if paired {
        host.flows().remove(&work.old);
    }
    work.forward.flags &= !FLOW_NO_TIMESTAMP;
    if takes == Takes::WithoutTimestamp {
        work.forward.flags |= FLOW_NO_TIMESTAMP;
    }
    if host.flows().replace(&work.answer, &work.reverse).is_err() {
        unmark(entry, meta);
        return Taken::Contended;
    }
    work.recycled = true;
    Taken::Ours
}

/// Whether the initiator's last segment may not have arrived yet. Of those for which this is so, the one that has
/// rested longest is the last resort.
#[inline(always)]
fn rests<A: Address, H: Host<A>>(host: &H, work: &mut Work<A>, entry: &H_Entry<A, H>) -> bool {
    let ended_at = entry.read_with(|flow| flow.ended_at);
    if ended_at == 0 || milliseconds(host).wrapping_sub(ended_at) >= REST {
        return false;
    }
    if work.last_resort.raw() == 0 || after(work.last_resort_ended_at, ended_at) {
        (work.last_resort, work.last_resort_ended_at) = (work.answer.dport, ended_at);
    }
    true
}

/// Since boot, but for a 0, which means never.
#[inline(always)]
pub(crate) fn milliseconds<A: Address, H: Host<A>>(host: &H) -> u32 {
    ((host.nanoseconds() / 1_000_000) as u32).max(1)
}

/// Whether the remote takes the SYN; and in [`Work::old`], the key of the old flow's initiator.
#[inline(always)]
fn judge<A: Address, E: Entry<A>>(work: &mut Work<A>, entry: &E, strip: bool) -> Takes {
    let Work { answer, old, segment, .. } = work;
    entry.read_with(|flow| {
        *old = reclaim::other_key(flow, tcp::PROTO);
        if is_own(flow, answer) && flow.flags & (FLOW_INITIATOR | FLOW_TO_ENDPOINT) == FLOW_TO_ENDPOINT {
            Tombstone::of(flow).takes(segment, strip)
        } else {
            Takes::Not
        }
    })
}

/// Nobody else writes to the entry now; a late packet may have, since it was judged.
#[cfg(not(feature = "mutant-judge-once"))]
#[inline(always)]
fn judge_again<A: Address, E: Entry<A>>(work: &mut Work<A>, entry: &E, strip: bool) -> Takes {
    judge(work, entry, strip)
}

/// The mutant: what has been judged once is true for ever.
#[cfg(feature = "mutant-judge-once")]
#[inline(always)]
fn judge_again<A: Address, E: Entry<A>>(_work: &mut Work<A>, _entry: &E, _strip: bool) -> Takes {
    Takes::AsItIs
}

/// The flow whose port was taken over is no more: it counts for its holder no longer.
#[inline(always)]
pub(crate) fn count<A: Address, H: Host<A>>(host: &H, work: &Work<A>) {
    host.count(Event::FlowsRemoved, 1);
    host.count(Event::FlowsRecycled, 1);
    host.add_held(work.tombstone.holder(), -1);
}

/// The initiator's entry could not be entered: the tombstone is what it was before [`take_over`], but for the
/// initiator's entry. False: the new responder's entry is still there, and a flow of its own until it expires, or
/// somebody has removed it as such.
#[inline(always)]
pub(crate) fn give_back<A: Address, H: Host<A>>(host: &H, work: &mut Work<A>) -> bool {
    let Some(entry) = host.flows().get(&work.answer) else { return false };
    for _ in 0..GIVE_BACK_TRIES {
        let meta = entry.meta();
        if meta.generation() != Meta(work.reverse.meta).generation() {
            return false;
        }
        if mark(&entry, meta) {
            if host.flows().replace(&work.answer, &work.tombstone).is_err() {
                // A busy bucket. It expires as a connection that was never opened does.
                unmark(&entry, meta);
                return false;
            }
            // The clock hand may have been by when the entry was another flow's.
            work.for_ring = Meta(work.tombstone.meta);
            return true;
        }
    }
    false
}

/// The remote's packets that may touch a new entry meanwhile.
const GIVE_BACK_TRIES: u32 = 4;

/// A SYN on the tuple of a connection that is closed: its initiator's entry makes way, and its port will be the first
/// to be tried.
#[inline(always)]
pub(crate) fn begin_anew<A: Address, H: Host<A>>(host: &H, work: &mut Work<A>) {
    work.again = false;
    if !work.request.recycles() {
        return;
    }
    let Some(entry) = host.flows().get(&work.request.first) else { return };
    let meta = entry.meta();
    if meta.bits() & Meta::CLOSED == 0 || !mark(&entry, meta) {
        return;
    }
    let Request { first, translated, .. } = &mut work.request;
    let own = entry.read_with(|flow| {
        translated.sport = flow.sport;
        is_own(flow, first) && flow.flags & FLOW_INITIATOR != 0
    });
    if !own {
        unmark(&entry, meta);
        return;
    }
    host.flows().remove(first);
    work.again = true;
}

/// Marks an entry as dying if it is still what it was, and nobody holds it.
#[inline(always)]
fn mark<A: Address, E: Entry<A>>(entry: &E, meta: Meta) -> bool {
    !meta.is_held() && !meta.is_dying() && entry.swap_meta(meta, dying(meta))
}

/// Takes [`mark`] back.
#[inline(always)]
fn unmark<A: Address, E: Entry<A>>(entry: &E, meta: Meta) {
    // Whoever marks an entry is the only one to change it.
    entry.swap_meta(dying(meta), meta);
}

#[inline(always)]
const fn dying(meta: Meta) -> Meta {
    meta.with_bits(meta.bits() | Meta::DYING)
}
