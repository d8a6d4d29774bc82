//! Telling an endpoint at once that its TCP segment goes nowhere: a reset (RFC 9293 section 3.5.2), made of the
//! segment itself.
//!
//! A reset and not an ICMP error: an error that arrives while `connect(2)` holds the socket only bites at the first
//! retransmission, a second later.

use crate::family::{Address, Family};
use crate::header::{ethernet, tcp};
use crate::nat::Context;
use crate::packet::{apply_difference, difference};
use crate::parse::Fragment;
use crate::verdict::{DropReason, Verdict};

/// Length of a TCP header without options.
const TCP_LEN: usize = 20;

/// The reasons that an endpoint is told about: what it sent was well-formed, and its own.
pub const TOLD: [DropReason; 8] = [
    DropReason::PortsExhausted,
    DropReason::TableFull,
    DropReason::NoFlow,
    DropReason::NoRoute,
    DropReason::UplinkNotAttached,
    DropReason::Internal,
    DropReason::Isolated,
    DropReason::EndpointGone,
];

/// Turns a refused segment into its answer. [`Verdict::REFUSED`]: it has none (a reset, another protocol).
#[inline(always)]
pub fn reset<F: Family, C: Context<F>>(c: &mut C) -> Verdict {
    match answer::<F, C>(c) {
        Some(()) => Verdict::to_endpoint(c.ifindex()),
        None => Verdict::REFUSED,
    }
}

#[inline(always)]
fn answer<F: Family, C: Context<F>>(c: &mut C) -> Option<()> {
    let l3 = c.l3();
    let header = F::read_header(c, l3)?;
    if header.proto != tcp::PROTO || header.fragment != Fragment::Whole {
        return None;
    }
    let l4 = header.transport(l3);
    let ports: u32 = c.load(l4 + tcp::PORTS)?;
    let seq: u32 = c.load(l4 + tcp::SEQUENCE)?;
    let ack: u32 = c.load(l4 + tcp::ACKNOWLEDGEMENT)?;
    let flags_word: u32 = c.load(l4 + tcp::FLAGS_WORD)?;
    let [offset, flags, ..] = flags_word.to_ne_bytes();
    if flags & tcp::RST != 0 {
        return None;
    }
    let data = header.total_len.checked_sub(u32::from(header.len) + u32::from(offset >> 4) * 4)?;
    let length = data + u32::from(flags & tcp::SYN != 0) + u32::from(flags & tcp::FIN != 0);
    let [new_seq, new_ack, new_flags] = if flags & tcp::ACK != 0 {
        [ack, 0, u32::from(tcp::RST)]
    } else {
        [0, u32::from_be(seq).wrapping_add(length).to_be(), u32::from(tcp::RST | tcp::ACK)]
    };
    let mut segment = [
        ports.rotate_left(16),
        new_seq,
        new_ack,
        u32::from_ne_bytes([(TCP_LEN as u8 / 4) << 4, new_flags as u8, 0, 0]),
        0,
    ];
    segment[4] = u32::from(checksum::<F>(&header.dst, &header.src, &segment));

    let macs: [u16; 6] = c.load(ethernet::MACS)?;
    let [a, b, d, e, f, g] = macs;
    c.truncate(l3 + F::HEADER_LEN + TCP_LEN)?;
    c.store(ethernet::MACS, &[e, f, g, a, b, d])?;
    F::write_new_header(c, l3, header.dst, header.src, tcp::PROTO, TCP_LEN as u16)?;
    c.store(l3 + F::HEADER_LEN, &segment)
}

/// The checksum of a TCP header without data, in the low half as it lies in the packet.
#[inline(always)]
fn checksum<F: Family>(src: &F::Addr, dst: &F::Addr, segment: &[u32; 5]) -> u16 {
    let pseudo = u32::from_ne_bytes([0, tcp::PROTO, 0, TCP_LEN as u8]);
    let sum = difference(&[], src.words(), pseudo);
    let sum = difference(&[], dst.words(), sum);
    let sum = difference(&[], segment, sum);
    // From a field of ones: the complement of nothing.
    apply_difference(u16::MAX, sum)
}
