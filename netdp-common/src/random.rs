//! Unpredictable numbers from a secret (RFC 6056 section 3.3, RFC 7739): SipHash-1-3 over the kernel's
//! pseudo-random number, so that observed ports tell nothing about the generator's state.

/// SipHash-1-3 of two words under a 128-bit key. <https://eprint.iacr.org/2012/351>
#[inline(always)]
pub fn siphash(key: [u64; 2], words: [u64; 2]) -> u64 {
    let mut v = [
        key[0] ^ 0x736f_6d65_7073_6575,
        key[1] ^ 0x646f_7261_6e64_6f6d,
        key[0] ^ 0x6c79_6765_6e65_7261,
        key[1] ^ 0x7465_6462_7974_6573,
    ];
    compress(&mut v, words[0]);
    compress(&mut v, words[1]);
    compress(&mut v, 16 << 56);
    v[2] ^= 0xff;
    round(&mut v);
    round(&mut v);
    round(&mut v);
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

/// A number below `bound` from the low 32 bits of `random` (Lemire's multiply-shift; the bias is below 2^-16
/// for 16-bit bounds).
#[inline(always)]
pub const fn below(random: u64, bound: u32) -> u32 {
    (((random & 0xffff_ffff) * bound as u64) >> 32) as u32
}

#[inline(always)]
fn compress(v: &mut [u64; 4], word: u64) {
    v[3] ^= word;
    round(v);
    v[0] ^= word;
}

#[inline(always)]
fn round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[2] = v[2].rotate_left(32);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The standard library's default hasher is SipHash-1-3 with a zero key: an independent oracle.
    #[test]
    fn agrees_with_the_standard_library() {
        use std::hash::Hasher;
        for words in [[0, 0], [1, 2], [u64::MAX, 0x0123_4567_89ab_cdef]] {
            let mut hasher = std::collections::hash_map::DefaultHasher::new();
            hasher.write_u64(words[0]);
            hasher.write_u64(words[1]);
            assert_eq!(siphash([0, 0], words), hasher.finish());
        }
    }

    #[test]
    fn below_reaches_every_value_and_no_other() {
        for bound in [1, 2, 3, 1000, 64_512] {
            assert_eq!(below(0, bound), 0);
            assert_eq!(below(u64::from(u32::MAX), bound), bound - 1);
        }
    }
}
