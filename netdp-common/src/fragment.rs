//! Fragments: only the first one of a datagram has the ports. What it became is remembered by the datagram's
//! identification, and the later ones become the same (RFC 4787 REQ-14). Those that overtake it wait for it, see
//! [`waiting`].

use crate::family::Family;
use crate::firewall;
use crate::flow::{FLOW_BY_STACK, FLOW_TO_ENDPOINT, Flow, FragmentKey, FragmentWay, Kind};
use crate::nat::{self, Context, Known};
use crate::parse::{Fragment, Header, Parsed, parse};
use crate::reclaim;
use crate::rewrite::rewrite;
use crate::tables::Flows;
use crate::verdict::{DropReason, Event, Verdict};
use crate::waiting;

/// Ticks for which it is remembered: a receiver waits 30 s for the rest (RFC 791, Linux), or less.
const REMEMBERED: u32 = 30;

/// A fragment from an endpoint or from outside. [`Verdict::NO_FLOW_YET`]: as [`nat::from_container`] and
/// [`nat::from_world`] say it.
#[inline(always)]
pub fn carry<F: Family, C: Context<F>>(c: &mut C, known: &mut Known<F::Addr>) -> Verdict {
    if !parse::<F, C>(c, &mut known.parsed) {
        return Verdict::drop(DropReason::Malformed);
    }
    let iif = interface::<F, C>(c);
    if known.parsed.header.fragment != Fragment::Later {
        return nat::established::<F, C, true>(c, known, iif);
    }
    let Known { parsed: Parsed { header, .. }, flow } = known;
    if !find::<F, C>(c, header, flow) {
        return Verdict::NO_FLOW_YET;
    }
    if flow.iif != iif {
        return Verdict::drop(DropReason::Spoofed);
    }
    if nat::takes_stack(c, flow) {
        return Verdict::STACK;
    }
    if header.ttl <= 1 {
        return Verdict::drop(DropReason::TtlExceeded);
    }
    let is_delivered = flow.flags & FLOW_TO_ENDPOINT != 0;
    if c.len() > c.l3() + flow.mtu as usize && !is_delivered {
        return nat::too_big::<F, C>(c, flow.mtu);
    }
    let ttl = nat::ttl_after(flow, header.ttl);
    if F::write_header(c, c.l3(), header, flow.src, flow.dst, ttl, None).is_none() {
        return Verdict::drop(DropReason::RewriteFailed);
    }
    nat::send_on::<F, C>(c, flow)
}

/// A later fragment whose first one has not come: a copy waits. `to_host`: the stack gets it, too, since it may be the
/// host's own. [`Verdict::FRAGMENT`]: the first one has come meanwhile.
#[inline(always)]
pub fn wait<F: Family, C: Context<F>>(c: &mut C, known: &mut Known<F::Addr>, to_host: bool) -> Verdict {
    let Known { parsed, flow } = known;
    if !parse::<F, C>(c, parsed) {
        return Verdict::drop(DropReason::Malformed);
    }
    let in_vain = if to_host { Verdict::STACK } else { Verdict::drop(DropReason::Fragment) };
    let Some(key) = key::<F, C>(c, &parsed.header) else { return in_vain };
    let Some(waiting) = waiting::put::<F, C>(c, &key, interface::<F, C>(c), !to_host) else { return in_vain };
    // Whoever carried the first one in between may not have seen this one.
    if find::<F, C>(c, &parsed.header, flow) {
        return if waiting::take_back(&waiting) { Verdict::FRAGMENT } else { Verdict::WAIT };
    }
    c.count(Event::FragmentsHeld, 1);
    if to_host { Verdict::STACK } else { Verdict::WAIT }
}

/// Notes what a datagram becomes of which this may be the first fragment, and lets that and those that wait for it come
/// in once more; false if none does. (The host's own keep their addresses.)
#[inline(always)]
pub(crate) fn leads<F: Family, C: Context<F>>(
    c: &mut C,
    parsed: &Parsed<F::Addr>,
    flow: &Flow<F::Addr>,
    iif: u32,
) -> bool {
    if flow.kind == Kind::Own as u8 {
        return false;
    }
    remember::<F, C>(c, parsed, flow);
    let_in_again::<F, C>(c, parsed, iif)
}

