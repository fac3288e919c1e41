//! Quantiles of latency, by the shares of answers above thresholds.
//!
//! "The 99th percentile is at most 50 ms" says that at most 1 % of answers take longer: a [`rate`](super::rate) against
//! a limit, of which the histogram has the counts. This is the confidence sequence on a quantile of Howard and
//! Ramdas (2022), read at one threshold, where it is as sharp as the test of a rate. Thresholds are bounds of buckets; where
//! a limit lies inside of one, each hypothesis is read at the bound that favours it, so that rounding refutes nothing.
//!
//! Two versions: where the stable version's quantile q₀ lies is not known, only which buckets it may lie in. For
//! each bucket there is the evidence against q₀ lying in it, from the stable version's counts below and above; and, if it
//! does lie there,
//!
//! - against "no slower": by whom the answers above the bucket are, as for [`difference`](super::difference);
//! - against "slower by a factor r or more": then at least the tail's share of the candidate's answers takes longer than
//!   r times the bucket's lower bound.
//!
//! A hypothesis is refuted where it is refuted for every bucket. The first way needs no rate, is blind to what slows
//! both versions alike, and so has more power than two confidence sequences side by side; the second one is their
//! combination at the best split of the level.

use modelyard_core::LatencyHistogram;

use super::difference::evidence_against_odds;
use super::rate::{Count, against_at_least, against_at_most, either, least_against_at_least};
use super::{Pair, float, last_that_holds, ln_mean_exp, needed};

/// A histogram's counts above its buckets.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tail {
    /// Buckets with counts, ascending, and how many answers lie above each.
    above: Vec<(u16, u64)>,
    total: u64,
}

impl Tail {
    pub fn of(histogram: &LatencyHistogram) -> Self {
        let total = histogram.count();
        let mut left = total;
        let above = histogram.buckets().map(|(bucket, count)| {
            left = left.saturating_sub(count);
            (bucket, left)
        });
        Self { above: above.collect(), total }
    }

    pub fn total(&self) -> u64 {
        self.total
    }

    /// Answers in buckets above this one; `None` is below all buckets.
    fn above(&self, bucket: Option<u16>) -> u64 {
        let Some(bucket) = bucket else { return self.total };
        let place = self.above.partition_point(|(b, _)| *b <= bucket);
        place.checked_sub(1).and_then(|i| self.above.get(i)).map_or(self.total, |(_, above)| *above)
    }

    fn count_above(&self, bucket: Option<u16>) -> Count {
        Count::new(self.above(bucket), self.total)
    }

    /// Answers that surely took longer than `micros`.
    pub fn surely_above(&self, micros: u64) -> Count {
        self.count_above(Some(LatencyHistogram::bucket(micros)))
    }

    /// Answers that may have taken longer than `micros`.
    pub fn maybe_above(&self, micros: u64) -> Count {
        self.count_above(bucket_below(micros))
    }

    /// The latency in microseconds that a share `tail` of answers exceeds: within its bucket as if answers lay evenly
    /// there. `None` without answers.
    pub fn quantile(&self, tail: f64) -> Option<f64> {
        let rank = tail * float(self.total);
        let place = self.above.iter().position(|(_, above)| float(*above) <= rank)?;
        let (bucket, above) = self.above.get(place)?;
        let before = place.checked_sub(1).and_then(|i| self.above.get(i)).map_or(self.total, |(_, above)| *above);
        let (low, high) = (float(lower_edge(*bucket)), float(LatencyHistogram::upper_bound(*bucket)));
        let part = (float(before) - rank) / float(before.saturating_sub(*above)).max(1.0);
        Some(low + (high - low) * part.clamp(0.0, 1.0))
    }

    /// Bounds of a quantile in microseconds: it is ever below the first with a chance of at most `alpha`, above the
    /// second with at most `beta`. `None`: not bounded by the evidence.
    pub fn bounds(&self, tail: f64, alpha: f64, beta: f64) -> (Option<u64>, Option<u64>) {
        let buckets = || self.above.iter().map(|(bucket, _)| *bucket);
        let low = |b: &u16| against_at_most(self.count_above(Some(*b)), tail) >= needed(alpha);
        let high = |b: &u16| against_at_least(self.count_above(Some(*b)), tail) >= needed(beta);
        let lower = buckets().take_while(low).last().map(LatencyHistogram::upper_bound);
        (lower, buckets().find(high).map(LatencyHistogram::upper_bound))
    }
}

/// The last bucket that holds no latency above `micros`.
fn bucket_below(micros: u64) -> Option<u16> {
    let bucket = LatencyHistogram::bucket(micros);
    if LatencyHistogram::upper_bound(bucket) == micros { Some(bucket) } else { bucket.checked_sub(1) }
}

/// What every latency in a bucket exceeds, in microseconds; 0 for the first bucket, whose latencies are 0.
fn lower_edge(bucket: u16) -> u64 {
    bucket.checked_sub(1).map_or(0, LatencyHistogram::upper_bound)
}

