//! ICMP errors are translated together with the packet that they quote (RFC 5508 section 4).
//!
//! An error travels against the packet it quotes, so it goes the way of that packet's answers: the entry whose key
//! is the quoted tuple reversed says what becomes of it, whoever sent the error and on whichever side. Errors make
//! no flow, refresh none and end none (RFC 5508 REQ-3, REQ-4).

use bytemuck::Zeroable as _;

use crate::family::{Address, Be16, Family, IcmpKind};
use crate::flow::{FLOW_NEXT_HOP_V6, FLOW_TO_ENDPOINT, Flow, OF_HOST, Pressure, Tuple};
use crate::header::{icmp, portless, sctp, tcp, udp};
use crate::icmp_answer::sum_of_pseudo_header;
use crate::nat::{self, Context, Known};
use crate::packet::{L4Fix, Packet, apply_difference, difference};
use crate::parse::{Fragment, Header};
use crate::reclaim::{self, Judged};
use crate::sum;
use crate::tables::{Flows, Scratch};
use crate::verdict::{DropReason, Event, Verdict};

/// Bytes from the ICMP header to the packet that it quotes.
const QUOTE: usize = 8;

/// Bytes that are quoted at least after the quoted network header (RFC 792).
const QUOTED_MIN: usize = 8;

/// A quoted packet.
#[derive(Clone, Copy, Debug)]
pub struct Quoted<A> {
    header: Header<A>,
    /// Its ports as they lie there, or in the low half its identifier.
    ports: u32,
    tuple: Tuple<A>,
    /// Where the quote ends: what follows in the frame is padding.
    end: usize,
}

impl<A: Address> Quoted<A> {
    /// A place for a packet that is to be read.
    pub fn unread() -> Self {
        Self { header: Header::unread(), ports: 0, tuple: Tuple::zeroed(), end: 0 }
    }
}

/// Translates an ICMP error that came by an endpoint's host veth, or by an uplink.
#[inline(always)]
pub fn translate<F: Family, C: Context<F>>(c: &mut C, scratch: &mut Scratch<F::Addr>) -> Verdict {
    let Scratch { known: Known { flow, .. }, quoted, .. } = scratch;
    let iif = if c.sender(c.ifindex()).is_some() { c.ifindex() } else { 0 };
    let Some(outer) = F::read_header(c, c.l3()) else { return Verdict::drop(DropReason::Malformed) };
    let l4 = outer.transport(c.l3());
    let end = c.l3() + outer.total_len as usize;
    if read_quoted::<F, C>(c, l4 + QUOTE, end, quoted).is_none() {
        return unmatched::<F, C>(c, &outer, iif);
    }
    let key = quoted.tuple.reversed();
    let Some(entry) = c.flows().get(&key) else { return unmatched::<F, C>(c, &outer, iif) };
    if !reclaim::read_alive(&entry, &key, flow) {
        return unmatched::<F, C>(c, &outer, iif);
    }
    // From outside, any router on the way may report; an endpoint reports for itself only.
    if flow.iif != iif || (iif != 0 && outer.src != key.src) {
        return Verdict::drop(DropReason::Spoofed);
    }
    if outer.dst != key.dst {
        return unmatched::<F, C>(c, &outer, iif);
    }
    if reclaim::remove_if_expired(c, &entry, &key, c.now(), Pressure::NONE) == Judged::Gone {
        return unmatched::<F, C>(c, &outer, iif);
    }
    if iif == 0 && !is_router::<F, C>(c, &outer.src) {
        return Verdict::drop(DropReason::Spoofed);
    }
    if outer.ttl <= 1 && flow.oif != OF_HOST {
        return Verdict::drop(DropReason::TtlExceeded);
    }
    if !checksum_is_right::<F, C>(c, &outer, l4, end) {
        return Verdict::drop(DropReason::BadChecksum);
    }
    if rewrite_quoted::<F, C>(c, l4, quoted, flow).is_none() {
        return Verdict::drop(DropReason::RewriteFailed);
    }
    let src = if outer.src == key.src { flow.src } else { outer.src };
    if rewrite_outer::<F, C>(c, l4, &outer, src, flow.dst).is_none() {
        return Verdict::drop(DropReason::RewriteFailed);
    }
    if flow.oif == OF_HOST {
        return Verdict::STACK;
    }
    c.count(Event::Packets, 1);
    c.count(Event::Bytes, c.len() as u64);
    if flow.flags & FLOW_TO_ENDPOINT == 0 {
        c.set_next_hop(flow.via, flow.flags & FLOW_NEXT_HOP_V6 != 0);
        return Verdict::to_next_hop(flow.oif);
    }
    nat::deliver(c, flow.oif, flow.via)
}

