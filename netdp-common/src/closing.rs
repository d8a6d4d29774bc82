//! Following a TCP connection that ends, or begins once more.
//!
//! From the first FIN or RST on every packet of a flow comes by here, in both directions ([`Meta::CLOSING`]): it must
//! find both entries of its flow, so that nothing is ever sent on a port that another flow has taken over. What is
//! learnt is kept in the responder's entry, which is the tombstone of the connection when the rest of it is gone; who
//! writes there holds it. Before [`Meta::CLOSED`] is set in the responder's entry it is set in the initiator's: a
//! closed flow whose packets don't know it does not exist.

use crate::family::{Address, Family};
use crate::flow::{
    FLOW_INITIATOR, FLOW_INITIATOR_ACKED, FLOW_NO_TIME_WAIT, FLOW_NO_TIMESTAMP, FLOW_RESPONDER_ACKED, Flow,
    OF_HOST,
};
use crate::fragment;
use crate::header::tcp;
use crate::meta::Meta;
use crate::nat::{self, Context, Known};
use crate::parse::{Parsed, parse_again};
use crate::reclaim::{self, H_Entry};
use crate::recycle;
use crate::tables::{Entry, Flows, Scratch, Work};
use crate::tcp::{Connection, End, Segment, Sender};
use crate::timestamp;
use crate::verdict::{DropReason, Verdict};

/// Whether a packet with these new bits belongs here: it ends something, belongs to a flow that ends, or tries to open
/// (`opens`) what has been opened, or is to lose its timestamp.
#[inline(always)]
pub(crate) const fn concerns<A>(bits: u8, flow: &Flow<A>, opens: bool) -> bool {
    let old = Meta(flow.meta).bits();
    (bits | old) & (Meta::CLOSING | Meta::FIN | Meta::RST) != 0
        || (opens && (old & Meta::ACTIVE != 0 || flow.flags & FLOW_NO_TIMESTAMP != 0))
}

/// Keeps what an endpoint, or a socket of the host, has acknowledged, see [`Flow::next`].
#[inline(always)]
pub(crate) fn note_acknowledgement<A: Address, E: Entry<A>>(entry: &E, meta: Meta, parsed: &Parsed<A>) {
    if parsed.tcp_flags & tcp::ACK != 0 && meta.bits() & Meta::CLOSING == 0 {
        entry.set_next(u32::from_be(parsed.acknowledgement));
    }
}

/// Goes on with a packet that [`nat::from_container`] or [`nat::from_world`] has found a flow for, or (`from_host`)
/// [`crate::own::leave`], after [`Verdict::CLOSING`].
#[inline(always)]
pub fn follow<F: Family, C: Context<F>>(
    c: &mut C,
    scratch: &mut Scratch<F::Addr>,
    from_host: bool,
) -> Verdict {
    let Scratch { known, work: Work { segment, .. }, .. } = scratch;
    let Known { parsed, flow } = known;
    if !parse_again::<F, C>(c, parsed) || !timestamp::read::<F, C>(c, parsed, segment) {
        return Verdict::drop(DropReason::Malformed);
    }
    // A socket's packet is let through if there is no flow, rather than given one: that is asked first.
    let gone = if from_host { Verdict::FLOW_OPENED } else { Verdict::NO_FLOW_YET };
    let Some(entry) = c.flows().get(&parsed.tuple) else { return gone };
    if !reclaim::read_alive(&entry, &parsed.tuple, flow) {
        return gone;
    }
    let iif = if from_host {
        OF_HOST
    } else if c.sender(c.ifindex()).is_some() {
        c.ifindex()
    } else {
        nat::FROM_OUTSIDE
    };
    if flow.iif != iif {
        return Verdict::drop(DropReason::Spoofed);
    }
    let opens = nat::is_syn(parsed) && flow.flags & FLOW_INITIATOR != 0;
    if opens && begins_anew(flow) {
        return gone;
    }
    if (Meta(flow.meta).seen() != c.now() || nat::takes_stack(c, flow))
        && let Err(reason) = nat::look_again::<F, C>(c, &entry, flow, parsed)
    {
        return Verdict::drop(reason);
    }
    match note::<F, C>(c, &entry, known, segment, iif != nat::FROM_OUTSIDE) {
        Found::Ours => {}
        Found::Busy => return Verdict::FLOW_OPENED,
        Found::Gone => return gone,
    }
    let Known { parsed, flow } = known;
    if fragment::leads::<F, C>(c, parsed, flow, iif) {
        return Verdict::WAIT;
    }
    if opens && flow.flags & FLOW_NO_TIMESTAMP != 0 && timestamp::strip::<F, C>(c, parsed, segment).is_none()
    {
        return Verdict::drop(DropReason::RewriteFailed);
    }
    // (Asked once more, rather than kept: the verifier looks at all in between for each answer.)
    let by_stack = nat::takes_stack(c, flow);
    nat::send::<F, C>(c, parsed, flow, by_stack)
}

/// Whether a SYN of the initiator begins a connection that asks for a port again: the closed one's is given only to
/// what the remote takes. Who keeps its port knows by itself what it may do.
#[inline(always)]
const fn begins_anew<A>(flow: &Flow<A>) -> bool {
    Meta(flow.meta).bits() & Meta::CLOSED != 0 && recycle::may_take_over(flow.kind)
}

