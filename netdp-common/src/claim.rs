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
use crate::flow::{FLOW_INITIATOR, Flow, Kind, PortSpans, Tuple};
use crate::meta::Meta;
use crate::ports::Search;
use crate::random::siphash;
use crate::reclaim;
use crate::tables::{Flows, Host, InsertError, Step, Work};
use crate::verdict::{DropReason, Event};

/// How often a claim starts over because the flow it lost to was just being removed.
const ATTEMPTS: u32 = 4;

/// Slots that are inspected for something to reclaim when the table is full.
const EMERGENCY_SLOTS: u32 = 256;

/// What to claim.
#[derive(Clone, Copy, Debug)]
pub struct Request<A> {
    /// The tuple of the packet that opens the flow.
    pub first: Tuple<A>,
    /// What it becomes; [`Tuple::sport`] is to be chosen.
    pub translated: Tuple<A>,
    /// The ports to choose from.
    pub spans: PortSpans,
    /// Try `translated.sport` itself before choosing.
    pub keep_port: bool,
    /// The new source is an address of this host: neither reserved ports nor its sockets' tuples may be taken.
    pub host_address: bool,
    /// What the flow is.
    pub kind: Kind,
    /// What the first packet shows, see [`Meta::bits`].
    pub bits: u8,
}

/// The next hops of a new flow, see [`Flow`].
#[derive(Clone, Copy, Debug)]
pub struct Ways {
    /// Interface that the initiator's packets come by (0: from outside).
    pub forward_iif: u32,
    /// Interface that they leave by.
    pub forward_oif: u32,
    /// Next hop or MACs.
    pub forward_via: [u32; 4],
    /// `FLOW_*`.
    pub forward_flags: u8,
    /// The same for the responder's packets.
    pub reverse_iif: u32,
    /// See `forward_oif`; 0: look the route up when the first one comes.
    pub reverse_oif: u32,
    /// See `forward_via`.
    pub reverse_via: [u32; 4],
    /// `FLOW_*`.
    pub reverse_flags: u8,
}

/// Claims a mapping for a new flow, or finds the one that another packet of the flow has just claimed.
/// Returns the initiator's entry.
///
/// # Errors
/// [`DropReason::PortsExhausted`] when every port was seen taken, [`DropReason::TableFull`],
/// [`DropReason::ClaimContended`].
#[inline(always)]
pub fn claim<A: Address, H: Host<A>>(
    host: &H,
    work: &mut Work<A>,
    request: &Request<A>,
    ways: &Ways,
) -> Result<Flow<A>, DropReason> {
    prepare(work, request, ways);
    for _ in 0..ATTEMPTS {
        match attempt(host, work, request) {
            Outcome::Mine => {
                host.count(Event::FlowsCreated, 1);
                if let Kind::Snat = request.kind {
                    host.count(Event::SnatAllocated, 1);
                }
                if request.keep_port && work.forward.sport != request.translated.sport {
                    host.count(Event::DnatPortChanged, 1);
                }
                reclaim::enter(host, &work.answer, work.reverse.meta);
                return Ok(work.forward);
            }
            Outcome::Theirs(flow) => {
                host.count(Event::FlowsAdopted, 1);
                return Ok(flow);
            }
            Outcome::Failed(reason) => return Err(reason),
            Outcome::Again => {}
        }
    }
    Err(DropReason::ClaimContended)
}

enum Outcome<A> {
    Mine,
    Theirs(Flow<A>),
    Failed(DropReason),
    Again,
}

#[inline(always)]
fn prepare<A: Address>(work: &mut Work<A>, request: &Request<A>, ways: &Ways) {
    let Request { first, translated, .. } = request;
    work.first = *first;
    work.answer = translated.reversed();
    work.forward = Flow {
        meta: 0,
        src: translated.src,
        dst: translated.dst,
        sport: translated.sport,
        dport: translated.dport,
        oif: ways.forward_oif,
        via: ways.forward_via,
        own_src: first.src,
        own_dst: first.dst,
        own_sport: first.sport,
        own_dport: first.dport,
        kind: request.kind as u8,
        flags: ways.forward_flags | FLOW_INITIATOR,
        pad: 0,
        iif: ways.forward_iif,
        spare: 0,
    };
    work.reverse = Flow {
        meta: 0,
        src: first.dst,
        dst: first.src,
        sport: first.dport,
        dport: first.sport,
        oif: ways.reverse_oif,
        via: ways.reverse_via,
        own_src: translated.dst,
        own_dst: translated.src,
        own_sport: translated.dport,
        own_dport: translated.sport,
        kind: request.kind as u8,
        flags: ways.reverse_flags,
        pad: 0,
        iif: ways.reverse_iif,
        spare: 0,
    };
    work.search = Search::new(&request.spans, 0);
    work.spans = request.spans;
}

