//! Opening the flow that a packet asks for.
//!
//! Who decides about packets without a flow ([`crate::outbound`], [`crate::inbound`], [`crate::own`]) says what flow is
//! wanted ([`Work::request`]) and no more: making it is the same for all of them, and so large that it is a program of
//! its own, which the verifier looks at once.

use crate::claim::claim;
use crate::family::Family;
use crate::flow::Kind;
use crate::nat::{self, Context};
use crate::parse::{Parsed, Transport};
use crate::tables::{Flows as _, Request, Scratch, Work};
use crate::timestamp;
use crate::verdict::{DropReason, Verdict};

/// The flow of [`Work::request`] is wanted by a packet that an endpoint or somebody outside has sent.
#[inline(always)]
pub(crate) fn ask<F: Family, C: Context<F>>(
    c: &C,
    parsed: &Parsed<F::Addr>,
    work: &mut Work<F::Addr>,
) -> Verdict {
    if parsed.header.ttl <= 1 {
        return Verdict::drop(DropReason::TtlExceeded);
    }
    if parsed.transport == Transport::Tcp && !timestamp::read::<F, C>(c, parsed, &mut work.segment) {
        return Verdict::drop(DropReason::Malformed);
    }
    Verdict::CLAIM
}

/// Claims what was asked for; the packet is looked at again from the start then. [`Verdict::CLAIM`]: ask once more, for
/// the network's next external address.
#[inline(always)]
pub fn open<F: Family, C: Context<F>>(c: &C, scratch: &mut Scratch<F::Addr>) -> Verdict {
    let work = &mut scratch.work;
    let reason = if has_gone::<F, C>(c, &work.request) {
        DropReason::AddressGone
    } else {
        match claim(c, work) {
            Ok(()) => return Verdict::FLOW_OPENED,
            Err(reason) => reason,
        }
    };
    if work.request.kind == Kind::Own as u8 && !is_taken::<F, C>(c, &work.request) {
        // The table has no room, and nobody else this tuple.
        return Verdict::STACK;
    }
    let may_move = matches!(reason, DropReason::PortsExhausted | DropReason::AddressGone);
    if may_move && take_next_address::<F, C>(c, &mut work.request) {
        return Verdict::CLAIM;
    }
    Verdict::drop(reason)
}

/// Whether a flow already has the tuple that a socket of the host sends with. (Out of line, as the others: where ports
/// are tried, the stack is short.)
#[inline(never)]
fn is_taken<F: Family, C: Context<F>>(c: &C, request: &Request<F::Addr>) -> bool {
    c.flows().get(&request.first.reversed()).is_some()
}

/// Whether the external address of a new flow was given and is not the host's any more: the kernel knows of its routes'
/// addresses, but not of this one.
#[inline(never)]
fn has_gone<F: Family, C: Context<F>>(c: &C, request: &Request<F::Addr>) -> bool {
    if request.kind != Kind::Snat as u8 || !request.is_given {
        return false;
    }
    match c.sender(request.forward.iif) {
        Some(sender) => !nat::is_local(c, request.translated.src, sender.network),
        None => false,
    }
}

/// On to the network's next external address, if it has one.
#[inline(never)]
fn take_next_address<F: Family, C: Context<F>>(c: &C, request: &mut Request<F::Addr>) -> bool {
    if !request.has_others {
        return false;
    }
    let Some(sender) = c.sender(request.forward.iif) else { return false };
    let Some(network) = c.network(sender.network) else { return false };
    request.spent_addresses += 1;
    let spent = request.spent_addresses;
    request.has_others = spent + 1 < network.snat_addresses;
    request.translated.src = network.external(&sender.addr, spent);
    spent < network.snat_addresses
}
