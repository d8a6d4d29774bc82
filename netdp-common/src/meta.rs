//! The one word of a flow entry that changes: generation, what its direction has shown, and when.

use crate::header::tcp;

/// The clock of flow lifetimes: 2^30 ns, about 1.07 s, so that a shift makes it from the kernel's coarse clock.
pub const NANOSECONDS_PER_TICK: u64 = 1 << 30;

/// Coarse nanoseconds since boot to ticks.
#[inline(always)]
pub const fn ticks(nanoseconds: u64) -> u32 {
    (nanoseconds >> 30) as u32
}

/// Seconds to ticks, rounded up.
pub const fn ticks_from_seconds(seconds: u32) -> u32 {
    (seconds as u64 * 1_000_000_000).div_ceil(NANOSECONDS_PER_TICK) as u32
}

/// Ticks to seconds, rounded down.
pub const fn seconds_from_ticks(ticks: u32) -> u64 {
    ticks as u64 * NANOSECONDS_PER_TICK / 1_000_000_000
}

/// Generation (24 bits), bits of this direction (8), whether the host's rules have let it through (1), tick of its last
/// packet (31: 73 years).
///
/// Both entries of a flow carry the same generation; another flow with the same tuple has another one.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Meta(pub u64);

impl Meta {
    /// TCP: one side has sent a FIN or a RST; set in both entries, before anything else of that is.
    pub const CLOSING: u8 = 0x01;
    /// This direction sent an acknowledgement.
    pub const ACK: u8 = 0x02;
    /// This direction sent a FIN.
    pub const FIN: u8 = 0x04;
    /// This direction sent a RST; without [`Self::CLOSED`] it is not believed yet.
    pub const RST: u8 = 0x08;
    /// This direction has had a packet at all.
    pub const ACTIVE: u8 = 0x10;
    /// Not TCP: this direction has had packets in different ticks.
    pub const STREAM: u8 = 0x20;
    /// TCP: both sides have closed and know it, or one was reset; set in both entries.
    pub const CLOSED: u8 = 0x20;
    /// Somebody writes to the rest of the entry: it must not be removed now.
    pub const HELD: u8 = 0x40;
    /// The flow is being removed: whoever finds it so, finds nothing.
    pub const DYING: u8 = 0x80;

    /// The host's rules let this direction through in the tick of [`Self::seen`], see [`crate::firewall`].
    const LET_THROUGH: u64 = 1 << 31;
    /// See [`Self::seen`].
    const SEEN: u64 = Self::LET_THROUGH - 1;

    /// Of no living entry.
    pub const GONE: Self = Self(u64::MAX);

    /// A new entry's.
    #[inline(always)]
    pub const fn new(generation: u32, bits: u8, seen: u32) -> Self {
        Self(((generation as u64 & 0xff_ffff) << 40) | ((bits as u64) << 32) | seen as u64)
    }

    /// Generation, 24 bits.
    #[inline(always)]
    pub const fn generation(self) -> u32 {
        (self.0 >> 40) as u32
    }

    /// What of the generation the other end of an entry repeats.
    #[inline(always)]
    pub const fn tag(self) -> u16 {
        (self.0 >> 40) as u16
    }

    /// Bits of this direction.
    #[inline(always)]
    pub const fn bits(self) -> u8 {
        (self.0 >> 32) as u8
    }

    /// Tick of this direction's last packet.
    #[inline(always)]
    pub const fn seen(self) -> u32 {
        (self.0 & Self::SEEN) as u32
    }

    /// The host's rules let it through in that tick.
    #[inline(always)]
    pub const fn is_let_through(self) -> bool {
        self.0 & Self::LET_THROUGH != 0
    }

    /// 0: they did in this tick.
    #[inline(always)]
    pub const fn since_let_through(self, now: u32) -> u32 {
        self.0 as u32 ^ (now | Self::LET_THROUGH as u32)
    }

    /// The same, let through.
    #[inline(always)]
    pub const fn let_through(self) -> Self {
        Self(self.0 | Self::LET_THROUGH)
    }

    /// Being removed.
    #[inline(always)]
    pub const fn is_dying(self) -> bool {
        self.bits() & Self::DYING != 0
    }

    /// Being written to.
    #[inline(always)]
    pub const fn is_held(self) -> bool {
        self.bits() & Self::HELD != 0
    }

    /// The same with other bits.
    #[inline(always)]
    pub const fn with_bits(self, bits: u8) -> Self {
        Self((self.0 & !(0xff << 32)) | ((bits as u64) << 32))
    }

    /// The same, seen at this tick. In another one than before the host's rules are to be asked again.
    #[inline(always)]
    pub const fn with_seen(self, seen: u32) -> Self {
        if self.seen() == seen { self } else { Self((self.0 & !0xffff_ffff) | seen as u64) }
    }

    /// Ticks since this direction's last packet; 0 if that is in the future (another CPU's clock is ahead).
    #[inline(always)]
    pub const fn idle(self, now: u32) -> u32 {
        let idle = now.wrapping_sub(self.seen());
        if (idle as i32) < 0 { 0 } else { idle }
    }
}

/// The bits that a TCP segment with these flags shows.
#[inline(always)]
pub const fn bits_of_tcp(flags: u8) -> u8 {
    let mut bits = Meta::ACTIVE;
    if flags & tcp::ACK != 0 && flags & tcp::RST == 0 {
        bits |= Meta::ACK;
    }
    if flags & tcp::FIN != 0 {
        bits |= Meta::FIN;
    }
    if flags & tcp::RST != 0 {
        bits |= Meta::RST;
    }
    bits
}
