//! The host's own sockets beside mappings: no two of them with one tuple, whichever came first.
//!
//! A mapping never takes a port with which a socket of the host talks to the same remote ([`crate::tables::Host::host_socket`]). A
//! socket that takes the port of a living mapping later, and sends to that mapping's remote, nobody asks: what it
//! sends is noticed on its way out, and gets a mapping of its own, from the same table and by the same claim. The
//! remote sees another port then, and what it answers gets the socket's port back before the stack has it.
//!
//! Sockets that ping can't be looked up. Each echo request of the host claims its identifier in the table, and keeps it
//! if no mapping has it.

use crate::closing;
use crate::family::{Be16, Family};
use crate::flow::{Kind, OF_HOST, Pressure};
use crate::header::{tcp, udp};
use crate::icmp_error;
use crate::meta::{self, Meta};
use crate::nat::{self, Context, Known};
use crate::outbound::ANY_PORT;
use crate::parse::{Fragment, Header, Parsed, Transport, parse, parse_again};
use crate::reclaim::{self, Judged};
use crate::rewrite::rewrite;
use crate::tables::{Entry as _, Flows as _, Scratch, Way};
use crate::timestamp;
use crate::verdict::{DropReason, Verdict};

/// Whether a packet on its way out must be looked at: the host's own, with a port that a mapping may have.
#[inline(always)]
pub(crate) fn is_concerned<F: Family, C: Context<F>>(c: &C, header: &Header<F::Addr>) -> bool {
    if !c.is_own() || header.fragment == Fragment::Later {
        return false;
    }
    match header.proto {
        tcp::PROTO | udp::PROTO => match c.load::<Be16>(header.transport(c.l3())) {
            Some(port) => c.may_be_mapped(port.get()),
            None => false,
        },
        proto => proto == F::ICMP,
    }
}

/// A packet of the host's own on its way out. [`Verdict::NO_FLOW_YET`]: ask [`open`]; [`Verdict::CLOSING`]:
/// [`closing::follow`].
#[inline(always)]
pub fn leave<F: Family, C: Context<F>>(c: &mut C, known: &mut Known<F::Addr>) -> Verdict {
    let Known { parsed, flow } = known;
    if !parse::<F, C>(c, parsed) {
        return Verdict::STACK;
    }
    if parsed.transport == Transport::IcmpError
        && c.config().is_some_and(|config| config.honours_firewall != 0)
    {
        return Verdict::NO_FLOW_YET;
    }
    if !matches!(parsed.transport, Transport::Tcp | Transport::Udp | Transport::EchoRequest) {
        return Verdict::STACK;
    }
    let Some(entry) = c.flows().get(&parsed.tuple) else { return without_flow::<F, C>(c, parsed) };
    if !reclaim::read_alive(&entry, &parsed.tuple, flow) {
        return without_flow::<F, C>(c, parsed);
    }
    if flow.iif != OF_HOST {
        return Verdict::STACK;
    }
    let (meta, bits, now) = (Meta(flow.meta), meta::bits_of_tcp(parsed.tcp_flags), c.now());
    // The port may be another's already while this entry is still there.
    let Some(answer) = c.flows().get(&reclaim::other_key(flow, parsed.tuple.proto)) else {
        return Verdict::NO_FLOW_YET;
    };
    if answer.meta().generation() != meta.generation() {
        return Verdict::NO_FLOW_YET;
    }
    closing::note_acknowledgement(&entry, meta, parsed);
    if meta.seen() != now || meta.bits() & (bits | Meta::CLOSING) != bits || nat::is_syn(parsed) {
        if reclaim::remove_if_expired(c, &entry, &parsed.tuple, now, Pressure::NONE) == Judged::Gone {
            return without_flow::<F, C>(c, parsed);
        }
        if closing::concerns(bits, flow, nat::is_syn(parsed)) {
            return Verdict::CLOSING;
        }
        if !nat::refresh::<F, C>(c, &entry, flow, parsed, bits) {
            return Verdict::NO_FLOW_YET;
        }
    }
    match rewrite::<F, C>(c, parsed, flow, parsed.header.ttl) {
        Some(()) => Verdict::STACK,
        None => Verdict::drop(DropReason::RewriteFailed),
    }
}

/// What has no flow gets one if it must: a mapping has its tuple, or nobody else could tell one that it is taken.
#[inline(always)]
fn without_flow<F: Family, C: Context<F>>(c: &C, parsed: &Parsed<F::Addr>) -> Verdict {
    let is_needed = match parsed.transport {
        Transport::EchoRequest => true,
        // In the middle of a connection another port would be another connection.
        Transport::Tcp if !nat::is_syn(parsed) => false,
        _ => c.flows().get(&parsed.tuple.reversed()).is_some(),
    };
    if is_needed { Verdict::NO_FLOW_YET } else { Verdict::STACK }
}

/// Asks for a port for what [`leave`] has found without one ([`Verdict::CLAIM`]: [`crate::opening::open`]). An ICMP error:
/// about what the host's stack had with an endpoint's address.
#[inline(always)]
pub fn open<F: Family, C: Context<F>>(c: &mut C, scratch: &mut Scratch<F::Addr>) -> Verdict {
    let Scratch { known: Known { parsed, flow }, work, quoted } = scratch;
    if !parse_again::<F, C>(c, parsed) {
        return Verdict::STACK;
    }
    if parsed.transport == Transport::IcmpError {
        let is_whole = icmp_error::leave::<F, C>(c, &parsed.header, flow, quoted);
        return if is_whole { Verdict::STACK } else { Verdict::drop(DropReason::RewriteFailed) };
    }
    if parsed.transport == Transport::Tcp && !timestamp::read::<F, C>(c, parsed, &mut work.segment) {
        return Verdict::STACK;
    }
    let request = &mut work.request;
    (request.first, request.translated) = (parsed.tuple, parsed.tuple);
    request.spans = ANY_PORT;
    request.only_port = false;
    request.keep_port = parsed.transport == Transport::EchoRequest;
    request.has_others = false;
    request.host_address = true;
    request.kind = Kind::Own as u8;
    request.timeouts = 0;
    let to_stack = Way { iif: 0, oif: OF_HOST, via: [0; 4], mtu: u16::MAX, flags: 0 };
    request.forward = Way { iif: OF_HOST, ..to_stack };
    request.reverse = to_stack;
    Verdict::CLAIM
}