/// RFC 5508 REQ-3. Nobody leaves the checksum of an error to the device: it is whole.
#[inline(always)]
fn checksum_is_right<F: Family, C: Context<F>>(
    c: &C,
    outer: &Header<F::Addr>,
    l4: usize,
    end: usize,
) -> bool {
    let len = end - l4;
    let Some(sum) = sum::of_bytes(c, l4, len) else { return false };
    let sum = if F::ICMP_PSEUDO_HEADER {
        sum_of_pseudo_header::<F>(&outer.src, &outer.dst, len as u32, sum)
    } else {
        sum
    };
    apply_difference(u16::MAX, sum) == 0
}

/// Whether somebody outside can have this address (RFC 1812 5.3.7).
#[inline(always)]
fn is_router<F: Family, C: Context<F>>(c: &C, addr: &F::Addr) -> bool {
    let odd = *addr == F::Addr::UNSPECIFIED || addr.is_multicast() || addr.is_loopback();
    !odd && !nat::is_private::<F, C>(c, addr)
}

/// From outside it may be about a packet of the host's own; an endpoint has nobody else to report to.
#[inline(always)]
fn unmatched<F: Family, C: Context<F>>(c: &C, outer: &Header<F::Addr>, iif: u32) -> Verdict {
    if iif != 0 {
        Verdict::drop(DropReason::IcmpUnmatched)
    } else if nat::is_private::<F, C>(c, &outer.dst) {
        Verdict::drop(DropReason::NotPublished)
    } else {
        Verdict::STACK
    }
}

#[inline(always)]
fn read_quoted<F: Family, C: Packet>(
    c: &C,
    l3: usize,
    end: usize,
    quoted: &mut Quoted<F::Addr>,
) -> Option<()> {
    let header = F::read_header(c, l3)?;
    if header.fragment == Fragment::Later {
        return None;
    }
    let l4 = header.transport(l3);
    if l4 + QUOTED_MIN > end {
        return None;
    }
    quoted.header = header;
    quoted.end = end;
    let tuple = &mut quoted.tuple;
    (tuple.src, tuple.dst, tuple.proto) = (header.src, header.dst, header.proto);
    (tuple.sport, tuple.dport, tuple.pad) = (Be16::default(), Be16::default(), [0; 3]);
    if header.proto == F::ICMP {
        let first: u32 = c.load(l4)?;
        let identifier: Be16 = c.load(l4 + icmp::IDENTIFIER)?;
        match F::icmp_kind(first.to_ne_bytes()[0]) {
            IcmpKind::EchoRequest => tuple.sport = identifier,
            IcmpKind::EchoReply => tuple.dport = identifier,
            // An error about an error is never sent (RFC 1122 3.2.2).
            IcmpKind::Error | IcmpKind::Other => return None,
        }
        quoted.ports = u32::from(identifier.raw());
        return Some(());
    }
    if portless::is_address_free(header.proto) {
        quoted.ports = 0;
        return Some(());
    }
    if !matches!(header.proto, tcp::PROTO | udp::PROTO | sctp::PROTO) {
        return None;
    }
    quoted.ports = c.load(l4)?;
    [tuple.sport, tuple.dport] = bytemuck::cast(quoted.ports);
    Some(())
}