/// The latencies of two versions over the same time, at one quantile.
#[derive(Debug, Clone)]
pub struct Latencies<'a> {
    candidate: &'a Tail,
    stable: &'a Tail,
    share: f64,
    tail: f64,
    /// Buckets that the stable version's quantile may lie in, with the evidence against each. `None`: below all.
    places: Vec<(Option<u16>, f64)>,
}

impl<'a> Latencies<'a> {
    /// `share`: the part of requests that the candidate was to get, by lot. `tail`: of answers above the quantile, 0.01
    /// for the 99th percentile.
    pub fn new(candidate: &'a Tail, stable: &'a Tail, share: f64, tail: f64) -> Self {
        // From one bucket with counts to the next no count changes. Of those between, the last one has the highest bounds
        // and stands for all: a hypothesis about a multiple of the quantile may depend on them.
        let with_counts = candidate.above.iter().chain(&stable.above).map(|(bucket, _)| *bucket);
        let mut buckets: Vec<_> = with_counts.flat_map(|bucket| [Some(bucket), bucket.checked_sub(1)]).collect();
        buckets.push(None);
        buckets.sort_unstable();
        buckets.dedup();
        let too_low = |bucket: Option<u16>| against_at_most(stable.count_above(bucket), tail);
        let too_high =
            |bucket: Option<u16>| bucket.map_or(0.0, |b| against_at_least(stable.count_above(b.checked_sub(1)), tail));
        // Away from the estimate the evidence on one of the sides grows. Where it outweighs whatever the candidate may
        // show, the rest of that side need not be looked at.
        let of_no_account =
            MOST + 2.0 * std::f64::consts::LN_2 - least_against_at_least(Count::new(candidate.total, candidate.total));
        let middle = buckets.partition_point(|b| float(stable.above(*b)) > tail * float(stable.total));
        let mut places = Vec::new();
        for bucket in buckets.iter().skip(middle).copied() {
            let high = too_high(bucket);
            places.push((bucket, either(too_low(bucket), high)));
            if high > of_no_account {
                break;
            }
        }
        for bucket in buckets.iter().take(middle).rev().copied() {
            let low = too_low(bucket);
            places.push((bucket, either(low, too_high(bucket))));
            if low > of_no_account {
                break;
            }
        }
        Self { candidate, stable, share, tail, places }
    }

    /// By how much the candidate's quantile is higher, relative to the stable one's.
    pub fn estimate(&self) -> Option<f64> {
        let (candidate, stable) = (self.candidate.quantile(self.tail)?, self.stable.quantile(self.tail)?);
        (stable > 0.0).then(|| candidate / stable - 1.0)
    }

    /// Evidence against "the candidate is no slower than `factor` times the stable version, where that has its quantile".
    pub fn evidence_against_no_slower(&self, factor: f64) -> f64 {
        let of_place = |(bucket, against_place): &(Option<u16>, f64)| {
            let threshold = bucket.map(|b| LatencyHistogram::bucket(scaled(LatencyHistogram::upper_bound(b), factor)));
            let pair = Pair {
                candidate: self.candidate.count_above(threshold),
                stable: self.stable.count_above(*bucket),
                share: self.share,
            };
            let terms = [(1.0 - PLACE_PART, evidence_against_odds(&pair, 1.0)), (PLACE_PART, *against_place)];
            ln_mean_exp(terms.into_iter())
        };
        let open = self.places.iter().filter(|(_, against_place)| *against_place <= MOST);
        open.map(of_place).fold(MOST + PLACE_PART.ln(), f64::min)
    }

    /// Evidence against "the candidate's quantile is at least `factor` times the stable one's".
    pub fn evidence_against_slower(&self, factor: f64) -> f64 {
        let of_place = |(bucket, against_place): &(Option<u16>, f64)| {
            let threshold = bucket.and_then(|b| bucket_below(scaled(lower_edge(b), factor)));
            let count = self.candidate.count_above(threshold);
            // Where the place is as good as excluded, a bound of the rest will do.
            let is_open = *against_place <= MOST;
            let slow = if is_open { against_at_least(count, self.tail) } else { least_against_at_least(count) };
            slow + either(0.0, *against_place)
        };
        self.places.iter().map(of_place).fold(MOST, f64::min)
    }

    /// Bounds of the relative increase: it is ever below the first with a chance of at most `alpha`, above the second with
    /// at most `beta`. `None`: not bounded by the evidence, within a factor of [`WIDEST`].
    pub fn bounds(&self, alpha: f64, beta: f64) -> (Option<f64>, Option<f64>) {
        let is_slower = |ln: f64| self.evidence_against_no_slower(ln.exp()) >= needed(alpha);
        let is_no_slower = |ln: f64| self.evidence_against_slower(ln.exp()) >= needed(beta);
        let widest = WIDEST.ln();
        let search = |from: f64, to: f64, holds: &dyn Fn(f64) -> bool| last_that_holds(from, to, STEPS, holds).exp_m1();
        let lower = is_slower(-widest).then(|| {
            let (from, to) = if is_slower(0.0) { (0.0, widest) } else { (-widest, 0.0) };
            search(from, to, &is_slower)
        });
        (lower, is_no_slower(widest).then(|| search(widest, -widest, &is_no_slower)))
    }

