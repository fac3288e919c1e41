//! The gates, one by one: what is counted, what it is compared with, and what follows.

use modelyard_core::verdict::{Check, Unit};
use modelyard_core::{Figure, Increase, PrometheusGate, Quantile, Rate, Span};

use super::{Finding, Levels, Trial};
use crate::sequential::{
    Count, Latencies, ODDS_PART, Pair, Tail, against_at_least, against_at_most, evidence_against_excess,
    evidence_against_no_excess, excess_bounds, float, lower_bound, needed, trials_to_exceed, trials_to_stay_below,
    upper_bound,
};

/// How a number stands to its limit.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    Exceeds,
    Within,
    Open,
}

impl Standing {
    fn of(exceeds: bool, is_within: bool) -> Self {
        match (exceeds, is_within) {
            (true, _) => Self::Exceeds,
            (false, true) => Self::Within,
            (false, false) => Self::Open,
        }
    }

    /// The reason, where there are bounds.
    fn why(self, compared: bool) -> &'static str {
        match (self, compared) {
            (Self::Exceeds, false) => "the whole interval lies above the limit",
            (Self::Exceeds, true) => "it is worse than the stable version beyond doubt, and by more than the limit",
            (Self::Within, _) => "the whole interval lies below the limit",
            (Self::Open, false) => "the limit lies within the interval",
            (Self::Open, true) => {
                "that it is no worse than the stable version is as possible as that it exceeds the limit"
            }
        }
    }
}

/// A check without bounds.
fn check(limit: impl Into<String>, wanted: impl Into<String>, measured: String, standing: Standing) -> Check {
    Check {
        limit: limit.into(),
        wanted: wanted.into(),
        measured,
        holds: standing != Standing::Exceeds,
        passes: standing == Standing::Within,
        unit: Unit::default(),
        estimate: None,
        lower: None,
        upper: None,
        requests: 0,
        stable_requests: None,
        why: standing.why(false).into(),
    }
}

pub(super) fn errors(trial: &Trial<'_>, levels: Levels) -> Vec<Finding> {
    let counted = Count::new(trial.candidate.errors, trial.candidate.requests);
    let absolute = trial.analysis.max_error_rate.map(|limit| {
        // With a limit of 0 nothing could ever be shown to keep it: there, `minRequests` says how much is enough.
        let is_flawless = counted.hits == 0 && counted.trials >= trial.analysis.min_requests;
        rate("maxErrorRate", limit, counted, is_flawless, levels)
    });
    let relative = trial.analysis.max_error_rate_increase.map(|limit| error_increase(trial, limit, levels));
    absolute.into_iter().chain(relative).collect()
}

pub(super) fn disagreement(trial: &Trial<'_>, levels: Levels) -> Option<Finding> {
    let limit = trial.analysis.max_disagreement.filter(|_| trial.is_mirrored)?;
    let seen = &trial.candidate.disagreement;
    let counted = Count::new(seen.differing, seen.compared);
    let is_flawless = counted.hits == 0 && counted.trials >= trial.analysis.min_requests;
    let mut finding = rate("maxDisagreement", limit, counted, is_flawless, levels);
    // Expected are comparisons; people wait for requests.
    if seen.compared > 0 {
        finding.want *= float(trial.candidate.requests.max(seen.compared)) / float(seen.compared);
    } else {
        finding.check.why = "no answers were compared yet".into();
    }
    Some(finding)
}

/// A rate against an absolute limit.
fn rate(name: &str, limit: Rate, counted: Count, is_flawless: bool, levels: Levels) -> Finding {
    let share = limit.share();
    let exceeds = against_at_most(counted, share) >= needed(levels.alpha);
    let is_within =
        share >= 1.0 || (share <= 0.0 && is_flawless) || against_at_least(counted, share) >= needed(levels.beta);
    let standing = Standing::of(exceeds, is_within);
    let measured = format!("{} of {}", counted.hits, counted.trials);
    let want = trials_to_exceed(counted, share, levels.alpha).min(trials_to_stay_below(counted, share, levels.beta));
    let check = Check {
        estimate: counted.rate().and_then(Figure::new),
        lower: Figure::new(lower_bound(counted, levels.alpha)).filter(|_| counted.trials > 0),
        upper: Figure::new(upper_bound(counted, levels.beta)).filter(|_| counted.trials > 0),
        requests: counted.trials,
        ..check(name, limit.to_string(), measured, standing)
    };
    // At the ends of the range it is `minRequests` that is waited for.
    let is_edge = share <= 0.0 || share >= 1.0;
    Finding { check: told(check, standing, false), want: if is_edge { 0.0 } else { want } }
}

