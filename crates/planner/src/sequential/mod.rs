//! Sequential statistics: evidence that stays valid however often one looks at it.
//!
//! All of it rests on *e-processes*: numbers E computed from what was counted so far, which start at 1 and which, if
//! the hypothesis in question holds, are not expected to grow, whatever the time one stops at. By Ville's inequality
//! (1939) such a number ever reaches 1/α with a chance of at most α; so "reject once E ≥ 1/α" may be asked after each
//! request, and for as long as one likes. Values here are natural logarithms of E, called *evidence against* the
//! hypothesis; [`needed`] is the bar for a level.
//!
//! - [`rate`]: one share of requests against a limit. Mixtures of likelihood ratios, the mixture SPRT of Robbins (1970)
//!   and of Johari, Pekelis and Walsh (2015), over a fixed list of alternatives instead of a density, so that all is
//!   exact arithmetic on counts, at small counts and small rates too. Inverted, they are confidence sequences (Howard,
//!   Ramdas, McAuliffe and Sekhon 2021).
//! - [`difference`]: the shares of two versions, side by side.
//! - [`latency`]: a quantile of one version, and the quantiles of two, by the shares above thresholds.
//!
//! They depend on counts alone, not on the order or the batches in which these came: nothing but the evidence need be
//! kept. Rates need not be constant in time either. Of independent requests with rates p₁, p₂, …, the expected
//! E is a product of terms that are linear in each pᵢ, which by the inequality of the means is at most what it is at
//! their mean: what is tested is the mean rate of the time looked at.
//!
//! Pure: no clock, no randomness.

mod difference;
mod latency;
mod rate;

pub use difference::{ODDS_PART, Pair, evidence_against_excess, evidence_against_no_excess, excess_bounds};
pub use latency::{Latencies, Tail};
pub use rate::{Count, against_at_least, against_at_most, against_equal, lower_bound, upper_bound};
pub(crate) use rate::{trials_to_exceed, trials_to_stay_below};

/// The evidence that rejects at level `alpha`: ln 1/α.
pub fn needed(alpha: f64) -> f64 {
    -alpha.ln()
}

/// A count as a float: exact up to 2^53.
#[expect(clippy::cast_precision_loss, reason = "counts of requests")]
pub(crate) fn float(count: u64) -> f64 {
    count as f64
}

/// ln Σ wᵢ exp(xᵢ) of `(wᵢ, xᵢ)`, without overflow.
fn ln_mean_exp(terms: impl Iterator<Item = (f64, f64)> + Clone) -> f64 {
    let top = terms.clone().map(|(_, x)| x).fold(f64::NEG_INFINITY, f64::max);
    if top.is_infinite() {
        return top;
    }
    top + terms.map(|(weight, x)| weight * (x - top).exp()).sum::<f64>().ln()
}

/// Between `low` and `high`, the last point at which `holds`, seen from `low`, to within 2^-`steps` of the way and on the
/// side where it holds. It must hold at `low`, or `low` is what is returned.
fn last_that_holds(low: f64, high: f64, steps: u32, holds: impl Fn(f64) -> bool) -> f64 {
    let (mut yes, mut no) = (low, high);
    for _ in 0..steps {
        let middle = f64::midpoint(yes, no);
        if holds(middle) { yes = middle } else { no = middle }
    }
    yes
}
