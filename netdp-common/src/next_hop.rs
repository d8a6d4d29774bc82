//! Next hops that the kernel does not know the MAC of.
//!
//! The kernel asks for a MAC (three times within three seconds: `mcast_solicit`, `retrans_time_ms`) when a packet is
//! sent to the next hop, and not otherwise. So packets are sent for as long as it may be asking; what comes
//! afterwards and still finds no MAC is answered with host unreachable, and one packet after such an answer is sent
//! once more, to make the kernel ask again. A sender is told three seconds after its first packet, as by a router.

use crate::family::Address;
use crate::flow::{NextHop, Probing};
use crate::tables::Host;

/// How long the kernel asks, nanoseconds; a little less, for retransmissions that come after just 3 s.
const ASKING: u64 = 2_900_000_000;
/// After so long nothing is concluded any more from a next hop that did not answer.
const FORGOTTEN: u64 = 12_000_000_000;

/// Whether a packet is sent to a next hop that is not resolved. It must be sent then.
#[inline(always)]
pub(crate) fn is_tried<A: Address, H: Host<A>>(host: &H, hop: &NextHop) -> bool {
    let (is_tried, probing) = judge(host.probing(hop), host.nanoseconds());
    host.set_probing(hop, probing);
    is_tried
}

#[inline(always)]
fn judge(known: Option<Probing>, now: u64) -> (bool, Probing) {
    let first = Probing { since: now, failed: 0, due: 0 };
    let Some(probing) = known else { return (true, first) };
    let age = now.saturating_sub(probing.since);
    if age >= FORGOTTEN {
        (true, first)
    } else if age < ASKING {
        (probing.failed == 0, probing)
    } else if probing.due == 0 {
        (false, Probing { failed: 1, due: 1, ..probing })
    } else {
        (true, Probing { since: now, failed: 1, due: 0 })
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::judge;

    /// Packets at these tenths of a second to a next hop that never answers: which are sent.
    fn sent(times: &[u64]) -> Vec<bool> {
        let mut known = None;
        let mut judged = |time: &u64| {
            let (is_tried, probing) = judge(known, 1_000_000_000 + time * 100_000_000);
            known = Some(probing);
            is_tried
        };
        times.iter().map(&mut judged).collect()
    }

    #[test]
    fn told_after_three_seconds() {
        assert_eq!(sent(&[0, 10, 30]), [true, true, false], "a connection's first, second and third SYN");
        assert_eq!(sent(&[0, 10, 20, 30, 40, 50, 60]), [true, true, true, false, true, false, false]);
    }

    #[test]
    fn asked_for_again() {
        assert_eq!(sent(&[0, 40, 80, 120]), [true, false, true, false], "every other one");
        let many: Vec<u64> = (0..100).collect();
        let asked = sent(&many).iter().skip(30).filter(|is_tried| **is_tried).count();
        assert!((2..=3).contains(&asked), "{asked} in 7 s");
    }

    #[test]
    fn nothing_is_concluded_from_long_ago() {
        assert_eq!(sent(&[0, 120, 130]), [true, true, true]);
        assert_eq!(sent(&[0, 30, 160, 170]), [true, false, true, true]);
    }
}
