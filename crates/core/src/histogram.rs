//! Latency histograms that merge: the quantiles of a sum are those of all requests, which no average of quantiles is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Buckets per doubling: a bucket is at most 1/16 (6.25 %) wide, relative to its lower bound.
const SUB_BITS: u32 = 4;
const SUB: u64 = 1 << SUB_BITS;

/// Counts of latencies in microseconds, in logarithmic buckets (the scheme of HdrHistogram: 16 linear buckets per
/// power of two). Sparse: only buckets with counts are held.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LatencyHistogram(BTreeMap<u16, u64>);

impl LatencyHistogram {
    /// One more than the highest bucket index: latencies from `MAX_MICROS` on share the last bucket.
    pub const BUCKETS: usize = 512;

    /// The bucket of a latency in microseconds, below [`Self::BUCKETS`].
    pub fn bucket(micros: u64) -> u16 {
        let index = if micros < SUB {
            micros
        } else {
            let exponent = u64::from(micros.ilog2() - SUB_BITS);
            (exponent + 1) * SUB + ((micros >> exponent) - SUB)
        };
        u16::try_from(index.min(Self::BUCKETS as u64 - 1)).unwrap_or(u16::MAX)
    }

    /// The highest latency, in microseconds, that falls into `bucket`.
    pub fn upper_bound(bucket: u16) -> u64 {
        let bucket = u64::from(bucket);
        if bucket < SUB {
            return bucket;
        }
        let exponent = bucket / SUB - 1;
        // What a report says of buckets that no latency falls into is no latency either.
        u32::try_from(exponent)
            .ok()
            .filter(|exponent| *exponent < 58)
            .map_or(u64::MAX, |exponent| ((bucket % SUB + SUB + 1) << exponent) - 1)
    }

    pub fn record(&mut self, micros: u64) {
        self.add(Self::bucket(micros), 1);
    }

    pub fn add(&mut self, bucket: u16, count: u64) {
        if count > 0 {
            let sum = self.0.entry(bucket).or_default();
            // A gateway may report what no gateway counts.
            *sum = sum.saturating_add(count);
        }
    }

    pub fn merge(&mut self, other: &Self) {
        other.0.iter().for_each(|(bucket, count)| self.add(*bucket, *count));
    }

    /// Buckets that have counts, ascending.
    pub fn buckets(&self) -> impl Iterator<Item = (u16, u64)> {
        self.0.iter().map(|(bucket, count)| (*bucket, *count))
    }

    pub fn count(&self) -> u64 {
        self.0.values().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The latency in microseconds that a share `numerator / denominator` of requests does not exceed, rounded up to
    /// its bucket's bound (at most 6.25 % too high). `None` without requests.
    pub fn quantile_micros(&self, numerator: u64, denominator: u64) -> Option<u64> {
        let total = self.count();
        let rank = (u128::from(total) * u128::from(numerator)).div_ceil(u128::from(denominator.max(1)));
        let rank = u64::try_from(rank).unwrap_or(u64::MAX).max(1);
        let mut seen = 0_u64;
        self.0.iter().find_map(|(bucket, count)| {
            seen = seen.saturating_add(*count);
            (seen >= rank).then(|| Self::upper_bound(*bucket))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_latency_lies_in_its_bucket(micros in 0u64..1 << 30) {
            let bucket = LatencyHistogram::bucket(micros);
            let upper = LatencyHistogram::upper_bound(bucket);
            prop_assert!(micros <= upper, "{micros} above {upper}");
            prop_assert!(upper - micros <= micros / 16 + 1, "{micros} rounds to {upper}");
            prop_assert!(bucket == 0 || LatencyHistogram::upper_bound(bucket - 1) < micros);
        }

        #[test]
        fn merging_is_counting_all(a in prop::collection::vec(0u64..1_000_000, 0..50),
                                   b in prop::collection::vec(0u64..1_000_000, 0..50)) {
            let of = |values: &[u64]| {
                let mut h = LatencyHistogram::default();
                values.iter().for_each(|v| h.record(*v));
                h
            };
            let mut merged = of(&a);
            merged.merge(&of(&b));
            prop_assert_eq!(merged, of(&[a, b].concat()));
        }
    }

    #[test]
    fn what_no_gateway_counts_is_no_crash() {
        let text = format!(r#"{{"3": {most}, "511": {most}, "65535": {most}}}"#, most = u64::MAX);
        let mut h: LatencyHistogram = serde_json::from_str(&text).unwrap();
        h.merge(&h.clone());
        assert_eq!((h.count(), h.quantile_micros(1, 2)), (u64::MAX, Some(3)));
        assert_eq!(LatencyHistogram::upper_bound(u16::MAX), u64::MAX);
    }

    #[test]
    fn quantiles_name_the_latency_that_the_share_stays_under() {
        let mut h = LatencyHistogram::default();
        assert_eq!(h.quantile_micros(99, 100), None);
        (1..=100).for_each(|ms| h.record(ms * 1000));
        let p99 = h.quantile_micros(99, 100).unwrap();
        assert!((99_000..=106_000).contains(&p99), "{p99}");
        assert!(h.quantile_micros(1, 2).unwrap() >= 50_000);
    }
}
