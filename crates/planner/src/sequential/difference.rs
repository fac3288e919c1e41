//! The rates of two versions over the same time.
//!
//! **Worse at all?** Requests are given to the versions by lot, the candidate's share of them being w. If it fails no
//! more often than the stable version, each failure, whenever it came and whatever the weather was, is the candidate's
//! with a chance of at most w. So the candidate's share of the failures is tested against w, as any [`rate`]: no
//! rate has to be known, and what hits both alike (a busy machine, bad requests) cancels. A version with ψ times the odds
//! has ψ times the odds of owning a failure. This conditions on the failures as Fisher's exact test does; that it loses
//! next to nothing where failures are rare is why it was preferred to the test of Turner, Ly and Grünwald (2024), to
//! which it is equal in that limit.
//!
//! **Worse by no more than a margin?** The hypothesis "p₁ ≥ p₀ + δ" has a rate p₀ that is not known. For each p₀ on its
//! own, the evidence is that of the candidate's count against "at least p₀ + δ", times that of the stable
//! version's count against p₀ (half of it, and half of 1: p₀ may well be right); both counts are independent. The
//! hypothesis is refuted where the least over all p₀ is.

use super::rate::{Count, STEPS, against_at_least, against_at_most, against_equal, either, lower_bound, upper_bound};
use super::{last_that_holds, needed};

/// What two versions showed over the same time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pair {
    pub candidate: Count,
    pub stable: Count,
    /// The share of requests that the candidate was to get, by lot, from 0 to 1.
    pub share: f64,
}

impl Pair {
    /// The candidate's hits among those of both.
    fn owned(&self) -> Count {
        Count::new(self.candidate.hits, self.candidate.hits + self.stable.hits)
    }

    /// The candidate's share of requests: the larger of what it was to get and what it got. Requests that name a
    /// version come on top of the lot, and a share that is too large is against no version.
    fn share_at_most(&self) -> f64 {
        let seen = Count::new(self.candidate.trials, self.candidate.trials + self.stable.trials).rate();
        self.share.max(seen.unwrap_or(0.0)).clamp(1e-9, 1.0)
    }

    /// The difference of rates; `None` while a version has no requests.
    pub fn estimate(&self) -> Option<f64> {
        Some(self.candidate.rate()? - self.stable.rate()?)
    }
}

/// Evidence against "the candidate's rate is no higher than the stable one's".
pub fn evidence_against_no_excess(pair: &Pair) -> f64 {
    evidence_against_odds(pair, 1.0)
}

/// Evidence against "the candidate's odds are at most `odds_ratio` times the stable one's".
pub(super) fn evidence_against_odds(pair: &Pair, odds_ratio: f64) -> f64 {
    let odds = pair.share_at_most() * odds_ratio;
    against_at_most(pair.owned(), odds / (odds + 1.0 - pair.share_at_most()))
}

/// Evidence against "the candidate's rate is higher than the stable one's by `margin` or more".
pub fn evidence_against_excess(pair: &Pair, margin: f64) -> f64 {
    if pair.stable.trials == 0 {
        return 0.0;
    }
    let nodes = Nodes::of(pair.stable);
    nodes.evidence_against_excess(pair.candidate, margin)
}

/// Rates that the stable version may have, with the evidence against each.
struct Nodes(Vec<(f64, f64)>);

impl Nodes {
    /// Outside of these bounds the evidence against p₀ is at least ln 1/[`NEGLIGIBLE`] on one of two sides.
    fn of(stable: Count) -> Self {
        let (low, high) = (lower_bound(stable, NEGLIGIBLE), upper_bound(stable, NEGLIGIBLE));
        let estimate = stable.rate().unwrap_or(0.0);
        let below = (0..CELLS).map(|i| low + (estimate - low) * f64::from(i) / f64::from(CELLS));
        let above = (0..=CELLS).map(|i| estimate + (high - estimate) * f64::from(i) / f64::from(CELLS));
        Self(below.chain(above).map(|rate| (rate, against_equal(stable, rate))).collect())
    }

    /// A lower bound of the least over all p₀: within a cell the candidate's evidence is least at its lower end, and that
    /// of the stable version, which falls to the estimate and rises from there, at one of its ends.
    fn evidence_against_excess(&self, candidate: Count, margin: f64) -> f64 {
        let joint = |rate: f64, against_rate: f64| {
            against_at_least(candidate, (rate + margin).min(1.0)) + either(0.0, against_rate)
        };
        let cells = self.0.windows(2).map(|cell| joint(cell[0].0, cell[0].1.min(cell[1].1)));
        let outside = needed(NEGLIGIBLE) - std::f64::consts::LN_2;
        let (first, last) = (joint(0.0, outside), self.0.last().map_or(0.0, |(rate, _)| joint(*rate, outside)));
        cells.fold(first.min(last), f64::min)
    }
}

