//! Latency histograms, and what may be said of them.
//!
//! Invariants: histograms are merged, percentiles are never averaged; a percentile is given only
//! when at least [`SAMPLES_BEYOND_MIN`] samples lie beyond it. Below that it is an anecdote.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// So many samples must lie beyond a percentile before it is shown.
pub const SAMPLES_BEYOND_MIN: u64 = 100;

/// Latencies are told apart up to this, in ns: 100 s. Longer ones count as this.
const LATENCY_NS_MAX: u64 = 100_000_000_000;

/// An empty latency histogram in ns, values kept to 0.1 %.
pub fn new_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).expect("the bounds are valid constants")
}

/// The percentiles of one histogram, in µs. `None` where too few samples lie beyond.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Percentiles {
    /// The median.
    pub p50: Option<f64>,
    /// Nine of ten lie at or below.
    pub p90: Option<f64>,
    /// 99 of 100.
    pub p99: Option<f64>,
    /// 999 of 1,000.
    pub p99_9: Option<f64>,
    /// 9,999 of 10,000.
    pub p99_99: Option<f64>,
    /// The largest sample; `None` only when there is no sample.
    pub max: Option<f64>,
}

impl Percentiles {
    /// Reads a histogram of ns.
    pub fn of(histogram: &Histogram<u64>) -> Self {
        let us = |of_10_000| quantile_ns(histogram, of_10_000).map(us_from_ns);
        Self {
            p50: us(5_000),
            p90: us(9_000),
            p99: us(9_900),
            p99_9: us(9_990),
            p99_99: us(9_999),
            max: (!histogram.is_empty()).then(|| us_from_ns(histogram.max())),
        }
    }
}

/// The value below or at which `permille` of the samples lie, in ns; `None` when fewer than
/// [`SAMPLES_BEYOND_MIN`] samples lie beyond it.
pub(crate) fn percentile_ns(histogram: &Histogram<u64>, permille: u64) -> Option<u64> {
    quantile_ns(histogram, permille * 10)
}

/// The same for so many of 10,000.
pub(crate) fn quantile_ns(histogram: &Histogram<u64>, of_10_000: u64) -> Option<u64> {
    let above = u128::from(10_000_u64.saturating_sub(of_10_000));
    let beyond = u128::from(histogram.len()) * above / 10_000;
    (beyond >= u128::from(SAMPLES_BEYOND_MIN))
        .then(|| histogram.value_at_quantile(of_10_000 as f64 / 10_000.0))
}

/// ns as µs.
pub(crate) fn us_from_ns(ns: u64) -> f64 {
    ns as f64 / 1000.0
}

/// How a figure moved over the rounds of one run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Drift {
    /// Smallest of the rounds.
    pub(crate) min: f64,
    /// Middle of the rounds (the mean of the middle two when their number is even).
    pub(crate) median: f64,
    /// Largest of the rounds.
    pub(crate) max: f64,
    /// Last round divided by the first.
    pub(crate) last_to_first: f64,
}

