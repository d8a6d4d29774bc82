//! Making a flow: choosing its port *is* claiming it.
//!
//! A flow has two entries in one table. The responder's (its key is the tuple of the packets that will answer)
//! is inserted first, and only if nobody has it: that insert decides, under the table's bucket lock, who owns
//! the port towards this remote. Then the initiator's entry is inserted, again only if it is not there: if
//! another packet of the same flow was faster, its mapping is used and our claim is given back.
//!
//! So no two flows ever own one tuple, two first packets of one flow end in one mapping, and a flow that can be
//! found forward can always be found backward. The protocol is model-checked in `tests/protocol.rs`.

use crate::family::{Address, Be16};
use crate::flow::{FLOW_INITIATOR, FLOW_NO_TIMESTAMP, Flow, Kind, Pressure, Tuple};
use crate::header::tcp;
use crate::meta::Meta;
use crate::ports::RANDOM_TRIES;
use crate::quota;
use crate::random::siphash;
use crate::reclaim::{self, H_Entry, Judged};
use crate::recycle::{self, Taken};
use crate::tables::{Entry, Flows, Host, InsertError, Request, Step, Way, Work};
use crate::verdict::{DropReason, Event};

/// Slots that are inspected for something to reclaim when the table is full.
const EMERGENCY_SLOTS: u32 = 2048;

/// Claims a mapping for the flow of [`Work::request`], unless another packet of the flow is faster. Either way the
/// flow is in the table now, or will be when the packet starts over.
///
/// # Errors
/// [`DropReason::PortsExhausted`] when every port was seen taken, [`DropReason::TableFull`].
#[inline(always)]
pub fn claim<A: Address, H: Host<A>>(host: &H, work: &mut Work<A>) -> Result<(), DropReason> {
    let now = host.now();
    if !quota::is_granted(host, work, now) {
        return Err(DropReason::FlowLimit);
    }
    begin(host, work, now);
    let tries = tries(host, work);
    let mut probe = Probe { host, work, now, result: Claimed::Nothing };
    host.repeat(tries, &mut probe);
    let result = probe.result;
    // From here, not from [`settle`]: what looks for expired flows has the deepest stack of all, and Linux before 6.9
    // rounds each frame up to 32 bytes.
    if matches!(result, Claimed::Full) {
        // Somebody's expired flow made room: start over.
        let has_room = reclaim::make_room(host, &work.answer, now, EMERGENCY_SLOTS, 0);
        return if has_room { Ok(()) } else { Err(DropReason::TableFull) };
    }
    let settled = settle(host, work, result);
    if work.for_ring != Meta::GONE {
        reclaim::enter(host, &work.answer, work.for_ring.0);
    }
    match settled {
        Settled::Again => Ok(()),
        Settled::NoPort => Err(DropReason::PortsExhausted),
        Settled::NoRoom => Err(DropReason::TableFull),
    }
}

/// How a claim ended.
#[derive(Clone, Copy)]
enum Settled {
    /// The flow is in the table, or will be: the packet starts over.
    Again,
    /// Every port is taken.
    NoPort,
    /// The table is full.
    NoRoom,
}

/// Before the first port is tried. (Out of line, as [`settle`]: the stack of
/// neither is there while ports are tried.)
#[inline(never)]
fn begin<A: Address, H: Host<A>>(host: &H, work: &mut Work<A>, now: u32) {
    recycle::begin_anew(host, work);
    prepare(work);
    let random = unpredictable(host, work, 0);
    let meta = Meta::new(generation(random), 0, now);
    (work.forward.meta, work.forward.tag) = (meta.0, meta.tag());
    (work.reverse.meta, work.reverse.tag) = (meta.0, meta.tag());
    work.remote = reclaim::remote_of(&work.answer);
    work.last_resort = Be16::new(0);
    work.for_ring = Meta::GONE;
    let range = work.request.spans.id();
    let is_exhausted = !work.request.keep_port && !work.again && host.exhausted(&work.remote, range);
    work.remote.pad = reclaim::SPENT;
    let spent = work.request.spans.has_both() && host.exhausted(&work.remote, range);
    work.remote.pad = [0; 3];
    work.search.begin(&work.request.spans, random, spent);
    if is_exhausted {
        work.search.from = work.search.tries();
    }
}