/// The reason, or that there is nothing to reason about.
fn told(mut check: Check, standing: Standing, compared: bool) -> Check {
    check.why = match (check.requests, check.stable_requests) {
        (0, _) if standing == Standing::Open => "no requests yet".into(),
        (_, Some(0)) if standing == Standing::Open => "the stable version has had no requests to compare with".into(),
        _ => standing.why(compared).into(),
    };
    check
}

fn error_increase(trial: &Trial<'_>, limit: Rate, levels: Levels) -> Finding {
    let (candidate, stable) = (trial.candidate, trial.stable);
    let pair = Pair {
        candidate: Count::new(candidate.errors, candidate.requests),
        stable: Count::new(stable.errors, stable.requests),
        share: share(trial),
    };
    let (estimate, margin) = (pair.estimate(), limit.share());
    let is_worse = evidence_against_no_excess(&pair) >= needed(ODDS_PART * levels.alpha);
    let exceeds = is_worse && estimate.is_some_and(|estimate| estimate > margin);
    let standing = Standing::of(exceeds, evidence_against_excess(&pair, margin) >= needed(levels.beta));
    let bounds = excess_bounds(&pair, levels.alpha, levels.beta);
    let measured = format!(
        "{} of {} beside {} of {}",
        pair.candidate.hits, pair.candidate.trials, pair.stable.hits, pair.stable.trials
    );
    let check = Check {
        estimate: estimate.and_then(Figure::new),
        lower: bounds.and_then(|(lower, _)| Figure::new(lower)),
        upper: bounds.and_then(|(_, upper)| Figure::new(upper)),
        requests: pair.candidate.trials,
        stable_requests: Some(pair.stable.trials),
        ..check("maxErrorRateIncrease", limit.to_string(), measured, standing)
    };
    Finding { check: told(check, standing, true), want: requests_to_compare(&pair, margin, levels) }
}

/// Of failures the candidate's share is tested, so failures are expected and turned into requests; for a pass, the
/// stable version's rate counts as known.
fn requests_to_compare(pair: &Pair, margin: f64, levels: Levels) -> f64 {
    let failures = Count::new(pair.candidate.hits, pair.candidate.hits + pair.stable.hits);
    let per_failure = float(pair.candidate.trials) / float(failures.trials.max(1));
    let is_above = pair.estimate().is_some_and(|estimate| estimate > margin);
    let to_fail = if is_above {
        per_failure * trials_to_exceed(failures, pair.share.max(1e-9), ODDS_PART * levels.alpha)
    } else {
        f64::INFINITY
    };
    let unacceptable = pair.stable.rate().unwrap_or(0.0) + margin;
    to_fail.min(trials_to_stay_below(pair.candidate, unacceptable, levels.beta))
}

fn share(trial: &Trial<'_>) -> f64 {
    f64::from(trial.weight.basis_points()) / 10_000.0
}

pub(super) fn latencies(trial: &Trial<'_>, candidate: &Tail, stable: &Tail, levels: Levels) -> Vec<Finding> {
    let limits = trial.analysis.latency_limits();
    let absolute = limits.map(|(quantile, limit)| latency(trial, candidate, quantile, limit, levels));
    let increases = &trial.analysis.max_latency_increase.0;
    let relative = increases
        .iter()
        .map(|(quantile, increase)| latency_increase(trial, (candidate, stable), *quantile, *increase, levels));
    absolute.chain(relative).collect()
}

/// Slow answers come in bursts, of which the first few say little: they fail no version before `minRequests`.
fn has_enough(trial: &Trial<'_>, candidate: &Tail) -> bool {
    candidate.total() >= trial.analysis.min_requests
}

/// A version that was asked often enough and never answered keeps no limit on latency.
fn never_answered(trial: &Trial<'_>, candidate: &Tail) -> bool {
    candidate.total() == 0 && trial.candidate.requests >= trial.analysis.min_requests
}

fn unanswered(limit: String, wanted: String, trial: &Trial<'_>) -> Finding {
    let check = check(limit, wanted, "no answer".into(), Standing::Exceeds);
    let why = "none of the requests was answered".into();
    Finding { check: Check { requests: trial.candidate.requests, why, ..check }, want: 0.0 }
}

