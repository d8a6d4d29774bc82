//! Telling the sender of a packet that goes nowhere, at once (RFC 1122 3.2.2, RFC 1812 4.3.2, RFC 4443 2.4).
//!
//! TCP gets a reset and not an ICMP error where both would do: an error that arrives while `connect(2)` holds the
//! socket only bites at the first retransmission, a second later.

use crate::family::{Address, Family, IcmpKind, IcmpNotice};
use crate::header::{ethernet, icmp, tcp};
use crate::icmp_answer::{self, Answer};
use crate::nat::Context;
use crate::parse::{Fragment, Header};
use crate::rate;
use crate::reset;
use crate::verdict::{DropReason, Event, Verdict, mtu_in, reason_in};

/// Not let through: what an endpoint is told about.
const PROHIBITED: u64 = bits(&[
    DropReason::PortsExhausted,
    DropReason::TableFull,
    DropReason::FlowLimit,
    DropReason::UplinkNotAttached,
    DropReason::Internal,
    DropReason::NotAllowed,
    DropReason::Isolated,
    DropReason::UnsupportedProtocol,
    DropReason::AddressGone,
]);
/// The same from outside. What is internal, not published, or not for them is met with silence.
const PROHIBITED_OUTSIDE: u64 =
    bits(&[DropReason::PortsExhausted, DropReason::TableFull, DropReason::FlowLimit]);
const HOST_UNREACHABLE: u64 = bits(&[DropReason::HostUnreachable, DropReason::EndpointGone]);
/// What TCP is told by a reset.
const RESETS: u64 = bits(&[DropReason::NoFlow, DropReason::NoRoute, DropReason::EndpointGone]) | PROHIBITED;
/// Every reason that somebody may be told about. Never of packets that are forged, cut off, or for nobody here.
pub(crate) const TOLD: u64 = PROHIBITED
    | HOST_UNREACHABLE
    | RESETS
    | bits(&[DropReason::NoRoute, DropReason::TtlExceeded, DropReason::TooBig]);

/// What a sender outside is told about, as [`answer`] decides it.
const TOLD_OUTSIDE: u64 =
    PROHIBITED_OUTSIDE | HOST_UNREACHABLE | bits(&[DropReason::TtlExceeded, DropReason::TooBig]);

/// Whether somebody outside may be told about a drop for this reason.
#[inline(always)]
pub(crate) const fn tells_outside(reason: DropReason) -> bool {
    TOLD_OUTSIDE >> reason as u32 & 1 != 0
}

/// A bit for each reason.
const fn bits(reasons: &[DropReason]) -> u64 {
    let mut bits = 0;
    let mut i = 0;
    while i < reasons.len() {
        bits |= 1 << reasons[i] as u32;
        i += 1;
    }
    bits
}

/// Turns a refused packet into its answer, and sends it back to where it came from. `refused`: the number of its
/// verdict. [`Verdict::REFUSED`]: it has none.
#[inline(always)]
pub fn tell<F: Family, C: Context<F>>(c: &mut C, refused: u32) -> Verdict {
    let is_endpoint = c.sender(c.ifindex()).is_some();
    match answer::<F, C>(c, refused, is_endpoint) {
        Some(()) if is_endpoint => Verdict::to_endpoint(c.ifindex()),
        Some(()) => Verdict::to_link(c.ifindex()),
        None => Verdict::REFUSED,
    }
}