/// How many ports are tried at most.
#[inline(never)]
fn tries<A: Address, H: Host<A>>(host: &H, work: &Work<A>) -> u32 {
    let Work { request, answer, search, .. } = work;
    if request.only_port {
        // A published port answers for its endpoint.
        let is_reserved = request.host_address && host.reserved(answer.proto, answer.dport.get());
        return if is_reserved { 0 } else { 1 };
    }
    let last_tries = if request.has_others { 0 } else { LAST_TRIES };
    search.tries() + last_tries - search.from
}

/// After the last one.
#[inline(never)]
fn settle<A: Address, H: Host<A>>(host: &H, work: &mut Work<A>, result: Claimed) -> Settled {
    match result {
        Claimed::Port => enter_initiator(host, work),
        Claimed::Full => Settled::NoRoom,
        // A port is being given back, or this very flow is being opened.
        Claimed::Soon => Settled::Again,
        Claimed::Nothing | Claimed::Unfit => {
            let is_exhausted = work.search.from == 0 && matches!(result, Claimed::Nothing);
            if is_exhausted && !work.request.only_port {
                remember_exhausted(host, &mut work.remote, work.request.spans.id());
            }
            if !work.request.has_others {
                host.count(Event::SnatExhausted, 1);
            }
            Settled::NoPort
        }
    }
}

/// Every port towards a remote was seen taken, but one that was seen early may be free by now: who frees a port
/// takes back first the mark that the sweep set, then this. So one of the two notices the other.
#[inline(always)]
fn remember_exhausted<A: Address, H: Host<A>>(host: &H, remote: &mut Tuple<A>, range: u32) {
    host.set_exhausted(remote, range);
    remote.pad = reclaim::SWEEPING;
    let undisturbed = host.exhausted(remote, range);
    remote.pad = [0; 3];
    if !undisturbed {
        host.clear_exhausted(remote);
    }
}

/// The port is ours: enter the initiator's side, or give way to who did so first.
#[inline(always)]
fn enter_initiator<A: Address, H: Host<A>>(host: &H, work: &mut Work<A>) -> Settled {
    let Err(error) = insert(host.flows(), &work.request.first, &work.forward) else {
        created(host, work);
        if work.request.kind == Kind::Snat as u8 {
            host.count(Event::SnatAllocated, 1);
        }
        if work.forward.flags & FLOW_NO_TIMESTAMP != 0 {
            host.count(Event::RecycledWithoutTs, 1);
        }
        let is_dnat = work.request.keep_port && work.request.kind != Kind::Own as u8;
        if is_dnat && work.forward.sport != work.request.translated.sport {
            host.count(Event::DnatPortChanged, 1);
        }
        return Settled::Again;
    };
    if work.recycled {
        if !recycle::give_back(host, work) {
            created(host, work);
        }
    } else {
        host.flows().remove(&work.answer);
    }
    reclaim::port_freed(host, &work.answer);
    match error {
        InsertError::Full => Settled::NoRoom,
        InsertError::Busy => {
            host.count(Event::BusyRetries, 1);
            Settled::Again
        }
        // Another packet of this flow was faster: its mapping is the flow's.
        InsertError::Taken => {
            host.count(Event::FlowsAdopted, 1);
            Settled::Again
        }
    }
}

/// There is one flow more, and with a port that was taken over one less.
#[inline(always)]
fn created<A: Address, H: Host<A>>(host: &H, work: &mut Work<A>) {
    host.count(Event::FlowsCreated, 1);
    host.add_held(work.request.holder(), 1);
    work.for_ring = Meta(work.reverse.meta);
    if work.recycled {
        recycle::count(host, work);
    }
}

/// Both entries but for their port and meta word.
#[inline(always)]
fn prepare<A: Address>(work: &mut Work<A>) {
    let Request { first, translated, kind, timeouts, .. } = work.request;
    work.answer = translated.reversed();
    (work.forward.timeouts, work.reverse.timeouts) = (timeouts, timeouts);
    fill(&mut work.forward, &first, &translated, &work.request.forward, kind);
    work.forward.flags |= FLOW_INITIATOR;
    fill(&mut work.reverse, &translated.reversed(), &first.reversed(), &work.request.reverse, kind);
    work.reverse.next = if first.proto == tcp::PROTO { work.segment.end } else { 0 };
    work.recycled = false;
}

