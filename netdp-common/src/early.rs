//! A frame from outside before the kernel has made a socket buffer of it (XDP).
//!
//! What [`crate::nat::from_world`] would drop without a word is dropped here, with the same reason: a flood that nobody
//! is told about costs no socket buffer. Everything else is left as it is for that hook to decide, whatever is
//! answered among it. So is what it looks up elsewhere than in the flow table: fragments and ICMP errors.

use crate::family::Family;
use crate::inbound;
use crate::nat::{Context, Known};
use crate::parse::{Fragment, Transport, parse_again};
use crate::reclaim;
use crate::refusal;
use crate::tables::{Flows, Scratch};
use crate::verdict::Verdict;

/// [`Verdict::STACK`], or a drop that nobody is told about.
#[inline(always)]
pub fn refuse<F: Family, C: Context<F>>(c: &C, scratch: &mut Scratch<F::Addr>) -> Verdict {
    let Scratch { known: Known { parsed, flow }, work, .. } = scratch;
    if !parse_again::<F, C>(c, parsed) {
        return inbound::malformed::<F, C>(c);
    }
    if parsed.header.fragment != Fragment::Whole || parsed.transport == Transport::IcmpError {
        return Verdict::STACK;
    }
    if parsed.has_flow()
        && let Some(entry) = c.flows().get(&parsed.tuple)
        && reclaim::read_alive(&entry, &parsed.tuple, flow)
    {
        return Verdict::STACK;
    }
    match inbound::decide::<F, C>(c, parsed, work) {
        Err(reason) if !refusal::tells_outside(reason) => Verdict::drop(reason),
        _ => Verdict::STACK,
    }
}
