//! Medians, intervals and ratios of few rounds, without assuming a distribution.

use serde::{Deserialize, Serialize};

/// How sure an interval should be, where there are rounds enough for it.
const CONFIDENCE: f64 = 0.9;

/// What rounds have in common.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The middle one.
    pub median: f64,
    /// Where the true median is, with at least 90 % confidence (fewer than five rounds: less).
    pub low: f64,
    /// See `low`.
    pub high: f64,
    /// How many rounds.
    pub rounds: usize,
}

impl Summary {
    /// Of some values; none of no values.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        let (low, high) = interval(values.len())?;
        Some(Self { median: median(&values)?, low: values[low], high: values[high], rounds: values.len() })
    }

    /// Whether a value may be the true median.
    pub fn contains(&self, value: f64) -> bool {
        (self.low..=self.high).contains(&value)
    }

    /// Half of the interval's width, as a part of the median.
    pub fn spread(&self) -> f64 {
        if self.median == 0.0 { 0.0 } else { (self.high - self.low) / 2.0 / self.median.abs() }
    }

    /// Whether two medians may be the same.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.low <= other.high && other.low <= self.high
    }
}

/// The middle value of sorted ones.
pub fn median(sorted: &[f64]) -> Option<f64> {
    let upper = *sorted.get(sorted.len() / 2)?;
    Some(if sorted.len().is_multiple_of(2) {
        f64::midpoint(sorted[sorted.len() / 2 - 1], upper)
    } else {
        upper
    })
}

/// The value below which a share (0 to 1) of sorted ones lies: the nearest rank.
pub fn percentile(sorted: &[f64], share: f64) -> Option<f64> {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied()
}

/// First and last index of the narrowest interval of order statistics that holds the median with [`CONFIDENCE`]: the
/// number of values below the median is binomial. The whole range if there are too few for that.
fn interval(count: usize) -> Option<(usize, usize)> {
    let last = count.checked_sub(1)?;
    let mut best = (0, last);
    let mut tail = 0.0;
    for (below, share) in binomial(count).enumerate().take(count / 2) {
        // Leaving out one more value at each end leaves out this case at each end.
        tail += share;
        if 1.0 - 2.0 * tail < CONFIDENCE {
            break;
        }
        best = (below, last - below);
    }
    Some(best)
}

/// The chances that 0, 1, 2.. of `count` fair coins show heads.
fn binomial(count: usize) -> impl Iterator<Item = f64> {
    let first = 0.5f64.powi(i32::try_from(count).unwrap_or(i32::MAX));
    let next = move |(heads, chance): &(usize, f64)| {
        Some((heads + 1, chance * (count - heads) as f64 / (heads + 1) as f64))
    };
    std::iter::successors(Some((0, first)), next).map(|(_, chance)| chance).take(count + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one_or_the_mean_of_both() {
        assert_eq!(median(&[1.0, 2.0, 9.0]), Some(2.0));
        assert_eq!(median(&[1.0, 2.0, 4.0, 9.0]), Some(3.0));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let sorted: Vec<f64> = (1..=1000).map(f64::from).collect();
        assert_eq!(percentile(&sorted, 0.5), Some(500.0));
        assert_eq!(percentile(&sorted, 0.999), Some(999.0));
        assert_eq!(percentile(&sorted, 1.0), Some(1000.0));
        assert_eq!(percentile(&sorted, 0.0), Some(1.0));
        assert_eq!(percentile(&[7.0], 0.99), Some(7.0));
        assert_eq!(percentile(&[], 0.5), None);
    }

    /// The table of every textbook on the sign test, for 90 %.
    #[test]
    fn intervals_are_those_of_the_sign_test() {
        for (count, expected) in
            [(1, (0, 0)), (4, (0, 3)), (5, (0, 4)), (7, (0, 6)), (8, (1, 6)), (10, (1, 8)), (20, (5, 14))]
        {
            assert_eq!(interval(count), Some(expected), "{count}");
        }
        assert_eq!(interval(0), None);
    }

    #[test]
    fn a_summary_is_of_sorted_finite_values() {
        let summary = Summary::of([9.0, f64::NAN, 1.0, 5.0]).expect("values");
        assert_eq!((summary.median, summary.low, summary.high, summary.rounds), (5.0, 1.0, 9.0, 3));
        assert!(summary.contains(1.0) && !summary.contains(0.9));
        assert!((summary.spread() - 0.8).abs() < 1e-9);
        assert_eq!(Summary::of([]), None);
    }

    #[test]
    fn summaries_overlap_where_intervals_touch() {
        let of = |values: [f64; 3]| Summary::of(values).expect("values");
        assert!(of([1.0, 2.0, 3.0]).overlaps(&of([3.0, 4.0, 5.0])));
        assert!(!of([1.0, 2.0, 3.0]).overlaps(&of([3.1, 4.0, 5.0])));
    }
}