/// Field by field: a whole value would be built on the stack first.
#[inline(always)]
fn fill<A: Address>(flow: &mut Flow<A>, own: &Tuple<A>, to: &Tuple<A>, way: &Way, kind: u8) {
    flow.src = to.src;
    flow.dst = to.dst;
    flow.sport = to.sport;
    flow.dport = to.dport;
    flow.oif = way.oif;
    flow.via = way.via;
    flow.mtu = way.mtu;
    flow.own_src = own.src;
    flow.own_dst = own.dst;
    flow.own_sport = own.sport;
    flow.own_dport = own.dport;
    flow.kind = kind;
    flow.flags = way.flags;
    flow.iif = way.iif;
    flow.next = 0;
    flow.ended_at = 0;
}

#[derive(Clone, Copy)]
enum Claimed {
    /// Every port is taken.
    Nothing,
    /// None is free, but a closed connection's would do for another SYN.
    Unfit,
    /// None is free, but one will be, or is this flow's own.
    Soon,
    /// A port is ours.
    Port,
    /// The table has no room.
    Full,
}

struct Probe<'a, A: Address, H: Host<A>> {
    host: &'a H,
    work: &'a mut Work<A>,
    now: u32,
    result: Claimed,
}

impl<A: Address, H: Host<A>> Step for Probe<'_, A, H> {
    #[inline(always)]
    fn step(&mut self, i: u32) -> bool {
        let host = self.host;
        let i = self.work.search.from + i;
        let keeps = self.work.request.keep_port && i == 0;
        let again = self.work.again && i == 0;
        if !keeps && !again && !self.choose(i) {
            return true;
        }
        // A look-up that hits costs half of an insert that fails.
        if (i > 0 || again) && self.is_taken(i) {
            return !matches!(self.result, Claimed::Port);
        }
        if self.work.request.host_address && host.host_socket(&self.work.answer.reversed()) {
            return true;
        }
        if self.work.request.host_address {
            // Before it is there, so that no packet of the host's own passes by it.
            host.note_mapped(self.work.answer.dport.get());
        }
        match insert(host.flows(), &self.work.answer, &self.work.reverse) {
            Ok(()) => {
                self.result = Claimed::Port;
                false
            }
            Err(InsertError::Taken) => {
                host.count(Event::SnatCollisions, 1);
                // The port to keep is worth waiting for; the others are looked at again.
                if keeps && !self.is_taken(0) {
                    self.result = Claimed::Soon;
                }
                !keeps || !matches!(self.result, Claimed::Soon)
            }
            Err(InsertError::Busy) => {
                host.count(Event::BusyRetries, 1);
                self.result = Claimed::Soon;
                true
            }
            Err(InsertError::Full) => {
                self.result = Claimed::Full;
                false
            }
        }
    }
}

impl<A: Address, H: Host<A>> Probe<'_, A, H> {
    /// Sets the port of try `i`; false if mappings must not take it.
    #[inline(always)]
    fn choose(&mut self, i: u32) -> bool {
        let last = i >= self.work.search.tries();
        let random = if i < RANDOM_TRIES || last { unpredictable(self.host, self.work, i + 1) } else { 0 };
        if i == RANDOM_TRIES {
            self.remember(reclaim::SWEEPING, true);
        }
        if i == self.work.search.second_from() {
            // Whichever group has just been seen taken comes last for the next flow.
            self.remember(reclaim::SPENT, !self.work.search.preferred_last);
        }
        let port = match self.work.last_resort.get() {
            resort if last && resort != 0 => resort,
            _ => self.work.search.port(i, random),
        };
        if last {
            self.work.last_resort = Be16::new(0);
        }
        if self.work.request.host_address && self.host.reserved(self.work.answer.proto, port) {
            return false;
        }
        let port = Be16::new(port);
        self.work.answer.dport = port;
        self.work.forward.sport = port;
        self.work.reverse.own_dport = port;
        true
    }

    /// Remembers something about the ports towards this remote, for this tick, or forgets it.
    #[inline(always)]
    fn remember(&mut self, what: [u8; 3], holds: bool) {
        let Work { remote, request, .. } = &mut *self.work;
        remote.pad = what;
        if holds {
            self.host.set_exhausted(remote, request.spans.id());
        } else {
            self.host.clear_exhausted(remote);
        }
        remote.pad = [0; 3];
    }

    /// Whether the chosen port is another flow's; if that has expired, by its timeouts on a host with room or on one
    /// under pressure, it is removed; if it has closed and this one may follow it, the port is ours.
    #[inline(always)]
    fn is_taken(&mut self, i: u32) -> bool {
        let Some(entry) = self.host.flows().get(&self.work.answer) else { return false };
        if self.work.request.recycles() && self.recycle(&entry, i) {
            self.result = Claimed::Port;
            return true;
        }
        let pressure = if i < PRESSED_AFTER {
            Pressure::NONE
        } else if i < self.work.search.tries() {
            Pressure::SHORT
        } else {
            let holder = entry.read_with(Flow::holder);
            if !quota::is_richer(self.host, holder, self.work.request.holder()) {
                return true;
            }
            Pressure::SPENT
        };
        let judged = reclaim::remove_if_expired(self.host, &entry, &self.work.answer, self.now, pressure);
        if judged == Judged::Gone {
            return false;
        }
        self.host.count(Event::SnatCollisions, 1);
        // A tombstone may be that of this very tuple, but not of this flow.
        let lives = entry.meta().bits() & Meta::CLOSED == 0 || !self.work.request.recycles();
        if judged == Judged::Contended || (lives && reclaim::is_answer_to(&entry, &self.work.request.first)) {
            self.result = Claimed::Soon;
        }
        true
    }
}