fn latency(trial: &Trial<'_>, candidate: &Tail, quantile: Quantile, limit: Span, levels: Levels) -> Finding {
    let name = format!("maxLatency{}", quantile.to_string().to_uppercase());
    if never_answered(trial, candidate) {
        return unanswered(name, limit.to_string(), trial);
    }
    let (micros, tail) = (limit.as_millis().saturating_mul(1_000), quantile.tail());
    let (surely, maybe) = (candidate.surely_above(micros), candidate.maybe_above(micros));
    let exceeds = has_enough(trial, candidate) && against_at_most(surely, tail) >= needed(levels.alpha);
    let standing = Standing::of(exceeds, against_at_least(maybe, tail) >= needed(levels.beta));
    let want = trials_to_exceed(surely, tail, levels.alpha).min(trials_to_stay_below(maybe, tail, levels.beta));
    let (lower, upper) = candidate.bounds(tail, levels.alpha, levels.beta);
    let estimate = candidate.quantile(tail).and_then(|q| Figure::new(q / 1e3));
    let measured = estimate.map_or_else(
        || "no answer".into(),
        |estimate| format!("{} of {} answers", Unit::Milliseconds.tell(estimate), candidate.total()),
    );
    let check = Check {
        unit: Unit::Milliseconds,
        estimate,
        lower: lower.and_then(|l| Figure::new(float(l) / 1e3)),
        upper: upper.and_then(|u| Figure::new(float(u) / 1e3)),
        requests: candidate.total(),
        ..check(name, limit.to_string(), measured, standing)
    };
    Finding { check: told(check, standing, false), want }
}

fn latency_increase(
    trial: &Trial<'_>,
    (candidate, stable): (&Tail, &Tail),
    quantile: Quantile,
    increase: Increase,
    levels: Levels,
) -> Finding {
    let name = format!("maxLatencyIncrease ({quantile})");
    if never_answered(trial, candidate) {
        return unanswered(name, increase.to_string(), trial);
    }
    let tail = quantile.tail();
    let latencies = Latencies::new(candidate, stable, share(trial), tail);
    let (estimate, limit) = (latencies.estimate(), increase.share());
    let is_slower = latencies.evidence_against_no_slower(1.0) >= needed(levels.alpha);
    let exceeds = is_slower && has_enough(trial, candidate) && estimate.is_some_and(|estimate| estimate > limit);
    let is_within = latencies.evidence_against_slower(1.0 + limit) >= needed(levels.beta);
    let standing = Standing::of(exceeds, is_within);
    let to_fail = if estimate.is_some_and(|estimate| estimate > limit) {
        trials_to_exceed(latencies.count_at(1.0), tail, levels.alpha)
    } else {
        f64::INFINITY
    };
    let want = to_fail.min(trials_to_stay_below(latencies.count_at(1.0 + limit), tail, levels.beta));
    let (lower, upper) = latencies.bounds(levels.alpha, levels.beta);
    let quantile_of = |of: &Tail| of.quantile(tail).and_then(|q| Figure::new(q / 1e3));
    let shown = |of: &Tail| quantile_of(of).map_or_else(|| "no answer".into(), |q| Unit::Milliseconds.tell(q));
    let measured = format!("{} beside {}", shown(candidate), shown(stable));
    let check = Check {
        unit: Unit::Ratio,
        estimate: estimate.and_then(Figure::new),
        lower: lower.and_then(Figure::new),
        upper: upper.and_then(Figure::new),
        requests: candidate.total(),
        stable_requests: Some(stable.total()),
        ..check(name, increase.to_string(), measured, standing)
    };
    Finding { check: told(check, standing, true), want }
}

/// Numbers that come without a count are compared as they are, and wait while there are none.
pub(super) fn prometheus(trial: &Trial<'_>) -> Vec<Finding> {
    let of = |gate: &PrometheusGate| {
        let answer = trial.measurements.get(&gate.query);
        let (measured, standing, why) = match answer {
            None => ("no answer".to_owned(), Standing::Open, "Prometheus has given no number yet"),
            Some(Err(why)) => ("no answer".to_owned(), Standing::Open, why.as_str()),
            Some(Ok(value)) if *value > gate.max => {
                (value.to_string(), Standing::Exceeds, "the number is above the limit")
            }
            Some(Ok(value)) => (value.to_string(), Standing::Within, "the number is not above the limit"),
        };
        let estimate = answer.and_then(|answer| answer.as_ref().ok()).copied();
        let check = check(format!("prometheus ({})", gate.query), gate.max.to_string(), measured, standing);
        Finding { check: Check { unit: Unit::Number, estimate, why: why.into(), ..check }, want: 0.0 }
    };
    trial.analysis.prometheus.iter().map(of).collect()
}