/// Takes note of a segment in both entries of its flow.
#[inline(never)]
fn note<F: Family, C: Context<F>>(
    c: &C,
    entry: &H_Entry<F::Addr, C>,
    known: &Known<F::Addr>,
    segment: &Segment,
    endpoint: bool,
) -> Found {
    let Known { parsed, flow } = known;
    let initiator = flow.flags & FLOW_INITIATOR != 0;
    let other_key = reclaim::other_key(flow, tcp::PROTO);
    let Some(other) = c.flows().get(&other_key) else { return Found::Gone };
    let generation = Meta(flow.meta).generation();
    let (first, answer) = if initiator { (entry, &other) } else { (&other, entry) };
    let held = hold(answer, generation);
    if held != Found::Ours {
        return if cfg!(feature = "mutant-no-owner") { Found::Ours } else { held };
    }
    let first_meta = first.meta();
    if first_meta.generation() != generation || first_meta.is_dying() {
        answer.release();
        // Whoever removes it may find that it must not.
        return if first_meta.generation() == generation { Found::Busy } else { Found::Gone };
    }
    let before = read(first, first_meta, answer);
    let mut after = before;
    if initiator && segment.opens() && (before.is_closed() || before.initiator & Meta::ACK == 0) {
        after.open(segment);
    } else {
        after.show(Sender { initiator, endpoint }, segment);
    }
    if initiator && after.is_closed() {
        after.ended_at = recycle::milliseconds(c);
    }
    let now = c.now();
    let change = Change { generation, cleared: before.initiator & !after.initiator, set: after.initiator };
    let changed = change.apply(first, if initiator { Some(now) } else { None });
    if changed != Found::Ours {
        answer.release();
        return changed;
    }
    first.set_next(after.responder_next);
    answer.set_next(after.initiator_next);
    answer.set_end(&End { flags: after.flags, timestamp: after.timestamp, ended_at: after.ended_at });
    let cleared = Meta::HELD | before.responder & !after.responder;
    let change = Change { generation, cleared, set: after.responder & !Meta::HELD };
    if change.apply(answer, if initiator { None } else { Some(now) }) != Found::Ours {
        answer.release();
    }
    if after.is_closed() && !before.is_closed() {
        // It may serve somebody else now.
        reclaim::port_freed(c, if initiator { &other_key } else { &parsed.tuple });
    }
    Found::Ours
}

#[inline(always)]
fn read<A: Address, E: Entry<A>>(first: &E, first_meta: Meta, answer: &E) -> Connection {
    let mut connection = Connection::of(first_meta, answer.meta());
    connection.responder_next = first.read_with(|flow| flow.next);
    answer.read_with(|flow| {
        connection.flags = flow.flags;
        connection.initiator_next = flow.next;
        connection.timestamp = flow.timestamp();
        connection.ended_at = flow.ended_at;
    });
    connection
}

impl Connection {
    /// A SYN of the initiator that opens it once more, or for the first time with another sequence number.
    #[inline(always)]
    pub fn open(&mut self, syn: &Segment) {
        if self.is_closed() {
            let flags = self.flags & !(FLOW_NO_TIME_WAIT | FLOW_INITIATOR_ACKED | FLOW_RESPONDER_ACKED);
            *self = Self { initiator: Meta::ACTIVE, flags, ..Self::default() };
        }
        self.initiator_next = syn.end;
    }
}

/// What becomes of an entry's bits.
struct Change {
    generation: u32,
    cleared: u8,
    set: u8,
}

impl Change {
    #[inline(always)]
    fn apply<A: Address, E: Entry<A>>(&self, entry: &E, seen: Option<u32>) -> Found {
        for _ in 0..CHANGE_TRIES {
            let meta = entry.meta();
            if meta.generation() != self.generation || meta.is_dying() {
                return Found::Gone;
            }
            let new = meta.with_bits(meta.bits() & !self.cleared | self.set);
            let new = match seen {
                Some(now) => new.with_seen(now),
                None => new,
            };
            if new == meta || entry.swap_meta(meta, new) {
                return Found::Ours;
            }
        }
        Found::Busy
    }
}

/// Packets of one flow on other CPUs that may change an entry meanwhile, once a tick each.
const CHANGE_TRIES: u32 = 8;

/// What became of an entry that a packet is about.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Found {
    /// It is what it was expected to be.
    Ours,
    /// Others keep changing it: start over.
    Busy,
    /// It is another flow's by now, or is being removed.
    Gone,
}

/// Holds an entry, after whoever else does.
#[inline(always)]
fn hold<A: Address, E: Entry<A>>(entry: &E, generation: u32) -> Found {
    for _ in 0..HOLD_TRIES {
        let meta = entry.meta();
        if meta.generation() != generation || meta.is_dying() {
            return Found::Gone;
        }
        if !meta.is_held() && entry.swap_meta(meta, meta.with_bits(meta.bits() | Meta::HELD)) {
            return Found::Ours;
        }
    }
    Found::Busy
}

/// An entry is held for a few dozen instructions: loads until that must be over, before the packet starts over. (The
/// verifier looks at all that follows once for each.)
const HOLD_TRIES: u32 = if cfg!(loom) { 3 } else { 32 };