impl<A: Address, H: Host<A>> Probe<'_, A, H> {
    /// Whether the port of the connection with this responder's entry has become ours.
    #[inline(always)]
    fn recycle(&mut self, entry: &H_Entry<A, H>, i: u32) -> bool {
        let again = self.work.again && i == 0;
        if !recycle::is_candidate(entry.meta(), i, again, self.now) {
            return false;
        }
        if self.work.request.host_address && self.host.host_socket(&self.work.answer.reversed()) {
            return false;
        }
        let unfit = match recycle::take_over(self.host, self.work, entry, i) {
            Taken::Ours => return true,
            Taken::Contended => Claimed::Soon,
            Taken::Not => Claimed::Unfit,
        };
        if !matches!(self.result, Claimed::Soon) {
            self.result = unfit;
        }
        false
    }
}
/// Tries at random when every port was seen taken: flows that are no conversation give way to endpoints that have
/// far fewer. Who floods a remote has most of its ports, so that one of them is soon found.
const LAST_TRIES: u32 = if cfg!(loom) { 0 } else { 32 };

/// Ports that are found taken before a remote counts as crowded and idle flows towards it give way sooner: at 64 %
/// use, one flow in 35 gets so far.
const PRESSED_AFTER: u32 = 8;

/// 64 bits that nobody outside can predict, different for each flow, packet and try.
#[inline(always)]
fn unpredictable<A: Address, H: Host<A>>(host: &H, work: &Work<A>, salt: u32) -> u64 {
    let secret = match host.config() {
        Some(config) => config.secret,
        None => [0; 2],
    };
    let flow = u64::from(work.request.first.sport.raw()) << 32 | u64::from(salt) << 48;
    siphash(secret, [u64::from(host.random()) | flow, host.nanoseconds()])
}

#[cfg(not(feature = "mutant-no-generation"))]
#[inline(always)]
const fn generation(random: u64) -> u32 {
    random as u32 & 0xff_ffff
}

/// The mutant: every flow has the same generation, so that nobody notices a reused element.
#[cfg(feature = "mutant-no-generation")]
#[inline(always)]
const fn generation(_random: u64) -> u32 {
    0
}

/// The atomic step of a claim.
#[cfg(not(feature = "mutant-check-then-insert"))]
#[inline(always)]
fn insert<A, T: Flows<A>>(flows: &T, key: &Tuple<A>, value: &Flow<A>) -> Result<(), InsertError> {
    flows.insert(key, value)
}

/// The mutant: looks, and inserts later. What netfilter does, and what the race tests must notice.
#[cfg(feature = "mutant-check-then-insert")]
#[inline(always)]
fn insert<A, T: Flows<A>>(flows: &T, key: &Tuple<A>, value: &Flow<A>) -> Result<(), InsertError> {
    match flows.get(key) {
        Some(_) => Err(InsertError::Taken),
        None => flows.replace(key, value),
    }
}
