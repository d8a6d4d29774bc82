//! The sum over a stretch of a packet, of which Internet checksums are made (RFC 1071).

use bytemuck::Pod;

use crate::family::Address;
use crate::packet::{Packet, difference};
use crate::tables::{Host, Step};

/// Bound of the steps that the verifier sees, a power of two.
const MAX_STEPS: usize = 256;
/// Bound of where a sum starts, a power of two.
const MAX_START: usize = 1 << 15;

/// A sum in the making, so many words a step.
pub(crate) struct Sum<'a, P, const WORDS: usize> {
    packet: &'a P,
    start: usize,
    sum: u32,
    /// False: the packet is shorter. (An `Option` would have a payload that is not always written.)
    is_whole: bool,
}

impl<'a, P: Packet, const WORDS: usize> Sum<'a, P, WORDS>
where
    [u32; WORDS]: Pod,
{
    /// Bytes of a step.
    pub(crate) const STEP: usize = WORDS * size_of::<u32>();

    /// Adds so many steps from `start` on to a sum; none: the packet is shorter. There are at most [`MAX_STEPS`], and
    /// they begin before [`MAX_START`].
    #[inline(always)]
    pub(crate) fn of<A: Address, H: Host<A>>(
        host: &H,
        packet: &'a P,
        start: usize,
        steps: usize,
        sum: u32,
    ) -> Option<u32> {
        let mut sum = Self { packet, start, sum, is_whole: true };
        host.repeat(steps as u32, &mut sum);
        if sum.is_whole { Some(sum.sum) } else { None }
    }
}

impl<P: Packet, const WORDS: usize> Step for Sum<'_, P, WORDS>
where
    [u32; WORDS]: Pod,
{
    #[inline(always)]
    fn step(&mut self, i: u32) -> bool {
        // The masks change nothing: the verifier wants to see how far into the packet this reads.
        let at = (self.start & (MAX_START - 1)) + (i as usize & (MAX_STEPS - 1)) * Self::STEP;
        let Some(words) = self.packet.load::<[u32; WORDS]>(at) else {
            self.is_whole = false;
            return false;
        };
        self.sum = difference(&[], &words, self.sum);
        true
    }
}

/// The sum of so many bytes from `start` on, a word at least, as if zeros followed; none: the packet is shorter.
#[inline(always)]
pub(crate) fn of_bytes<A: Address, C: Packet + Host<A>>(c: &C, start: usize, len: usize) -> Option<u32> {
    /// Words of a step while there are enough.
    const MANY: usize = 16;
    let (many, one) = (Sum::<C, MANY>::STEP, Sum::<C, 1>::STEP);
    let (end, left) = (start + len, len % many);
    let sum = Sum::<C, MANY>::of(c, c, start, len / many, 0)?;
    let sum = Sum::<C, 1>::of(c, c, end - left, left / one, sum)?;
    let rest = len % one;
    if rest == 0 {
        return Some(sum);
    }
    // The last word has bytes that are in the sum already: out with them. (The verifier understands no check of a
    // single byte.)
    let last: [u8; 4] = c.load((end - one) & (MAX_START - 1))?;
    let last = u32::from_be_bytes(last) << (u8::BITS * (one - rest) as u32);
    Some(difference(&[], &[last.to_be()], sum))
}