#[inline(always)]
fn answer<F: Family, C: Context<F>>(c: &mut C, refused: u32, is_endpoint: bool) -> Option<()> {
    let reason = reason_in(refused);
    let header = F::read_header(c, c.l3())?;
    if !may_be_told::<F, C>(c, &header) {
        return None;
    }
    if header.proto == tcp::PROTO && RESETS >> reason & 1 != 0 {
        if !is_endpoint && (PROHIBITED_OUTSIDE | HOST_UNREACHABLE) >> reason & 1 == 0 {
            return None;
        }
        // An endpoint may have as many resets as it sends segments.
        if !is_endpoint && !has_turn::<F, C>(c) {
            return None;
        }
        reset::build::<F, C>(c, &header)?;
        c.count(Event::TcpResets, 1);
        return Some(());
    }
    let notice = notice(reason, is_endpoint)?;
    if header.proto == F::ICMP && !is_echo::<F, C>(c, &header) {
        return None;
    }
    if !has_turn::<F, C>(c) {
        return None;
    }
    // From outside, the packet was addressed to this host.
    let src = if is_endpoint { gateway::<F, C>(c)? } else { header.dst };
    let detail = if notice == IcmpNotice::TooBig { mtu_in(refused) } else { 0 };
    icmp_answer::build::<F, C>(c, &Answer { src, dst: header.src, notice, detail, about: header.total_len })?;
    c.count(event(notice), 1);
    Some(())
}

/// RFC 1122 3.2.2: not about later fragments, nor what goes to many, nor to what is not one host's address.
#[inline(always)]
fn may_be_told<F: Family, C: Context<F>>(c: &C, header: &Header<F::Addr>) -> bool {
    /// In the first byte of a MAC: broadcast or multicast.
    const GROUP: u8 = 1;
    let is_unicast = c.load::<[u8; 2]>(ethernet::MACS).is_some_and(|[first, _]| first & GROUP == 0);
    is_unicast
        && header.fragment != Fragment::Later
        && F::is_one_host(&header.src)
        && !header.dst.is_multicast()
}

/// Of ICMP, only of echo messages: never about an error, nor about what may be one.
#[inline(always)]
fn is_echo<F: Family, C: Context<F>>(c: &C, header: &Header<F::Addr>) -> bool {
    let l4 = header.transport(c.l3());
    let Some([icmp_type, _code]) = c.load::<[u8; 2]>(l4 + icmp::FIRST_WORD) else { return false };
    matches!(F::icmp_kind(icmp_type), IcmpKind::EchoRequest | IcmpKind::EchoReply)
}

#[inline(always)]
fn notice(reason: u32, is_endpoint: bool) -> Option<IcmpNotice> {
    let is_one_of = |reasons: u64| reasons >> reason & 1 != 0;
    if is_one_of(bits(&[DropReason::TtlExceeded])) {
        Some(IcmpNotice::TimeExceeded)
    } else if is_one_of(bits(&[DropReason::TooBig])) {
        Some(IcmpNotice::TooBig)
    } else if is_one_of(HOST_UNREACHABLE) {
        Some(IcmpNotice::HostUnreachable)
    } else if is_one_of(if is_endpoint { PROHIBITED } else { PROHIBITED_OUTSIDE }) {
        Some(IcmpNotice::Prohibited)
    } else if is_endpoint && is_one_of(bits(&[DropReason::NoRoute])) {
        Some(IcmpNotice::NetworkUnreachable)
    } else {
        None
    }
}

#[inline(always)]
const fn event(notice: IcmpNotice) -> Event {
    match notice {
        IcmpNotice::TimeExceeded => Event::IcmpTimeExceeded,
        IcmpNotice::TooBig => Event::IcmpTooBig,
        IcmpNotice::NetworkUnreachable | IcmpNotice::HostUnreachable => Event::IcmpUnreachable,
        IcmpNotice::Prohibited => Event::IcmpProhibited,
    }
}

#[inline(always)]
fn has_turn<F: Family, C: Context<F>>(c: &C) -> bool {
    let now = c.nanoseconds();
    let has_turn = c.take_turn(c.ifindex(), |due| rate::take(due, now));
    if !has_turn {
        c.count(Event::AnswersSuppressed, 1);
    }
    has_turn
}

/// The address by which an endpoint knows this host.
#[inline(always)]
fn gateway<F: Family, C: Context<F>>(c: &C) -> Option<F::Addr> {
    let sender = c.sender(c.ifindex())?;
    Some(c.network(sender.network)?.gateway)
}
