//! How many answers leave by an interface (RFC 1812 4.3.2.8, RFC 4443 2.4(f)): a token bucket in one word.

/// Nanoseconds between answers in the long run.
const INTERVAL: u64 = 1_000_000;
/// Answers that may follow each other at once.
const BURST: u64 = 100;

/// When the next answer would be due if they came at [`INTERVAL`], after one more at `now`; none if there have been
/// too many. `due`: what it said the last time, at first 0. (The generic cell rate algorithm, ITU-T I.371.)
#[inline(always)]
pub(crate) fn take(due: u64, now: u64) -> Option<u64> {
    let due = due.max(now);
    if due - now < BURST * INTERVAL { Some(due + INTERVAL) } else { None }
}

#[cfg(test)]
mod tests {
    use super::{BURST, INTERVAL, take};

    /// How many of `asked` answers in a row are given when `due` is what it is.
    fn given(due: &mut u64, now: u64, asked: u64) -> u64 {
        let mut given = 0;
        for _ in 0..asked {
            if let Some(next) = take(*due, now) {
                *due = next;
                given += 1;
            }
        }
        given
    }

    #[test]
    fn a_burst_then_a_rate() {
        let (mut due, start) = (0, 5_000_000_000);
        assert_eq!(given(&mut due, start, 1000), BURST);
        assert_eq!(given(&mut due, start, 1), 0);
        assert_eq!(given(&mut due, start + 10 * INTERVAL, 1000), 10);
        assert_eq!(given(&mut due, start + 3_600_000_000_000, 1000), BURST, "what was not used is not saved");
    }
}
