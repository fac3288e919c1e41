//! One rate against a limit.
//!
//! The evidence against "the rate is at most p" is the mean, over a fixed list of odds ratios κ > 1 with prior weights,
//! of the likelihood ratio of the rate q with odds(q) = κ · odds(p) to p:
//!
//! ```text
//! ln LR = x · ln κ - n · ln(1 + (κ - 1) p)          x hits of n trials
//! ```
//!
//! For any true rate r ≤ p each trial multiplies LR by an expected 1 + (κ - 1)(r - p)/(1 + (κ - 1)p) ≤ 1: a test
//! supermartingale, for the composite hypothesis as it stands. It falls in p for each κ, so bounds come from bisection.
//! "At least p" is the mirror image with κ < 1.

use super::{float, last_that_holds, ln_mean_exp, needed};

/// Hits among trials: errors among requests, answers above a threshold among answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    pub hits: u64,
    pub trials: u64,
}

impl Count {
    /// Hits beyond the trials are not believed.
    pub fn new(hits: u64, trials: u64) -> Self {
        Self { hits: hits.min(trials), trials }
    }

    /// Hits per trial; `None` without trials.
    pub fn rate(self) -> Option<f64> {
        (self.trials > 0).then(|| float(self.hits) / float(self.trials))
    }
}

/// Odds ratios with weights that sum to 1. Most of the weight lies where versions that are worth catching lie, at two to
/// five times the odds; the last ones catch what fails everything, within a few requests.
const ABOVE: [(f64, f64); 12] = [
    (1.05, 0.03),
    (1.15, 0.06),
    (1.35, 0.10),
    (1.7, 0.14),
    (2.2, 0.16),
    (3.0, 0.17),
    (4.2, 0.13),
    (6.5, 0.08),
    (12.0, 0.05),
    (30.0, 0.03),
    (150.0, 0.025),
    (1000.0, 0.025),
];

/// The last one is for no hits at all, the commonest case of all.
const BELOW: [(f64, f64); 7] = [
    (1.0 / 1.05, 0.03),
    (1.0 / 1.15, 0.06),
    (1.0 / 1.35, 0.11),
    (1.0 / 1.7, 0.20),
    (1.0 / 2.5, 0.20),
    (1.0 / 5.0, 0.15),
    (1.0 / 20.0, 0.25),
];

fn likelihood_ratio(count: Count, rate: f64, odds_ratio: f64) -> f64 {
    float(count.hits) * odds_ratio.ln() - float(count.trials) * ((odds_ratio - 1.0) * rate).ln_1p()
}

fn mixture(count: Count, rate: f64, alternatives: &[(f64, f64)]) -> f64 {
    ln_mean_exp(alternatives.iter().map(|(odds_ratio, weight)| (*weight, likelihood_ratio(count, rate, *odds_ratio))))
}

/// Evidence against "the rate is at most `rate`", a share from 0 to 1. At 0 one hit refutes it; at 1 nothing does.
pub fn against_at_most(count: Count, rate: f64) -> f64 {
    if rate <= 0.0 {
        return if count.hits > 0 { f64::INFINITY } else { 0.0 };
    }
    if rate >= 1.0 { 0.0 } else { mixture(count, rate, &ABOVE) }
}

/// Evidence against "the rate is at least `rate`". At 1 one miss refutes it; at 0 nothing does.
pub fn against_at_least(count: Count, rate: f64) -> f64 {
    if rate >= 1.0 {
        return if count.hits < count.trials { f64::INFINITY } else { 0.0 };
    }
    if rate <= 0.0 { 0.0 } else { mixture(count, rate, &BELOW) }
}

/// What the evidence of [`against_at_least`] is at least, whatever the rate: its first alternative alone, of which the
/// misses, too, are counted as if they said nothing.
pub(super) fn least_against_at_least(count: Count) -> f64 {
    let [(odds_ratio, weight), ..] = BELOW;
    weight.ln() + float(count.hits) * odds_ratio.ln()
}

/// Evidence against "the rate is `rate`": the mean of both sides.
pub fn against_equal(count: Count, rate: f64) -> f64 {
    either(against_at_most(count, rate), against_at_least(count, rate))
}

/// The mean of two pieces of evidence. It is evidence against what both are against, however they depend on each other.
pub(super) fn either(one: f64, other: f64) -> f64 {
    ln_mean_exp([(0.5, one), (0.5, other)].into_iter())
}

/// A lower confidence sequence: the true rate is ever below it with a chance of at most `alpha`. 0 without trials.
pub fn lower_bound(count: Count, alpha: f64) -> f64 {
    let Some(estimate) = count.rate() else { return 0.0 };
    last_that_holds(0.0, estimate, STEPS, |rate| against_at_most(count, rate) >= needed(alpha))
}

