//! The three places where a packet meets the NAT, top to bottom.

use bytemuck::Zeroable as _;

use crate::closing;
use crate::family::{Address, Family};
use crate::firewall;
use crate::flow::{
    FLOW_BY_STACK, FLOW_INITIATOR, FLOW_NEXT_HOP_V6, FLOW_TO_ENDPOINT, Flow, Kind, NextHop, OF_HOST,
    Pressure, Tuple,
};
use crate::fragment;
use crate::header::{ethernet, tcp, udp};
use crate::meta::{self, Meta};
use crate::moved;
use crate::next_hop;
use crate::own;
use crate::packet::Packet;
use crate::parse::{Fragment, Parsed, Transport, parse};
use crate::reclaim::{self, H_Entry, Judged};
use crate::rewrite::rewrite;
use crate::tables::{Entry, Flows, Host, Route, Way};
use crate::verdict::{DropReason, Event, Verdict};

/// A packet and everything it may need.
pub trait Context<F: Family>: Packet + Host<F::Addr> {}

impl<F: Family, C: Packet + Host<F::Addr>> Context<F> for C {}

/// What is known of a packet: read by [`from_container`] and [`from_world`], into [`crate::tables::Scratch`].
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
    established::<F, C, false>(c, known, c.ifindex())
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
    established::<F, C, false>(c, known, FROM_OUTSIDE)
}

/// A frame that leaves by an uplink: the last gate. Nothing with an endpoint's address as source may pass:
/// [`Verdict::PRIVATE`]. Nor may anything of the host's own that looks like a mapping's: [`Verdict::OWN`].
#[inline(always)]
pub fn to_world<F: Family, C: Context<F>>(c: &mut C) -> Verdict {
    let Some(header) = F::read_header(c, c.l3()) else { return Verdict::STACK };
    if is_private::<F, C>(c, &header.src) {
        Verdict::PRIVATE
    } else if own::is_concerned::<F, C>(c, &header) {
        Verdict::OWN
    } else {
        Verdict::STACK
    }
}

/// Where to ask about a packet that has no place in the flow table.
#[inline(always)]
fn no_flow<A>(parsed: &Parsed<A>) -> Verdict {
    if parsed.header.fragment != Fragment::Whole {
        Verdict::FRAGMENT
    } else if parsed.transport == Transport::IcmpError {
        Verdict::ICMP_ERROR
    } else {
        Verdict::NO_FLOW_YET
    }
}

/// Whether this is the address of an endpoint that is not to be seen outside.
#[inline(always)]
pub(crate) fn is_private<F: Family, C: Context<F>>(c: &C, addr: &F::Addr) -> bool {
    if !c.private_prefix(F::prefix_digest(addr)) {
        return false;
    }
    let Some(endpoint) = c.endpoint(addr) else { return c.allowed(0, addr) };
    match c.network(endpoint.network) {
        Some(network) => network.flags & crate::flow::NETWORK_ROUTED == 0,
        None => true,
    }
}

/// [`Flow::iif`] of packets that no endpoint sent.
pub(crate) const FROM_OUTSIDE: u32 = 0;

