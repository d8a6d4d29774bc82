//! A TCP reset (RFC 9293 section 3.5.2), made of the segment that it answers.

use crate::family::{Address, Family};
use crate::header::tcp;
use crate::icmp_answer::turn_round;
use crate::nat::Context;
use crate::packet::{apply_difference, difference};
use crate::parse::{Fragment, Header, NewHeader};

/// Length of a TCP header without options.
const TCP_LEN: usize = 20;
/// What is replaced: every header that the segment may have had. Longer than most segments.
const HEADERS: usize = 128;

/// Turns a segment into its reset; none if it is to have none (it is one, or not whole).
#[inline(always)]
pub(crate) fn build<F: Family, C: Context<F>>(c: &mut C, header: &Header<F::Addr>) -> Option<()> {
    if header.fragment != Fragment::Whole {
        return None;
    }
    let l3 = c.l3();
    let segment = reset_to::<F, C>(c, header)?;
    c.resize(l3 + 2 * HEADERS)?;
    c.replace_head(HEADERS, F::HEADER_LEN + TCP_LEN)?;
    c.resize(l3 + F::HEADER_LEN + TCP_LEN)?;
    turn_round(c)?;
    let new =
        NewHeader { src: header.dst, dst: header.src, proto: tcp::PROTO, class: 0, payload: TCP_LEN as u16 };
    F::write_new_header(c, l3, &new)?;
    c.store(l3 + F::HEADER_LEN, &segment)
}

#[inline(always)]
fn reset_to<F: Family, C: Context<F>>(c: &C, header: &Header<F::Addr>) -> Option<[u32; 5]> {
    let l4 = header.transport(c.l3());
    let [ports, seq, ack, flags_word]: [u32; 4] = c.load(l4)?;
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
    Some(segment)
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
