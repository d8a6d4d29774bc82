//! What a TCP segment says of itself, its timestamp option (RFC 7323 3.2) included, and taking that option away.

use core::marker::PhantomData;

use crate::family::Family;
use crate::header::tcp;
use crate::nat::Context;
use crate::packet::{L4Fix, difference};
use crate::parse::Parsed;
use crate::tables::Step;
use crate::tcp::Segment;

/// Option kinds (RFC 9293 3.1, RFC 7323 3.2), and the length of a timestamp option.
const END: u8 = 0;
const NO_OPERATION: u8 = 1;
const TIMESTAMP: u8 = 8;
const TIMESTAMP_LEN: usize = 10;

/// How nearly every segment but a SYN carries it: behind two no-operations, so that its words are aligned.
const USUAL: u32 = u32::from_ne_bytes([NO_OPERATION, NO_OPERATION, TIMESTAMP, TIMESTAMP_LEN as u8]);

/// More than the length of any header, all ones: the masks with it change nothing. The verifier wants to see how far
/// into the packet is read.
const MAX_HEADER: usize = 63;

/// Options that are looked at: the longest order of a known stack has the timestamp in the sixth place.
const MAX_OPTIONS: u32 = 12;

/// Reads a TCP segment again, with what only the ends of a connection need to know. False: it is cut off.
#[inline(never)]
pub fn read<F: Family, C: Context<F>>(packet: &C, parsed: &Parsed<F::Addr>, segment: &mut Segment) -> bool {
    let l4 = parsed.header.transport(packet.l3());
    let Some([_ports, sequence, acknowledgement, word]) = packet.load::<[u32; 4]>(l4 + tcp::PORTS) else {
        return false;
    };
    let [offset, flags, ..] = word.to_ne_bytes();
    let header = (offset >> 4) as usize * 4;
    let total = match parsed.header.total_len {
        // An aggregated packet of 64 KiB and more (BIG TCP).
        0 => packet.len() - packet.l3(),
        total => total as usize,
    };
    let data = total.saturating_sub(parsed.header.len as usize + header) as u32;
    let counted = data + u32::from(flags & tcp::SYN != 0) + u32::from(flags & tcp::FIN != 0);
    segment.sequence = u32::from_be(sequence);
    segment.end = segment.sequence.wrapping_add(counted);
    segment.acknowledgement = u32::from_be(acknowledgement);
    segment.flags = u32::from(flags);
    (segment.timestamp, segment.echo, segment.option_at) = (0, 0, 0);
    if header < tcp::LEN + TIMESTAMP_LEN {
        return true;
    }
    let at = match packet.load::<u32>(l4 + tcp::LEN) {
        Some(USUAL) => tcp::LEN as u32 + 2,
        _ => find::<F, C>(packet, l4, header),
    };
    let value = l4 + (at as usize & MAX_HEADER) + 2;
    if at != 0
        && let Some([timestamp, echo]) = packet.load::<[u32; 2]>(value)
    {
        segment.option_at = at;
        segment.timestamp = u32::from_be(timestamp).max(1);
        segment.echo = u32::from_be(echo);
    }
    true
}

/// Where the timestamp option of the header of `header` bytes at `l4` is; 0: nowhere.
#[inline(never)]
fn find<F: Family, C: Context<F>>(c: &C, l4: usize, header: usize) -> u32 {
    let mut walk = Walk { c, l4, header, at: tcp::LEN, found: 0, family: PhantomData };
    c.repeat(MAX_OPTIONS, &mut walk);
    walk.found
}

struct Walk<'a, F, C> {
    c: &'a C,
    l4: usize,
    header: usize,
    at: usize,
    found: u32,
    family: PhantomData<F>,
}

impl<F: Family, C: Context<F>> Step for Walk<'_, F, C> {
    #[inline(always)]
    fn step(&mut self, _i: u32) -> bool {
        let at = self.at & MAX_HEADER;
        if at + 2 > self.header {
            return false;
        }
        let Some([kind, length]) = self.c.load::<[u8; 2]>(self.l4 + at) else { return false };
        let length = length as usize;
        if kind == TIMESTAMP && length == TIMESTAMP_LEN && at + TIMESTAMP_LEN <= self.header {
            self.found = at as u32;
            return false;
        }
        self.at = at + if kind == NO_OPERATION { 1 } else { length };
        kind != END && (kind == NO_OPERATION || length >= 2) && self.at <= MAX_HEADER
    }
}

/// Overwrites a segment's timestamp option by no-operations. None: the packet is unusable now.
#[inline(always)]
pub fn strip<F: Family, C: Context<F>>(
    packet: &mut C,
    parsed: &Parsed<F::Addr>,
    segment: &Segment,
) -> Option<()> {
    if segment.option_at == 0 {
        return Some(());
    }
    let option = segment.option_at as usize & MAX_HEADER;
    let l4 = parsed.header.transport(packet.l3());
    let at = l4 + option;
    let old: [u8; TIMESTAMP_LEN] = packet.load(at)?;
    let new = [NO_OPERATION; TIMESTAMP_LEN];
    let changed = difference(&words(old), &words(new), 0);
    let fix = L4Fix {
        // At an odd place, each byte counts as the other half of its 16-bit word (RFC 1071 2).
        addresses: if option.is_multiple_of(2) { changed } else { changed.rotate_left(8) },
        pseudo_header: false,
        old_ports: 0,
        new_ports: 0,
        zero_is_none: false,
    };
    packet.fix_l4_checksum(l4 + tcp::CHECKSUM, &fix)?;
    packet.store(at, &new)
}

#[inline(always)]
fn words([a, b, c, d, e, f, g, h, i, j]: [u8; TIMESTAMP_LEN]) -> [u32; 3] {
    [[a, b, c, d], [e, f, g, h], [i, j, 0, 0]].map(u32::from_ne_bytes)
}