impl Drift {
    /// `None` without values, or when one of them is not above zero.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let (first, last) = (*values.first()?, *values.last()?);
        if values.iter().any(|v| !v.is_finite() || *v <= 0.0) {
            return None;
        }
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let median = if sorted.len().is_multiple_of(2) {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        } else {
            sorted[middle]
        };
        Some(Self {
            min: sorted[0],
            median,
            max: sorted[sorted.len() - 1],
            last_to_first: last / first,
        })
    }

    /// How far the rounds lie apart, as a part of their median: 0 is none at all.
    pub(crate) fn spread(&self) -> f64 {
        (self.max - self.min) / self.median
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition: the smallest sample such that at least `permille` of all lie at or below.
    fn from_sorted(sorted: &[u64], permille: u64) -> u64 {
        let rank = (sorted.len() as u64 * permille).div_ceil(1000).max(1);
        sorted[rank as usize - 1]
    }

    fn samples(count: u64, range: u64) -> Vec<u64> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        (0..count)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                1 + state % range
            })
            .collect()
    }

    #[test]
    fn percentiles_equal_those_of_a_sorted_list() {
        // Up to 2047 the histogram keeps every value exactly.
        let mut values = samples(200_000, 2000);
        let mut histogram = new_histogram();
        values.iter().for_each(|v| histogram.saturating_record(*v));
        values.sort_unstable();
        for permille in [500, 900, 990, 999] {
            assert_eq!(
                percentile_ns(&histogram, permille),
                Some(from_sorted(&values, permille)),
                "{permille} of 1000"
            );
        }
        assert_eq!(Percentiles::of(&histogram).max, Some(values[values.len() - 1] as f64 / 1000.0));
    }

    #[test]
    fn that_holds_for_lists_of_any_length_and_range() {
        for seed in 1..=300_u64 {
            let (count, range) = (seed * seed * 7 % 4_001, 1 + seed * 31 % 2_000);
            let mut values = samples(count, range);
            let mut histogram = new_histogram();
            values.iter().for_each(|v| histogram.saturating_record(*v));
            values.sort_unstable();
            for of_10_000 in [5_000, 9_000, 9_900, 9_990, 9_999] {
                let enough = count * (10_000 - of_10_000) / 10_000 >= SAMPLES_BEYOND_MIN;
                let rank = (count * of_10_000).div_ceil(10_000).max(1) as usize;
                let exact = enough.then(|| values[rank - 1]);
                assert_eq!(quantile_ns(&histogram, of_10_000), exact, "{count} below {range}");
            }
        }
        let mut all = new_histogram();
        all.saturating_record_n(5, 999_900);
        all.saturating_record_n(7, 99);
        assert_eq!(quantile_ns(&all, 9_999), None);
        all.saturating_record_n(7, 1);
        assert_eq!(quantile_ns(&all, 9_999), Some(5));
    }

    #[test]
    fn large_values_are_kept_to_a_thousandth() {
        let mut values = samples(200_000, 50_000_000);
        let mut histogram = new_histogram();
        values.iter().for_each(|v| histogram.saturating_record(*v));
        values.sort_unstable();
        for permille in [500, 900, 990, 999] {
            let exact = from_sorted(&values, permille) as f64;
            let kept = percentile_ns(&histogram, permille).unwrap() as f64;
            assert!((kept - exact).abs() <= exact / 1000.0, "{permille}: {kept} for {exact}");
        }
    }

    #[test]
    fn merged_histograms_give_the_percentiles_of_all_samples_together() {
        let (fast, slow) = (vec![100_u64; 9_000], vec![2_000_u64; 11_000]);
        let [mut one, mut other] = [new_histogram(), new_histogram()];
        fast.iter().for_each(|v| one.saturating_record(*v));
        slow.iter().for_each(|v| other.saturating_record(*v));
        one.add(&other).unwrap();
        // The average of the two medians would be 1050.
        assert_eq!(percentile_ns(&one, 500), Some(2_000));
    }

    #[test]
    fn a_percentile_needs_a_hundred_samples_beyond_it() {
        let filled = |count: u64| {
            let mut histogram = new_histogram();
            histogram.saturating_record_n(7, count);
            histogram
        };
        for (permille, enough) in [(500, 200), (900, 1_000), (990, 10_000), (999, 100_000)] {
            assert_eq!(percentile_ns(&filled(enough - 1), permille), None, "{permille}");
            assert_eq!(percentile_ns(&filled(enough), permille), Some(7), "{permille}");
        }
        let none = Percentiles::of(&new_histogram());
        assert_eq!((none.p50, none.max), (None, None));
        let one = Percentiles::of(&filled(1));
        assert_eq!((one.p50, one.max), (None, Some(0.007)));
    }

    #[test]
    fn a_latency_beyond_the_range_is_counted_not_lost() {
        let mut histogram = new_histogram();
        histogram.saturating_record(u64::MAX);
        assert_eq!(histogram.len(), 1);
        assert!(histogram.max() >= LATENCY_NS_MAX);
    }

    #[test]
    fn drift_is_computed_over_the_rounds() {
        let drift = Drift::of(&[100.0, 80.0, 120.0]).unwrap();
        assert_eq!((drift.min, drift.median, drift.max), (80.0, 100.0, 120.0));
        assert!((drift.last_to_first - 1.2).abs() < 1e-12);
        assert!((drift.spread() - 0.4).abs() < 1e-12);
        let even = Drift::of(&[1.0, 2.0, 4.0, 3.0]).unwrap();
        assert!((even.median - 2.5).abs() < 1e-12);
        assert_eq!(Drift::of(&[5.0]).unwrap().spread(), 0.0);
        assert_eq!(Drift::of(&[]), None);
        assert_eq!(Drift::of(&[1.0, 0.0]), None);
        assert_eq!(Drift::of(&[1.0, f64::NAN]), None);
    }
}