    /// The candidate's count of answers above `factor` times the stable version's quantile as estimated.
    pub(crate) fn count_at(&self, factor: f64) -> Count {
        let threshold = self.stable.quantile(self.tail).map_or(0.0, |q| q * factor);
        self.candidate.maybe_above(micros(threshold))
    }
}

/// The part of the evidence that goes to where the stable version's quantile lies. The counts of both parts depend on
/// each other, so they are averaged, not multiplied.
const PLACE_PART: f64 = 0.1;
/// Evidence beyond this is not told apart: it rejects at a level of 10^-17.
const MOST: f64 = 40.0;
/// Factors beyond this one, either way, are not told apart.
const WIDEST: f64 = 20.0;
/// Of bisection: to half a per cent, a fraction of a bucket.
const STEPS: u32 = 10;

fn scaled(value: u64, factor: f64) -> u64 {
    // A product that is whole but for the last digit is meant to be whole.
    let product = float(value) * factor;
    micros(if (product - product.round()).abs() < 1e-6 { product.round() } else { product })
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, which is what is wanted")]
fn micros(value: f64) -> u64 {
    value.max(0.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(latencies: &[(u64, u64)]) -> LatencyHistogram {
        let mut histogram = LatencyHistogram::default();
        latencies.iter().for_each(|(micros, count)| histogram.add(LatencyHistogram::bucket(*micros), *count));
        histogram
    }

    /// `n` answers whose latencies spread evenly over `low..high`.
    fn spread(n: u64, low: u64, high: u64) -> Tail {
        let mut histogram = LatencyHistogram::default();
        (0..n).for_each(|i| histogram.record(low + (high - low) * i / n));
        Tail::of(&histogram)
    }

    #[test]
    fn counts_above_a_threshold_err_to_the_side_that_is_asked_for() {
        let tail = Tail::of(&histogram(&[(1000, 5), (50_000, 3), (90_000, 2)]));
        assert_eq!(tail.surely_above(50_000), Count::new(2, 10), "50 ms may be below its bucket's bound");
        assert_eq!(tail.maybe_above(50_000), Count::new(5, 10));
        let bound = LatencyHistogram::upper_bound(LatencyHistogram::bucket(50_000));
        assert_eq!((tail.surely_above(bound), tail.maybe_above(bound)), (Count::new(2, 10), Count::new(2, 10)));
        assert_eq!((tail.surely_above(0), tail.surely_above(u64::MAX)), (Count::new(10, 10), Count::new(0, 10)));
    }

    #[test]
    fn a_quantile_is_estimated_within_its_bucket() {
        let tail = spread(10_000, 0, 100_000);
        for (share, expected) in [(0.5, 50_000.0), (0.05, 95_000.0), (0.01, 99_000.0)] {
            let quantile = tail.quantile(share).unwrap();
            assert!((quantile / expected - 1.0).abs() < 0.03, "{share}: {quantile}");
            let (lower, upper) = tail.bounds(share, 0.05, 0.05);
            assert!(lower.is_some_and(|l| l < micros(expected)), "{share}: {lower:?}");
            assert!(upper.is_none_or(|u| u > micros(expected)), "{share}: {upper:?}");
        }
        assert_eq!(Tail::default().quantile(0.5), None);
        assert_eq!(Tail::default().bounds(0.01, 0.05, 0.2), (None, None));
    }

    #[test]
    fn a_version_of_half_the_speed_is_told_and_an_equal_one_is_not() {
        let stable = spread(9000, 10_000, 100_000);
        for (candidate, factor) in [(spread(1000, 20_000, 200_000), 2.0), (spread(1000, 10_000, 100_000), 1.0)] {
            for tail in [0.5, 0.05, 0.01] {
                let latencies = Latencies::new(&candidate, &stable, 0.1, tail);
                let is_slower = latencies.evidence_against_no_slower(1.0) >= needed(0.01);
                assert_eq!(is_slower, factor > 1.5, "{factor} {tail}");
                let (lower, upper) = latencies.bounds(0.01, 0.2);
                assert!(lower.is_none_or(|l| l < factor - 0.99), "{factor} {tail}: {lower:?}");
                assert!(upper.is_none_or(|u| u > factor - 1.01), "{factor} {tail}: {upper:?}");
                assert_eq!(lower.is_some_and(|l| l >= 0.0), is_slower, "{factor} {tail}: {lower:?}");
            }
        }
    }

    #[test]
    fn nothing_is_told_without_something_to_compare_with() {
        let (some, none) = (spread(1000, 10_000, 100_000), Tail::default());
        for (candidate, stable) in [(&some, &none), (&none, &some), (&none, &none)] {
            let latencies = Latencies::new(candidate, stable, 0.1, 0.01);
            assert_eq!(latencies.estimate(), None);
            assert!(latencies.evidence_against_no_slower(1.0) < needed(0.05));
            assert!(latencies.evidence_against_slower(1.2) < needed(0.5));
        }
    }
}
