//! A packet from outside that belongs to no flow: is it for a published port, for an endpoint, or not ours?

use crate::claim::{Request, Ways};
use crate::family::{Address, Family};
use crate::flow::{FLOW_TO_ENDPOINT, Kind, NETWORK_INTERNAL, NETWORK_ROUTED, Published};
use crate::nat::{self, Context};
use crate::outbound::{ANY_PORT, first_bits, macs, published, start};
use crate::parse::{Fragment, Parsed, Transport};
use crate::tables::Route;
use crate::verdict::{DropReason, Verdict};

/// Decides about a packet from outside that the flow table does not know.
#[inline(never)]
pub fn open<F: Family, C: Context<F>>(c: &mut C, parsed: &Parsed<F::Addr>) -> Verdict {
    match decide::<F, C>(c, parsed) {
        Ok(verdict) => verdict,
        Err(reason) => Verdict::Drop(reason),
    }
}

#[inline(always)]
fn decide<F: Family, C: Context<F>>(c: &mut C, parsed: &Parsed<F::Addr>) -> Result<Verdict, DropReason> {
    let dst = parsed.tuple.dst;
    if dst.is_multicast() || dst.is_loopback() || parsed.tuple.src.is_loopback() {
        return Ok(Verdict::Stack);
    }
    if c.private_prefix(F::prefix_digest(&dst))
        && let Some(endpoint) = c.endpoint(&dst)
    {
        return match c.network(endpoint.network) {
            Some(network) if network.flags & NETWORK_ROUTED != 0 => Ok(Verdict::Stack),
            _ => Err(DropReason::NotPublished),
        };
    }
    let is_first = match parsed.transport {
        Transport::Tcp(_) => nat::is_syn(parsed),
        Transport::Udp => true,
        _ => false,
    };
    // A segment of no connection: the host's stack answers with a reset.
    if !is_first || parsed.header.fragment == Fragment::Later || !c.addressed_to_us() {
        return Ok(Verdict::Stack);
    }
    let Some(found) = published(c, &parsed.tuple) else { return Ok(Verdict::Stack) };
    to_published::<F, C>(c, parsed, &found)
}

#[inline(always)]
fn to_published<F: Family, C: Context<F>>(
    c: &mut C,
    parsed: &Parsed<F::Addr>,
    published: &Published<F::Addr>,
) -> Result<Verdict, DropReason> {
    let target = c.endpoint(&published.endpoint).ok_or(DropReason::EndpointGone)?;
    if c.route(&parsed.tuple, target.network) != Route::Local {
        // The port is published, but the packet is for another host.
        return Ok(Verdict::Stack);
    }
    if c.endpoint(&parsed.tuple.src).is_some() {
        return Err(DropReason::Spoofed);
    }
    let network = c.network(target.network).ok_or(DropReason::EndpointGone)?;
    if network.flags & NETWORK_INTERNAL != 0 {
        return Err(DropReason::Internal);
    }
    let mut translated = parsed.tuple;
    translated.dst = target.addr;
    translated.dport = published.endpoint_port(parsed.tuple.dport);
    let request = Request {
        first: parsed.tuple,
        translated,
        spans: ANY_PORT,
        keep_port: true,
        host_address: false,
        kind: Kind::Dnat,
        bits: first_bits(parsed),
    };
    let ways = Ways {
        forward_iif: 0,
        forward_oif: target.ifindex,
        forward_via: macs(&target),
        forward_flags: FLOW_TO_ENDPOINT,
        reverse_iif: target.ifindex,
        reverse_oif: 0,
        reverse_via: [0; 4],
        reverse_flags: 0,
    };
    start::<F, C>(c, parsed, &request, &ways)
}