/// Gives the quoted packet the addresses and ports it had on the other side, and the ICMP checksum what changed.
#[inline(always)]
fn rewrite_quoted<F: Family, C: Packet>(
    c: &mut C,
    l4: usize,
    quoted: &Quoted<F::Addr>,
    flow: &Flow<F::Addr>,
) -> Option<()> {
    let quoted_l3 = l4 + QUOTE;
    let quoted_l4 = quoted.header.transport(quoted_l3);
    let (src, dst) = (flow.dst, flow.src);
    let addresses = {
        let sum = difference(quoted.header.src.words(), src.words(), 0);
        difference(quoted.header.dst.words(), dst.words(), sum)
    };
    let is_echo = quoted.header.proto == F::ICMP;
    let has_fixed_ports =
        quoted.header.proto == sctp::PROTO || portless::is_address_free(quoted.header.proto);
    let new_ports = if is_echo {
        // One of the two is the identifier, the other zero.
        u32::from(flow.sport.raw() | flow.dport.raw())
    } else {
        bytemuck::cast::<[Be16; 2], u32>([flow.dport, flow.sport])
    };
    let ports = difference(&[quoted.ports], &[new_ports], 0);
    // The quoted transport checksum, where it was quoted: it covers ports and, but for ICMP, addresses.
    let (checksum_at, covered) = match quoted.header.proto {
        tcp::PROTO => (quoted_l4 + tcp::CHECKSUM, sum_of(ports, addresses)),
        udp::PROTO => (quoted_l4 + udp::CHECKSUM, sum_of(ports, addresses)),
        _ if F::ICMP_PSEUDO_HEADER => (quoted_l4 + icmp::CHECKSUM, sum_of(ports, addresses)),
        _ => (quoted_l4 + icmp::CHECKSUM, ports),
    };
    let mut changed = ports;
    if !has_fixed_ports
        && checksum_at + size_of::<u16>() <= quoted.end
        && let Some(old) = c.load::<u16>(checksum_at)
        && !(quoted.header.proto == udp::PROTO && old == 0)
    {
        let new = match apply_difference(old, covered) {
            0 if quoted.header.proto == udp::PROTO => u16::MAX,
            new => new,
        };
        c.store(checksum_at, &new)?;
        changed = difference(&[u32::from(old)], &[u32::from(new)], changed);
    }
    if is_echo {
        c.store(quoted_l4 + icmp::IDENTIFIER, &(new_ports as u16))?;
    } else if !has_fixed_ports {
        c.store(quoted_l4, &new_ports)?;
    }
    F::write_quoted_header(c, quoted_l3, &quoted.header, src, dst)?;
    if !F::HAS_HEADER_CHECKSUM {
        changed = sum_of(changed, addresses);
    }
    // IPv4's header keeps its sum: what the addresses add, its own checksum takes.
    let fix =
        L4Fix { addresses: changed, pseudo_header: false, old_ports: 0, new_ports: 0, zero_is_none: false };
    c.fix_l4_checksum(l4 + icmp::CHECKSUM, &fix)
}

/// Two differences taken together.
#[inline(always)]
fn sum_of(a: u32, b: u32) -> u32 {
    difference(&[], &[a, b], 0)
}

/// The error's own addresses.
#[inline(always)]
fn rewrite_outer<F: Family, C: Packet>(
    c: &mut C,
    l4: usize,
    outer: &Header<F::Addr>,
    src: F::Addr,
    dst: F::Addr,
) -> Option<()> {
    if F::ICMP_PSEUDO_HEADER {
        let sum = difference(outer.src.words(), src.words(), 0);
        let addresses = difference(outer.dst.words(), dst.words(), sum);
        let fix = L4Fix { addresses, pseudo_header: true, old_ports: 0, new_ports: 0, zero_is_none: false };
        c.fix_l4_checksum(l4 + icmp::CHECKSUM, &fix)?;
    }
    F::write_header(c, c.l3(), outer, src, dst, outer.ttl.wrapping_sub(1), None)
}
