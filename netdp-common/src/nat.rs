//! The three places where a packet meets the NAT, top to bottom.

use bytemuck::Zeroable as _;

use crate::closing;
use crate::family::{Address, Family};
use crate::flow::{FLOW_INITIATOR, FLOW_NEXT_HOP_V6, FLOW_TO_ENDPOINT, Flow};
use crate::header::{ethernet, tcp};
use crate::meta::{self, Meta};
use crate::packet::Packet;
use crate::parse::{Fragment, Parsed, Transport, parse};
use crate::reclaim::{self, H_Entry, Judged};
use crate::rewrite::rewrite;
use crate::tables::{Entry, Flows, Host, Route};
use crate::verdict::{DropReason, Event, Verdict};

/// A packet and everything it may need.
pub trait Context<F: Family>: Packet + Host<F::Addr> {}

impl<F: Family, C: Packet + Host<F::Addr>> Context<F> for C {}

/// What is known of a packet: read by [`from_container`] and [`from_world`], which have it on the stack or, where that
/// is too short for it, in the scratch space of [`crate::tables::Scratch`].
#[derive(Clone, Copy, Debug)]
pub struct Known<A> {
    /// Its headers.
    pub parsed: Parsed<A>,
    /// Its flow.
    pub flow: Flow<A>,
}

impl<A: Address> Known<A> {
    /// Nothing yet.
    #[inline(always)]
    pub fn nothing() -> Self {
        Self { parsed: Parsed::unread(), flow: Flow::zeroed() }
    }
}

/// A frame that an endpoint sends, on its host veth.
///
/// The flow is looked up first and for every frame: the answer to a hairpin is addressed to its neighbour's MAC.
/// [`Verdict::NO_FLOW_YET`]: ask [`crate::outbound::open`]; [`Verdict::CLOSING`]: [`closing::follow`].
#[inline(always)]
pub fn from_container<F: Family, C: Context<F>>(c: &mut C, known: &mut Known<F::Addr>) -> Verdict {
    if !parse::<F, C>(c, &mut known.parsed) {
        return Verdict::drop(DropReason::Malformed);
    }
    if !known.parsed.has_flow() {
        return no_flow(&known.parsed);
    }
    established::<F, C>(c, known, c.ifindex())
}

/// A frame that comes in by an uplink. [`Verdict::NO_FLOW_YET`]: ask [`crate::inbound::open`];
/// [`Verdict::CLOSING`]: [`closing::follow`].
#[inline(always)]
pub fn from_world<F: Family, C: Context<F>>(c: &mut C, known: &mut Known<F::Addr>) -> Verdict {
    if !parse::<F, C>(c, &mut known.parsed) {
        return Verdict::NO_FLOW_YET;
    }
    if !known.parsed.has_flow() {
        return no_flow(&known.parsed);
    }
    established::<F, C>(c, known, FROM_OUTSIDE)
}

/// A frame that leaves by an uplink: the last gate. Nothing with an endpoint's address as source may pass.
#[inline(always)]
pub fn to_world<F: Family, C: Context<F>>(c: &mut C) -> Verdict {
    let Some(header) = F::read_header(c, c.l3()) else { return Verdict::STACK };
    if is_private::<F, C>(c, &header.src) {
        return Verdict::drop(DropReason::Untranslated);
    }
    Verdict::STACK
}

/// Where to ask about a packet that has no place in the flow table.
#[inline(always)]
fn no_flow<A>(parsed: &Parsed<A>) -> Verdict {
    if parsed.transport == Transport::IcmpError { Verdict::ICMP_ERROR } else { Verdict::NO_FLOW_YET }
}

/// Whether this is the address of an endpoint that is not to be seen outside.
#[inline(always)]
pub(crate) fn is_private<F: Family, C: Context<F>>(c: &C, addr: &F::Addr) -> bool {
    if !c.private_prefix(F::prefix_digest(addr)) {
        return false;
    }
    let Some(endpoint) = c.endpoint(addr) else { return false };
    match c.network(endpoint.network) {
        Some(network) => network.flags & crate::flow::NETWORK_ROUTED == 0,
        None => true,
    }
}