/// A packet of a known flow; [`Verdict::NO_FLOW_YET`] if there is no such flow. `iif`: where its packets must
/// come from. `FRAGMENTS`: it may be the first fragment of one.
#[inline(always)]
pub(crate) fn established<F: Family, C: Context<F>, const FRAGMENTS: bool>(
    c: &mut C,
    known: &mut Known<F::Addr>,
    iif: u32,
) -> Verdict {
    let Known { parsed, flow } = known;
    if !FRAGMENTS && parsed.header.fragment != Fragment::Whole {
        return Verdict::FRAGMENT;
    }
    let Some(entry) = c.flows().get(&parsed.tuple) else { return Verdict::NO_FLOW_YET };
    if !reclaim::read_alive(&entry, &parsed.tuple, flow) {
        return Verdict::NO_FLOW_YET;
    }
    if flow.iif != iif {
        return Verdict::drop(DropReason::Spoofed);
    }
    let bits = meta::bits_of_tcp(parsed.tcp_flags);
    let meta = Meta(flow.meta);
    let now = c.now();
    if moved::ends_flow(c, flow, parsed.tuple.proto, now) {
        // Who is in between starts over, as whoever opens a flow.
        reclaim::remove_if_expired(c, &entry, &parsed.tuple, now, Pressure::ENDED);
        return Verdict::NO_FLOW_YET;
    }
    if iif != FROM_OUTSIDE {
        closing::note_acknowledgement(&entry, meta, parsed);
    }
    if !FRAGMENTS && firewall::has_let_through(flow, parsed, now) {
        flow.flags &= !FLOW_BY_STACK;
    }
    let by_stack = takes_stack(c, flow);
    // What the stack routes by itself must not get to an interface without our programs: asked for each packet.
    let asks = meta.seen() != now || by_stack;
    if asks || meta.bits() & (bits | Meta::CLOSING) != bits || is_syn(parsed) {
        if iif != FROM_OUTSIDE && meta.seen() != now && has_lost_its_address::<F, C>(c, flow) {
            // The next packet may open another one.
            reclaim::remove_if_expired(c, &entry, &parsed.tuple, now, Pressure::ENDED);
            return Verdict::drop(DropReason::AddressGone);
        }
        if let Some(timeouts) = c.timeouts(flow.timeouts)
            && meta.idle(now) >= timeouts.shortest
            && reclaim::remove_if_expired(c, &entry, &parsed.tuple, now, Pressure::NONE) == Judged::Gone
        {
            return Verdict::NO_FLOW_YET;
        }
        let opens = is_syn(parsed) && flow.flags & FLOW_INITIATOR != 0;
        if closing::concerns(bits, flow, opens) {
            return Verdict::CLOSING;
        }
        // Before it counts as seen: while there is no way, every packet is told so.
        if asks && let Err(reason) = look_again::<F, C>(c, &entry, flow, parsed) {
            return Verdict::drop(reason);
        }
        if !refresh::<F, C>(c, &entry, flow, parsed, bits) {
            return Verdict::NO_FLOW_YET;
        }
    }
    if FRAGMENTS && fragment::leads::<F, C>(c, parsed, flow, iif) {
        return Verdict::WAIT;
    }
    send::<F, C>(c, parsed, flow, by_stack)
}

/// Translates a packet and sends it on its flow's way. `by_stack`: what [`takes_stack`] says.
#[inline(always)]
pub(crate) fn send<F: Family, C: Context<F>>(
    c: &mut C,
    parsed: &Parsed<F::Addr>,
    flow: &Flow<F::Addr>,
    by_stack: bool,
) -> Verdict {
    let is_own = flow.kind == Kind::Own as u8;
    if by_stack {
        return Verdict::STACK;
    }
    if parsed.header.ttl <= 1 && !is_own {
        return Verdict::drop(DropReason::TtlExceeded);
    }
    let is_delivered = flow.flags & FLOW_TO_ENDPOINT != 0;
    if c.len() > c.l3() + flow.mtu as usize && longest_part::<F, C>(c, parsed) > flow.mtu as usize {
        // An endpoint takes what its link has carried, which a router must not have let through to it only if the
        // sender can be told so.
        if !is_delivered || !F::may_be_fragmented(c, c.l3()) {
            return too_big::<F, C>(c, flow.mtu);
        }
    }
    let ttl = ttl_after(flow, parsed.header.ttl);
    if rewrite::<F, C>(c, parsed, flow, ttl).is_none() {
        return Verdict::drop(DropReason::RewriteFailed);
    }
    send_on::<F, C>(c, flow)
}