/// One claim from the choice of the port to both entries.
#[inline(always)]
fn attempt<A: Address, H: Host<A>>(host: &H, work: &mut Work<A>, request: &Request<A>) -> Outcome<A> {
    let &Request { keep_port, host_address, bits, .. } = request;
    let random = unpredictable(host, work, 0);
    work.search = Search::new(&work.spans, random);
    let now = host.now();
    let generation = random as u32 & 0xff_ffff;
    work.forward.meta = Meta::new(generation, bits, now).0;
    work.reverse.meta = Meta::new(generation, 0, now).0;

    let remote = Tuple { dport: Be16::new(0), ..work.answer };
    if !keep_port && host.exhausted(&remote) {
        host.count(Event::SnatExhausted, 1);
        return Outcome::Failed(DropReason::PortsExhausted);
    }
    let tries = work.search.tries();
    let mut probe = Probe { host, work, keep_port, host_address, now, result: Claimed::Nothing };
    host.repeat(tries, &mut probe);
    match probe.result {
        Claimed::Port => enter_initiator(host, work),
        Claimed::Full => Outcome::Failed(DropReason::TableFull),
        Claimed::Nothing => {
            host.set_exhausted(&remote, true);
            host.count(Event::SnatExhausted, 1);
            Outcome::Failed(DropReason::PortsExhausted)
        }
    }
}

/// The port is ours: enter the initiator's side, or give way to who did so first.
#[inline(always)]
fn enter_initiator<A: Address, H: Host<A>>(host: &H, work: &mut Work<A>) -> Outcome<A> {
    match insert(host.flows(), &work.first, &work.forward) {
        Ok(()) => Outcome::Mine,
        Err(InsertError::Full) => {
            host.flows().remove(&work.answer);
            Outcome::Failed(DropReason::TableFull)
        }
        Err(InsertError::Busy) => {
            host.count(Event::BusyRetries, 1);
            host.flows().remove(&work.answer);
            Outcome::Again
        }
        Err(InsertError::Taken) => {
            host.flows().remove(&work.answer);
            match host.flows().get(&work.first) {
                Some(entry) => match reclaim::read_alive(&entry, &work.first) {
                    Some(flow) => Outcome::Theirs(flow),
                    None => Outcome::Again,
                },
                None => Outcome::Again,
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Claimed {
    Nothing,
    Port,
    Full,
}

struct Probe<'a, A: Address, H: Host<A>> {
    host: &'a H,
    work: &'a mut Work<A>,
    keep_port: bool,
    host_address: bool,
    now: u32,
    result: Claimed,
}

impl<A: Address, H: Host<A>> Step for Probe<'_, A, H> {
    #[inline(always)]
    fn step(&mut self, i: u32) -> bool {
        let host = self.host;
        if !(self.keep_port && i == 0) {
            let random =
                if i < crate::ports::RANDOM_TRIES { unpredictable(host, self.work, i + 1) } else { 0 };
            let port = self.work.search.port(i, random);
            if self.host_address && host.reserved(self.work.first.proto, port) {
                return true;
            }
            let port = Be16::new(port);
            self.work.answer.dport = port;
            self.work.forward.sport = port;
            self.work.reverse.own_dport = port;
        }
        if i > 0 {
            // A look-up that hits costs half of an insert that fails.
            if let Some(entry) = host.flows().get(&self.work.answer)
                && !reclaim::remove_if_expired(host, &entry, &self.work.answer, self.now)
            {
                host.count(Event::SnatCollisions, 1);
                return true;
            }
        }
        if self.host_address && host.host_socket(&self.work.answer.reversed()) {
            return true;
        }
        match insert(host.flows(), &self.work.answer, &self.work.reverse) {
            Ok(()) => {
                self.result = Claimed::Port;
                false
            }
            Err(InsertError::Taken) => {
                host.count(Event::SnatCollisions, 1);
                true
            }
            Err(InsertError::Busy) => {
                host.count(Event::BusyRetries, 1);
                true
            }
            Err(InsertError::Full) => {
                if i < EMERGENCY_TRIES && reclaim::make_room(host, self.now, EMERGENCY_SLOTS) {
                    return true;
                }
                self.result = Claimed::Full;
                false
            }
        }
    }
}

/// How many ports are tried while the table is full and something could be reclaimed.
const EMERGENCY_TRIES: u32 = 2;

/// 64 bits that nobody outside can predict, different for each flow, packet and try.
#[inline(always)]
fn unpredictable<A: Address, H: Host<A>>(host: &H, work: &Work<A>, salt: u32) -> u64 {
    let secret = match host.config() {
        Some(config) => config.secret,
        None => [0; 2],
    };
    let flow = (work.first.sport.raw() as u64) << 32 | (salt as u64) << 48;
    siphash(secret, [host.random() as u64 | flow, host.nanoseconds()])
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
