//! A packet from outside that belongs to no flow: is it for a published port, for an endpoint, or not ours?

use crate::family::{Address, Family};
use crate::flow::{Endpoint, FLOW_NEXT_HOP_V6, Kind, NETWORK_INTERNAL, Published, PublishedKey, Tuple};
use crate::nat::{self, Context, Known};
use crate::opening;
use crate::outbound::{Decision, keep_source, published, to_endpoint};
use crate::parse::{Fragment, Parsed, Transport, parse_again};
use crate::tables::{Host, Route, Scratch, Way, Work};
use crate::verdict::{DropReason, Verdict};

/// Decides about a packet from outside that the flow table does not know. [`Verdict::CLAIM`]: ask [`opening::open`].
#[inline(always)]
pub fn open<F: Family, C: Context<F>>(c: &mut C, scratch: &mut Scratch<F::Addr>) -> Verdict {
    let Scratch { known: Known { parsed, .. }, work, .. } = scratch;
    if !parse_again::<F, C>(c, parsed) {
        return malformed::<F, C>(c);
    }
    match decide::<F, C>(c, parsed, work) {
        Ok(Decision::Open) => opening::ask::<F, C>(c, parsed, work),
        Ok(Decision::Stack | Decision::Neighbour { .. }) => Verdict::STACK,
        Ok(Decision::Overtaken | Decision::OvertakenToHost) => Verdict::OVERTAKEN_TO_HOST,
        Err(reason) => Verdict::drop(reason),
    }
}

/// What is not for an endpoint is the host's own affair. (A router looks no further than the network header.)
#[inline(never)]
pub(crate) fn malformed<F: Family, C: Context<F>>(c: &C) -> Verdict {
    match F::read_header(c, c.l3()) {
        Some(header) if nat::is_private::<F, C>(c, &header.dst) => Verdict::drop(DropReason::NotPublished),
        _ => Verdict::STACK,
    }
}

#[inline(never)]
pub(crate) fn decide<F: Family, C: Context<F>>(
    c: &C,
    parsed: &Parsed<F::Addr>,
    work: &mut Work<F::Addr>,
) -> Result<Decision, DropReason> {
    let dst = parsed.tuple.dst;
    // Whoever says to have sent it: with route_localnet the stack forwards from loopback addresses, too.
    if nat::is_private::<F, C>(c, &dst) {
        return Err(DropReason::NotPublished);
    }
    // Nobody sends from an address that is not one host's (RFC 1812 5.3.7): the stack takes it for a martian.
    if dst.is_multicast() || dst.is_loopback() || !F::is_one_host(&parsed.tuple.src) {
        return Ok(Decision::Stack);
    }
    // Means nothing on another link: neither endpoint nor routing table could answer it.
    if parsed.tuple.src.is_link_local() || dst.is_link_local() {
        return Ok(Decision::Stack);
    }
    if parsed.header.fragment == Fragment::Later && c.addressed_to_us() {
        return Ok(Decision::OvertakenToHost);
    }
    let is_first = match parsed.transport {
        Transport::Tcp => nat::is_syn(parsed),
        Transport::Udp | Transport::Sctp => true,
        _ => false,
    };
    // A segment of no connection: the host's stack answers with a reset.
    if !is_first || !c.addressed_to_us() {
        return Ok(Decision::Stack);
    }
    let Some(found) = published(c, &PublishedKey::of(&parsed.tuple)) else { return Ok(Decision::Stack) };
    to_published::<F, C>(c, parsed, found, work)
}

#[inline(always)]
fn to_published<F: Family, C: Context<F>>(
    c: &C,
    parsed: &Parsed<F::Addr>,
    published: &Published<F::Addr>,
    work: &mut Work<F::Addr>,
) -> Result<Decision, DropReason> {
    let target = c.endpoint(&published.endpoint).ok_or(DropReason::EndpointGone)?;
    if c.route(&parsed.tuple, target.network) != Route::Local {
        // The port is published, but the packet is for another host.
        return Ok(Decision::Stack);
    }
    if c.endpoint(&parsed.tuple.src).is_some() {
        return Err(DropReason::Spoofed);
    }
    let network = c.network(target.network).ok_or(DropReason::EndpointGone)?;
    if network.flags & NETWORK_INTERNAL != 0 {
        return Err(DropReason::Internal);
    }
    if !published.admits(&parsed.tuple.src, |list, addr| c.is_source(list, addr)) {
        return Err(DropReason::NotAllowed);
    }
    let request = &mut work.request;
    request.translated = parsed.tuple;
    request.translated.dst = target.addr;
    request.translated.dport = published.endpoint_port(parsed.tuple.dport);
    request.kind = Kind::Dnat as u8;
    request.timeouts = network.timeouts as u16;
    request.forward = to_endpoint(c, 0, target);
    request.reverse = way_back(c, &parsed.tuple.reversed(), target)?;
    keep_source(parsed, request);
    Ok(Decision::Open)
}

/// The way of the answers: that of a server of the host's own at the address that was dialled, by the routing table as
/// it is now; looked up again once a tick.
#[inline(always)]
fn way_back<A: Address, H: Host<A>>(
    host: &H,
    answer: &Tuple<A>,
    target: &Endpoint<A>,
) -> Result<Way, DropReason> {
    let Route::Out { oif, via, via_v6, mtu, src: _, resolved: _ } = host.route(answer, target.network) else {
        return Err(DropReason::NoRoute);
    };
    host.uplink(oif).ok_or(DropReason::UplinkNotAttached)?;
    Ok(Way { iif: target.ifindex, oif, via, mtu, flags: if via_v6 { FLOW_NEXT_HOP_V6 } else { 0 } })
}