/// An upper confidence sequence: the true rate is ever above it with a chance of at most `alpha`. 1 without trials.
pub fn upper_bound(count: Count, alpha: f64) -> f64 {
    let Some(estimate) = count.rate() else { return 1.0 };
    last_that_holds(1.0, estimate, STEPS, |rate| against_at_least(count, rate) >= needed(alpha))
}

/// How many trials to expect until the rate is found above `limit` at level `alpha`, if it stays at the present estimate.
/// Infinite where the estimate is not above it.
///
/// Evidence grows by its best alternative's likelihood ratio, which the mixture follows at a price of about [`PRICE`].
/// The estimate is drawn a little to a fifth of the limit, since no hits so far are no estimate of 0.
pub(crate) fn trials_to_exceed(count: Count, limit: f64, alpha: f64) -> f64 {
    trials_to_reject(count, limit, alpha, &ABOVE)
}

/// The same for being found below `limit`.
pub(crate) fn trials_to_stay_below(count: Count, limit: f64, beta: f64) -> f64 {
    trials_to_reject(count, limit, beta, &BELOW)
}

fn trials_to_reject(count: Count, limit: f64, level: f64, alternatives: &[(f64, f64)]) -> f64 {
    if limit <= 0.0 || limit >= 1.0 {
        return f64::INFINITY;
    }
    let estimate = (float(count.hits) + 0.05) / (float(count.trials) + 0.25 / limit);
    let growth = |(odds_ratio, _): &(f64, f64)| estimate * odds_ratio.ln() - ((odds_ratio - 1.0) * limit).ln_1p();
    let best = alternatives.iter().map(growth).fold(0.0, f64::max);
    if best > 0.0 { (needed(level) + PRICE) / best } else { f64::INFINITY }
}

/// Of bisection: to one part in 65,000 of the range.
pub(super) const STEPS: u32 = 16;

/// What it costs a mixture, in evidence, not to know the best alternative: the logarithm of the weight near it.
const PRICE: f64 = 1.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn priors_sum_to_one() {
        for alternatives in [&ABOVE[..], &BELOW[..]] {
            let sum: f64 = alternatives.iter().map(|(_, weight)| weight).sum();
            assert!((sum - 1.0).abs() < 1e-12, "{sum}");
        }
    }

    /// Exactly: the expectation of E after n trials is a sum over the binomial distribution.
    #[test]
    fn evidence_is_not_expected_to_grow_where_the_hypothesis_holds() {
        for (rate, limit) in [(0.01, 0.01), (0.005, 0.01), (0.3, 0.3), (0.1, 0.3), (0.9, 0.95)] {
            for trials in [1u32, 7, 40] {
                let mut probability = (1.0f64 - rate).powi(i32::try_from(trials).unwrap());
                let mut expected = (0.0, 0.0);
                for hits in 0..=trials {
                    let count = Count::new(u64::from(hits), u64::from(trials));
                    expected.0 += probability * against_at_most(count, limit).exp();
                    // The mirror image: the misses of a rate are hits of the rest.
                    let mirrored = Count::new(u64::from(trials - hits), u64::from(trials));
                    expected.1 += probability * against_at_least(mirrored, 1.0 - limit).exp();
                    probability *= f64::from(trials - hits) / f64::from(hits + 1) * rate / (1.0 - rate);
                }
                assert!(expected.0 <= 1.0 + 1e-9 && expected.1 <= 1.0 + 1e-9, "{rate} {limit} {trials}: {expected:?}");
            }
        }
    }

    #[test]
    fn what_fails_everything_is_told_within_a_few_requests() {
        for limit in [0.001, 0.01, 0.05] {
            assert!(against_at_most(Count::new(3, 3), limit) > needed(0.05 / 12.0), "{limit}");
        }
        assert!(against_at_most(Count::new(2, 2), 0.01) > needed(0.05 / 4.0));
    }

    #[test]
    fn no_errors_show_a_rate_below_one_per_cent_within_250_requests() {
        assert!(against_at_least(Count::new(0, 250), 0.01) > needed(0.2));
        assert!(against_at_least(Count::new(0, 160), 0.01) < needed(0.2), "0.99^160 alone is 0.2");
    }

    #[test]
    fn bounds_enclose_the_estimate_and_close_in() {
        let mut width = 1.0;
        for trials in [10, 100, 1000, 10_000] {
            let count = Count::new(trials / 10, trials);
            let (lower, upper) = (lower_bound(count, 0.05), upper_bound(count, 0.05));
            assert!(lower < 0.1 && 0.1 < upper && upper - lower < width, "{trials}: {lower} to {upper}");
            width = upper - lower;
        }
        assert_eq!((lower_bound(Count::default(), 0.05), upper_bound(Count::default(), 0.05)), (0.0, 1.0));
    }
}