/// Whether a packet of a flow that leaves takes the stack as it is, since the host's firewall is to see it, or an IPsec
/// policy may have something to do with it: [`crate::fragment::leave`] translates what they let through in the clear.
#[inline(always)]
pub(crate) fn takes_stack<A: Address, H: Host<A>>(host: &H, flow: &Flow<A>) -> bool {
    let leaves = flow.flags & FLOW_TO_ENDPOINT == 0 && flow.oif != OF_HOST;
    leaves && (flow.flags & FLOW_BY_STACK != 0 || host.has_policies())
}

/// The hops that a translated packet has left. The host is no hop on the way to itself, and a stack that forwards takes
/// one off by itself.
#[inline(always)]
pub(crate) const fn ttl_after<A>(flow: &Flow<A>, ttl: u8) -> u8 {
    let is_hop = flow.oif != OF_HOST && flow.flags & FLOW_BY_STACK == 0;
    if is_hop { ttl.wrapping_sub(1) } else { ttl }
}

/// Sends a translated packet on its flow's way.
#[inline(always)]
pub(crate) fn send_on<F: Family, C: Context<F>>(c: &mut C, flow: &Flow<F::Addr>) -> Verdict {
    if flow.oif == OF_HOST {
        return Verdict::STACK;
    }
    c.count(Event::Packets, 1);
    c.count(Event::Bytes, c.len() as u64);
    if flow.flags & FLOW_BY_STACK != 0 {
        return Verdict::STACK;
    }
    if flow.flags & FLOW_TO_ENDPOINT == 0 {
        c.set_next_hop(flow.via, flow.flags & FLOW_NEXT_HOP_V6 != 0);
        return Verdict::to_next_hop(flow.oif);
    }
    deliver(c, flow.oif, flow.via)
}

/// The segment size of an aggregated packet whose segments are as its sender made them (`GSO_BY_FRAGS`: SCTP's chunks,
/// which can't be cut): as long as its MTU lets them be.
const SEGMENTS_OF_THEIR_OWN: usize = 0xffff;

/// Length of a packet from its network header on; of an aggregated one, of its longest segment.
#[inline(always)]
fn longest_part<F: Family, C: Packet>(c: &C, parsed: &Parsed<F::Addr>) -> usize {
    let segment = c.segment_size() as usize;
    if segment == SEGMENTS_OF_THEIR_OWN {
        return 0;
    }
    if segment == 0 {
        return c.len() - c.l3();
    }
    let l4 = parsed.header.transport(c.l3());
    let header = match parsed.transport {
        Transport::Tcp => match c.load::<[u8; 2]>(l4 + tcp::FLAGS_WORD) {
            Some([offset, _flags]) => usize::from(offset >> 4) * 4,
            None => 0,
        },
        _ => udp::LEN,
    };
    l4 - c.l3() + header + segment
}

/// A packet to an uplink that is bigger than its MTU: whoever sent it is told, or the kernel fragments it. It does so
/// before it is translated, since the stack takes no packet with an address of this host from elsewhere; the fragments
/// are translated by [`to_world`].
#[inline(always)]
pub(crate) fn too_big<F: Family, C: Context<F>>(c: &C, mtu: u16) -> Verdict {
    if !F::may_be_fragmented(c, c.l3()) {
        return Verdict::too_big(mtu);
    }
    c.count(Event::StackFragmented, 1);
    Verdict::STACK
}

/// Addresses a frame to an endpoint's MAC and hands it over. `macs`: destination, source, and four bytes more.
#[inline(always)]
pub(crate) fn deliver<P: Packet>(packet: &mut P, oif: u32, macs: [u32; 4]) -> Verdict {
    match packet.store(ethernet::MACS, &[macs[0], macs[1], macs[2]]) {
        Some(()) => Verdict::to_endpoint(oif),
        None => Verdict::drop(DropReason::RewriteFailed),
    }
}