/// [`Flow::iif`] of packets that no endpoint sent.
pub(crate) const FROM_OUTSIDE: u32 = 0;

/// A packet of a known flow; [`Verdict::NO_FLOW_YET`] if there is no such flow. `iif`: where its packets must
/// come from.
#[inline(always)]
fn established<F: Family, C: Context<F>>(c: &mut C, known: &mut Known<F::Addr>, iif: u32) -> Verdict {
    let Known { parsed, flow } = known;
    let Some(entry) = c.flows().get(&parsed.tuple) else { return Verdict::NO_FLOW_YET };
    if !reclaim::read_alive(&entry, &parsed.tuple, flow) {
        return Verdict::NO_FLOW_YET;
    }
    if flow.iif != iif {
        return Verdict::drop(DropReason::Spoofed);
    }
    if parsed.header.fragment != Fragment::Whole {
        return Verdict::drop(DropReason::Fragment);
    }
    let bits = meta::bits_of_tcp(parsed.tcp_flags);
    let meta = Meta(flow.meta);
    let now = c.now();
    if iif != FROM_OUTSIDE && parsed.tcp_flags & tcp::ACK != 0 && meta.bits() & Meta::CLOSING == 0 {
        entry.set_next(u32::from_be(parsed.acknowledgement));
    }
    if meta.seen() != now || meta.bits() & (bits | Meta::CLOSING) != bits || is_syn(parsed) {
        if let Some(config) = c.config()
            && meta.idle(now) >= config.timeouts.shortest()
            && reclaim::remove_if_expired(c, &entry, &parsed.tuple, now, &config.timeouts) == Judged::Gone
        {
            return Verdict::NO_FLOW_YET;
        }
        let opens = is_syn(parsed) && flow.flags & FLOW_INITIATOR != 0;
        if closing::concerns(bits, flow, opens) {
            return Verdict::CLOSING;
        }
        match refresh::<F, C>(c, &entry, flow, parsed, bits) {
            Refreshed::Alive => {}
            Refreshed::Gone => return Verdict::NO_FLOW_YET,
            Refreshed::Refused(reason) => return Verdict::drop(reason),
        }
    }
    send::<F, C>(c, parsed, flow)
}

/// Translates a packet and sends it on its flow's way.
#[inline(always)]
pub(crate) fn send<F: Family, C: Context<F>>(
    c: &mut C,
    parsed: &Parsed<F::Addr>,
    flow: &Flow<F::Addr>,
) -> Verdict {
    if parsed.header.ttl <= 1 {
        return Verdict::drop(DropReason::TtlExceeded);
    }
    if rewrite::<F, C>(c, parsed, flow).is_none() {
        return Verdict::drop(DropReason::RewriteFailed);
    }
    c.count(Event::Packets, 1);
    c.count(Event::Bytes, c.len() as u64);
    if flow.flags & FLOW_TO_ENDPOINT == 0 {
        c.set_next_hop(flow.via, flow.flags & FLOW_NEXT_HOP_V6 != 0);
        return Verdict::to_next_hop(flow.oif);
    }
    deliver(c, flow.oif, flow.via)
}

/// Addresses a frame to an endpoint's MAC and hands it over. `macs`: destination, source, and four bytes more.
#[inline(always)]
pub(crate) fn deliver<P: Packet>(packet: &mut P, oif: u32, macs: [u32; 4]) -> Verdict {
    match packet.store(ethernet::MACS, &[macs[0], macs[1], macs[2]]) {
        Some(()) => Verdict::to_endpoint(oif),
        None => Verdict::drop(DropReason::RewriteFailed),
    }
}

/// What [`refresh`] found.
pub(crate) enum Refreshed {
    /// The flow is there.
    Alive,
    /// It has been removed.
    Gone,
    /// The packet can't be sent on.
    Refused(DropReason),
}

