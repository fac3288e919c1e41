//! Histograms of scores: how the outputs of two versions are distributed, in a form that adds up over gateways.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Bits of the mantissa that tell buckets apart: 16 buckets per doubling, each at most 1/16 (6.25 %) wide.
const KEPT_MANTISSA_BITS: u32 = 4;
const DROPPED_BITS: u32 = f32::MANTISSA_DIGITS - 1 - KEPT_MANTISSA_BITS;
/// Sizes below share the bucket of 0: 2^-20, about a millionth.
const SMALLEST: f32 = 9.536_743e-7;
/// Sizes from here on share a bucket: 2^32.
const LARGEST: f32 = 4_294_967_296.0;

/// Counts of numbers in logarithmic buckets on both sides of 0, the scheme of DDSketch (Masson et al. 2019) with the
/// buckets of a float's own exponent and first mantissa bits. Sparse: only buckets with counts are held, at most 1,700.
///
/// Buckets are ordered as the numbers in them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ScoreHistogram(BTreeMap<i16, u64>);

impl ScoreHistogram {
    /// The bucket of what is no number.
    const NAN: i16 = i16::MAX;

    fn bucket(score: f64) -> i16 {
        if score.is_nan() {
            return Self::NAN;
        }
        #[expect(clippy::cast_possible_truncation, reason = "only the first bits tell buckets apart")]
        let size = (score.abs() as f32).min(LARGEST);
        if size < SMALLEST {
            return 0;
        }
        let above = (size.to_bits() >> DROPPED_BITS) - (SMALLEST.to_bits() >> DROPPED_BITS) + 1;
        let above = i16::try_from(above).unwrap_or(Self::NAN - 1);
        if score < 0.0 { -above } else { above }
    }

    pub fn record(&mut self, score: f64) {
        *self.0.entry(Self::bucket(score)).or_default() += 1;
    }

    pub fn merge(&mut self, other: &Self) {
        for (bucket, count) in &other.0 {
            let sum = self.0.entry(*bucket).or_default();
            *sum = sum.saturating_add(*count);
        }
    }

    pub fn count(&self) -> u64 {
        self.0.values().fold(0, |sum, count| sum.saturating_add(*count))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How far two distributions are apart, from 0 (equal) to 1 (disjoint): the largest difference of their cumulative
    /// shares, the statistic of Kolmogorov and Smirnov at the resolution of the buckets. 0 if either is empty.
    pub fn distance(&self, other: &Self) -> f64 {
        let (ours, theirs) = (self.count(), other.count());
        if ours == 0 || theirs == 0 {
            return 0.0;
        }
        let mut buckets: BTreeMap<i16, (u64, u64)> = BTreeMap::new();
        self.0.iter().for_each(|(bucket, count)| buckets.entry(*bucket).or_default().0 += count);
        other.0.iter().for_each(|(bucket, count)| buckets.entry(*bucket).or_default().1 += count);
        let mut seen = (0_u64, 0_u64);
        let gaps = buckets.values().map(|(a, b)| {
            seen = (seen.0.saturating_add(*a), seen.1.saturating_add(*b));
            (share(seen.0, ours) - share(seen.1, theirs)).abs()
        });
        gaps.fold(0.0, f64::max)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a share is good to some digits")]
fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(scores: &[f64]) -> ScoreHistogram {
        let mut histogram = ScoreHistogram::default();
        scores.iter().for_each(|score| histogram.record(*score));
        histogram
    }

    proptest! {
        #[test]
        fn buckets_are_ordered_as_the_scores_in_them(a in any::<f32>(), b in -2.0f32..2.0) {
            prop_assume!(!a.is_nan());
            let (low, high) = (f64::from(a.min(b)), f64::from(a.max(b)));
            prop_assert!(ScoreHistogram::bucket(low) <= ScoreHistogram::bucket(high));
        }

        #[test]
        fn scores_further_apart_than_a_bucket_is_wide_are_told_apart(score in 1e-5f64..1e9) {
            prop_assert!(ScoreHistogram::bucket(score) < ScoreHistogram::bucket(score * 1.07));
            prop_assert!(ScoreHistogram::bucket(-score) > ScoreHistogram::bucket(-score * 1.07));
        }

        #[test]
        fn merging_is_recording_all(a in prop::collection::vec(any::<f64>(), 0..40), b in prop::collection::vec(any::<f64>(), 0..40)) {
            let mut merged = of(&a);
            merged.merge(&of(&b));
            prop_assert_eq!(merged, of(&[a, b].concat()));
        }
    }

    #[test]
    fn distance_is_the_largest_gap_between_cumulative_shares() {
        assert!(of(&[0.1, 0.9]).distance(&of(&[0.1, 0.9, 0.1, 0.9])).abs() < 1e-12);
        assert!((of(&[0.1, 0.2]).distance(&of(&[0.8, 0.9])) - 1.0).abs() < 1e-12);
        assert!((of(&[0.1, 0.2, 0.3, 0.4]).distance(&of(&[0.1, 0.2, 0.3, 0.9])) - 0.25).abs() < 1e-12);
        assert!(of(&[]).distance(&of(&[1.0])).abs() < 1e-12);
    }

    #[test]
    fn a_histogram_stays_small_whatever_is_recorded() {
        let mut histogram = ScoreHistogram::default();
        (0..20_000).for_each(|n| {
            histogram.record(1.01_f64.powi(n - 10_000));
            histogram.record(-(1.01_f64.powi(n - 10_000)));
        });
        histogram.record(f64::NAN);
        histogram.record(f64::NEG_INFINITY);
        assert!(histogram.0.len() <= 1_700, "{}", histogram.0.len());
    }
}