/// What a packet has to do when it is the first in a while, or shows something new: at most once a tick and
/// direction, or a few times in a TCP connection's life. False: the flow has been removed meanwhile.
#[inline(never)]
pub(crate) fn refresh<F: Family, C: Context<F>>(
    c: &C,
    entry: &H_Entry<F::Addr, C>,
    flow: &Flow<F::Addr>,
    parsed: &Parsed<F::Addr>,
    bits: u8,
) -> bool {
    let meta = Meta(flow.meta);
    touch(entry, meta.generation(), bits, c.now(), parsed.transport != Transport::Tcp)
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

/// Asks for the way again, so that a changed route, neighbour or MTU is followed without any process.
#[inline(never)]
pub(crate) fn look_again<F: Family, C: Context<F>>(
    c: &C,
    entry: &H_Entry<F::Addr, C>,
    flow: &mut Flow<F::Addr>,
    parsed: &Parsed<F::Addr>,
) -> Result<(), DropReason> {
    if flow.kind == Kind::Own as u8 {
        // The stack finds the way by itself.
        return Ok(());
    }
    let way = if flow.flags & FLOW_TO_ENDPOINT == 0 {
        route_again::<F, C>(c, flow, parsed)?
    } else {
        // (Not before: what is kept over the look-up is on the stack, and that is short.)
        let Flow { iif, oif, via, flags, .. } = *flow;
        Way { iif, oif, via, mtu: c.link_mtu(oif), flags }
    };
    if (way.oif, way.via, way.mtu, way.flags) != (flow.oif, flow.via, flow.mtu, flow.flags) {
        (flow.oif, flow.via, flow.mtu, flow.flags) = (way.oif, way.via, way.mtu, way.flags);
        // Held, or else another flow's element might be written to.
        if hold(entry, Meta(flow.meta).generation()) {
            entry.set_way(&way);
            entry.release();
        }
    }
    Ok(())
}

/// Whether an endpoint's flow has an address outside that is not this host's any more: nobody would be answered there.
/// (Also that of a published port whose answers these are.)
#[inline(never)]
fn has_lost_its_address<F: Family, C: Context<F>>(c: &C, flow: &Flow<F::Addr>) -> bool {
    if flow.flags & FLOW_TO_ENDPOINT != 0 {
        return false;
    }
    match c.sender(flow.iif) {
        Some(sender) => !is_local(c, flow.src, sender.network),
        None => false,
    }
}

/// Whether this is an address of the host's, as a packet from this network finds.
#[inline(always)]
pub(crate) fn is_local<A: Address, H: Host<A>>(host: &H, addr: A, network: u32) -> bool {
    let tuple = Tuple { dst: addr, ..Tuple::default() };
    host.route(&tuple, network) == Route::Local
}

/// What the routing table says now.
#[inline(always)]
fn route_again<F: Family, C: Context<F>>(
    c: &C,
    flow: &Flow<F::Addr>,
    parsed: &Parsed<F::Addr>,
) -> Result<Way, DropReason> {
    let sender = c.sender(flow.iif).ok_or(DropReason::EndpointGone)?;
    let mut tuple = parsed.tuple;
    tuple.dst = flow.dst;
    tuple.dport = flow.dport;
    if flow.kind == Kind::Dnat as u8 {
        // As `inbound` has it.
        tuple.src = flow.src;
        tuple.sport = flow.sport;
    }
    let Route::Out { oif, via, via_v6, resolved, mtu, src: _ } = c.route(&tuple, sender.network) else {
        return Err(DropReason::NoRoute);
    };
    c.uplink(oif).ok_or(DropReason::UplinkNotAttached)?;
    if !resolved && !next_hop::is_tried(c, &NextHop { via, oif }) {
        return Err(DropReason::HostUnreachable);
    }
    let flags = flow.flags & !FLOW_NEXT_HOP_V6 | if via_v6 { FLOW_NEXT_HOP_V6 } else { 0 };
    Ok(Way { iif: flow.iif, oif, via, mtu, flags })
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