/// What a packet has to do when it is the first in a while, or shows something new: at most once a tick and
/// direction, or a few times in a TCP connection's life.
#[inline(never)]
fn refresh<F: Family, C: Context<F>>(
    c: &C,
    entry: &H_Entry<F::Addr, C>,
    flow: &mut Flow<F::Addr>,
    parsed: &Parsed<F::Addr>,
    bits: u8,
) -> Refreshed {
    let now = c.now();
    let meta = Meta(flow.meta);
    if !touch(entry, meta.generation(), bits, now, parsed.transport != Transport::Tcp) {
        return Refreshed::Gone;
    }
    if flow.flags & FLOW_TO_ENDPOINT == 0 && meta.seen() != now {
        return route_again::<F, C>(c, entry, flow, parsed);
    }
    Refreshed::Alive
}

/// The same for a packet that has been noted: only its way is looked at.
#[inline(never)]
pub(crate) fn follow_route<F: Family, C: Context<F>>(
    c: &C,
    entry: &H_Entry<F::Addr, C>,
    flow: &mut Flow<F::Addr>,
    parsed: &Parsed<F::Addr>,
) -> Refreshed {
    if flow.flags & FLOW_TO_ENDPOINT == 0 && Meta(flow.meta).seen() != c.now() {
        return route_again::<F, C>(c, entry, flow, parsed);
    }
    Refreshed::Alive
}

/// Notes a packet in its entry. False: the flow has been removed meanwhile.
#[inline(always)]
fn touch<A: Address, E: Entry<A>>(entry: &E, generation: u32, bits: u8, now: u32, streams: bool) -> bool {
    for _ in 0..TOUCH_TRIES {
        let meta = entry.meta();
        if meta.is_dying() || meta.generation() != generation {
            return false;
        }
        let again = streams && meta.seen() != now && meta.bits() & Meta::ACTIVE != 0;
        let stream = if again { Meta::STREAM } else { 0 };
        let new = meta.with_bits(meta.bits() | bits | stream).with_seen(now);
        if new == meta || entry.swap_meta(meta, new) {
            return true;
        }
    }
    // Others keep refreshing it: it is alive, and what this packet shows the next one shows again.
    true
}

/// Compare-and-swaps that a packet tries before it leaves the entry to those who keep changing it.
const TOUCH_TRIES: u32 = 4;

/// Asks the routing table again, so that a changed route or neighbour is followed without any process.
#[inline(always)]
fn route_again<F: Family, C: Context<F>>(
    c: &C,
    entry: &H_Entry<F::Addr, C>,
    flow: &mut Flow<F::Addr>,
    parsed: &Parsed<F::Addr>,
) -> Refreshed {
    let Some(sender) = c.sender(flow.iif) else { return Refreshed::Refused(DropReason::EndpointGone) };
    let mut tuple = parsed.tuple;
    tuple.dst = flow.dst;
    tuple.dport = flow.dport;
    let Route::Out { oif, via, via_v6, src: _ } = c.route(&tuple, sender.network) else {
        return Refreshed::Refused(DropReason::NoRoute);
    };
    if c.uplink(oif).is_none() {
        return Refreshed::Refused(DropReason::UplinkNotAttached);
    }
    let flags = flow.flags & !FLOW_NEXT_HOP_V6 | if via_v6 { FLOW_NEXT_HOP_V6 } else { 0 };
    if (oif, via, flags) != (flow.oif, flow.via, flow.flags) {
        (flow.oif, flow.via, flow.flags) = (oif, via, flags);
        // Held, or else another flow's element might be written to.
        if hold(entry, Meta(flow.meta).generation()) {
            entry.set_next_hop(oif, via, via_v6);
            entry.release();
        }
    }
    Refreshed::Alive
}

/// Keeps an entry from being removed until it is released. False: somebody else holds it, or it is gone; the next
/// packet will see to it.
#[inline(always)]
fn hold<A: Address, E: Entry<A>>(entry: &E, generation: u32) -> bool {
    let meta = entry.meta();
    meta.generation() == generation
        && !meta.is_dying()
        && !meta.is_held()
        && entry.swap_meta(meta, meta.with_bits(meta.bits() | Meta::HELD))
}

/// A TCP segment that opens a connection.
#[inline(always)]
pub(crate) fn is_syn<A>(parsed: &Parsed<A>) -> bool {
    parsed.tcp_flags & tcp::OPENING == tcp::SYN
}