/// Lets a datagram's first fragment, and those that wait for it, come in once more; false if none does. Out of
/// line, as [`remember`].
#[inline(never)]
fn let_in_again<F: Family, C: Context<F>>(c: &mut C, parsed: &Parsed<F::Addr>, iif: u32) -> bool {
    if parsed.header.fragment != Fragment::First {
        return false;
    }
    let Some(key) = key::<F, C>(c, &parsed.header) else { return false };
    waiting::release::<F, C>(c, &key, iif)
}

/// The host veth that a packet came by; 0: from outside.
#[inline(always)]
fn interface<F: Family, C: Context<F>>(c: &C) -> u32 {
    if c.sender(c.ifindex()).is_some() { c.ifindex() } else { 0 }
}

/// A packet with an endpoint's address on its way out by an uplink: the stack had it to fragment it (see
/// `nat::too_big`), or for the host's firewall to decide about it, and routed it. It is translated as it would have been
/// before, if there is a flow.
#[inline(always)]
pub fn leave<F: Family, C: Context<F>>(c: &mut C, known: &mut Known<F::Addr>) -> Verdict {
    match translate::<F, C>(c, known) {
        Some(()) => {
            if known.flow.flags & FLOW_BY_STACK != 0 {
                c.count(Event::Packets, 1);
                c.count(Event::Bytes, c.len() as u64);
            }
            Verdict::STACK
        }
        None => Verdict::drop(DropReason::Untranslated),
    }
}

#[inline(always)]
fn translate<F: Family, C: Context<F>>(c: &mut C, known: &mut Known<F::Addr>) -> Option<()> {
    let Known { parsed, flow } = known;
    if !parse::<F, C>(c, parsed) {
        return None;
    }
    let header = &parsed.header;
    if header.fragment == Fragment::Later {
        if !find::<F, C>(c, header, flow) || flow.flags & FLOW_TO_ENDPOINT != 0 {
            return None;
        }
        return F::write_header(c, c.l3(), header, flow.src, flow.dst, header.ttl, None);
    }
    if !parsed.has_flow() {
        return None;
    }
    let entry = c.flows().get(&parsed.tuple)?;
    if !reclaim::read_alive(&entry, &parsed.tuple, flow) || flow.flags & FLOW_TO_ENDPOINT != 0 {
        return None;
    }
    remember::<F, C>(c, parsed, flow);
    // The host's own are nobody's whom FORWARD was asked about; elsewhere, the fast path would not lead.
    if !c.is_own() && flow.oif == c.ifindex() {
        firewall::note_let_through(c, &entry, flow, parsed);
    }
    rewrite::<F, C>(c, parsed, flow, header.ttl)
}

/// Remembers what a datagram becomes, if this is its first fragment. Out of line, as [`find`]: the stack is short.
#[inline(never)]
fn remember<F: Family, C: Context<F>>(c: &C, parsed: &Parsed<F::Addr>, flow: &Flow<F::Addr>) {
    if parsed.header.fragment != Fragment::First {
        return;
    }
    let Some(key) = key::<F, C>(c, &parsed.header) else { return };
    let Flow { src, dst, oif, via, iif, mtu, flags, .. } = *flow;
    c.set_fragment(
        &key,
        &FragmentWay { src, dst, oif, via, iif, seen: c.now(), mtu, flags: u16::from(flags) },
    );
}

/// Finds what a datagram's first fragment became: puts it into `flow`, as far as it is remembered.
#[inline(never)]
fn find<F: Family, C: Context<F>>(c: &C, header: &Header<F::Addr>, flow: &mut Flow<F::Addr>) -> bool {
    let Some(key) = key::<F, C>(c, header) else { return false };
    let Some(way) = c.fragment(&key) else { return false };
    if c.now().wrapping_sub(way.seen) > REMEMBERED {
        return false;
    }
    (flow.src, flow.dst, flow.iif, flow.mtu) = (way.src, way.dst, way.iif, way.mtu);
    (flow.oif, flow.via, flow.flags) = (way.oif, way.via, way.flags as u8);
    true
}

#[inline(always)]
fn key<F: Family, C: Context<F>>(c: &C, header: &Header<F::Addr>) -> Option<FragmentKey<F::Addr>> {
    let id = F::fragment_id(c, c.l3(), header)?;
    Some(FragmentKey { src: header.src, dst: header.dst, id, proto: u32::from(header.proto) })
}
