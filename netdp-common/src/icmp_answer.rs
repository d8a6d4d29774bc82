//! An ICMP error (RFC 792, RFC 4443), made of the packet that it is about.

use crate::family::{Address, Family, IcmpNotice};
use crate::header::{ethernet, icmp};
use crate::nat::Context;
use crate::packet::{Packet, apply_difference, difference};
use crate::parse::NewHeader;
use crate::sum::Sum;

/// An error to be built.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer<A> {
    /// Who reports.
    pub src: A,
    /// To whom.
    pub dst: A,
    /// What.
    pub notice: IcmpNotice,
    /// The second word of the ICMP header, host byte order.
    pub detail: u32,
    /// Length of the packet it is about, as its header tells; 0: longer than that can tell.
    pub about: u32,
}

/// Words that are summed up at a time.
const STEP_WORDS: usize = 16;
/// Words of the packet that are put aside while there is something else in their place. As long as an IPv4 header can
/// be and more, so that a transport checksum that is left to the device starts before their end.
const HEAD_WORDS: usize = 19;
const HEAD: usize = HEAD_WORDS * size_of::<u32>();
/// Type of service of what keeps a network going: "internetwork control" (RFC 1812 4.3.2.5).
const CLASS: u8 = 0xc0;

/// Turns a packet into an error about it, which quotes it as it is now.
#[inline(always)]
pub(crate) fn build<F: Family, C: Context<F>>(c: &mut C, answer: &Answer<F::Addr>) -> Option<()> {
    let (l3, headers) = (c.l3(), F::HEADER_LEN + icmp::LEN);
    let length = c.len().checked_sub(l3)?;
    let told = if answer.about == 0 { length } else { answer.about as usize };
    let quote = length.min(told).min(F::ICMP_ERROR_MAX - headers);
    // Zeros behind it change no sum.
    c.resize(l3 + quote)?;
    let step = Sum::<C, STEP_WORDS>::STEP;
    let steps = (F::ICMP_ERROR_MAX - headers).div_ceil(step);
    c.resize(l3 + steps * step)?;
    let sum = Sum::<C, STEP_WORDS>::of(&*c, &*c, l3, steps, 0)?;

    let head: [u32; HEAD_WORDS] = c.load(l3)?;
    c.replace_head(HEAD, headers + HEAD)?;
    c.store(l3 + headers, &head)?;
    let payload = (icmp::LEN + quote) as u16;
    let [icmp_type, code] = F::icmp_error(answer.notice);
    let first = u32::from_ne_bytes([icmp_type, code, 0, 0]);
    let detail = answer.detail.to_be();
    let sum = sum_of_header::<F>(answer, payload, difference(&[], &[first, detail], sum));
    let [high, low] = apply_difference(u16::MAX, sum).to_ne_bytes();
    c.store(l3 + F::HEADER_LEN, &[u32::from_ne_bytes([icmp_type, code, high, low]), detail])?;
    let new = NewHeader { src: answer.src, dst: answer.dst, proto: F::ICMP, class: CLASS, payload };
    F::write_new_header(c, l3, &new)?;
    turn_round(c)?;
    c.resize(l3 + headers + quote)
}

/// Sends a frame back to where it came from.
#[inline(always)]
pub(crate) fn turn_round<P: Packet>(packet: &mut P) -> Option<()> {
    let [a, b, c, d, e, f]: [u16; 6] = packet.load(ethernet::MACS)?;
    packet.store(ethernet::MACS, &[d, e, f, a, b, c])
}

/// Adds what else the checksum covers.
#[inline(always)]
fn sum_of_header<F: Family>(answer: &Answer<F::Addr>, payload: u16, sum: u32) -> u32 {
    if !F::ICMP_PSEUDO_HEADER {
        return sum;
    }
    sum_of_pseudo_header::<F>(&answer.src, &answer.dst, payload.into(), sum)
}

/// The pseudo-header of ICMPv6 (RFC 8200 8.1), added to a sum.
#[inline(always)]
pub(crate) fn sum_of_pseudo_header<F: Family>(src: &F::Addr, dst: &F::Addr, len: u32, sum: u32) -> u32 {
    let sum = difference(&[], dst.words(), difference(&[], src.words(), sum));
    difference(&[], &[len.to_be(), u32::from(F::ICMP).to_be()], sum)
}