const NEGLIGIBLE: f64 = 1e-4;
const CELLS: u32 = 12;

/// Bounds of the difference of rates: it is ever below the first with a chance of at most `alpha`, and above the second
/// with at most `beta`. The first is 0 or more exactly where [`evidence_against_no_excess`] rejects at
/// [`ODDS_PART`] · `alpha`. `None` while a version has no requests.
pub fn excess_bounds(pair: &Pair, alpha: f64, beta: f64) -> Option<(f64, f64)> {
    let estimate = pair.estimate()?;
    let nodes = Nodes::of(pair.stable);
    let upper = last_that_holds(1.0, estimate, STEPS, |margin| {
        nodes.evidence_against_excess(pair.candidate, margin) >= needed(beta)
    });
    Some((lowest_excess(pair, alpha).min(estimate), upper))
}

/// Of a bound ψ of the odds ratio and bounds of p₀: the least p₁ - p₀ = p₀ψ/(1 - p₀ + p₀ψ) - p₀ over such p₀. For ψ < 1 it
/// falls to p₀ = 1/(1 + √ψ) and rises from there; for ψ > 1 the reverse.
fn lowest_excess(pair: &Pair, alpha: f64) -> f64 {
    let rejects = |ln_odds: f64| evidence_against_odds(pair, ln_odds.exp()) >= needed(ODDS_PART * alpha);
    let odds = if rejects(0.0) {
        last_that_holds(0.0, WIDEST, STEPS, rejects).exp()
    } else {
        // Up to the rounding of a bisection, and that to the side of less.
        last_that_holds(-WIDEST, 0.0, STEPS, rejects).exp()
    };
    let level = (1.0 - ODDS_PART) * alpha / 2.0;
    let (low, high) = (lower_bound(pair.stable, level), upper_bound(pair.stable, level));
    let excess = |p: f64| p * odds / (1.0 - p + p * odds) - p;
    if odds < 1.0 { excess((1.0 / (1.0 + odds.sqrt())).clamp(low, high)) } else { excess(low).min(excess(high)) }
}

/// The part of alpha that goes to the odds; the rest to the stable version's rate, which only the bound is about.
pub const ODDS_PART: f64 = 0.9;

/// Odds ratios from e^-12 to e^12 are told apart.
const WIDEST: f64 = 12.0;

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(candidate: (u64, u64), stable: (u64, u64), share: f64) -> Pair {
        Pair { candidate: Count::new(candidate.0, candidate.1), stable: Count::new(stable.0, stable.1), share }
    }

    #[test]
    fn what_fails_alone_is_told_within_a_few_failures() {
        assert!(evidence_against_no_excess(&pair((4, 4), (0, 36), 0.1)) > needed(0.05 / 4.0));
    }

    #[test]
    fn more_failures_of_the_stable_version_excuse_those_of_the_candidate() {
        let alone = evidence_against_no_excess(&pair((20, 1000), (45, 9000), 0.1));
        let shared = evidence_against_no_excess(&pair((20, 1000), (180, 9000), 0.1));
        assert!(alone > needed(0.01) && shared < 0.5, "{alone} {shared}");
    }

    #[test]
    fn equal_versions_pass_once_there_is_enough() {
        assert!(evidence_against_excess(&pair((2, 400), (18, 3600), 0.1), 0.005) < needed(0.2));
        assert!(evidence_against_excess(&pair((15, 3000), (135, 27_000), 0.1), 0.005) > needed(0.2));
        assert_eq!(evidence_against_excess(&pair((0, 1000), (0, 0), 0.1), 0.005), 0.0, "nothing to compare with");
    }

    #[test]
    fn bounds_agree_with_the_tests_and_enclose_the_estimate() {
        for (candidate, stable) in
            [((20, 1000), (45, 9000)), ((5, 1000), (45, 9000)), ((0, 10), (0, 90)), ((9, 9), (1, 81))]
        {
            let pair = pair(candidate, stable, 0.1);
            let (lower, upper) = excess_bounds(&pair, 0.01, 0.2).unwrap();
            let estimate = pair.estimate().unwrap();
            assert!(lower <= estimate && estimate <= upper, "{pair:?}: {lower} to {upper}");
            let rejects = evidence_against_no_excess(&pair) >= needed(ODDS_PART * 0.01);
            assert_eq!(lower >= 0.0, rejects, "{pair:?}: {lower}");
        }
    }
}
