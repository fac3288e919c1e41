//! The verdict on a step: its evidence against the limits of its analysis.

use modelyard_core::verdict::{Check, Decision, Verdict};
use modelyard_core::{Analysis, Evidence};

/// Judges what a revision has shown in one step.
///
/// A limit on errors is failed as soon as it is certain to be exceeded when the minimum of requests is reached, so a
/// version that fails everything goes within a few requests. One that answered none of enough requests fails its limit
/// on latency. Without enough requests nothing passes.
pub fn judge(analysis: &Analysis, evidence: &Evidence) -> Verdict {
    let enough = evidence.requests >= analysis.min_requests;
    let p99_micros = evidence.latency.quantile_micros(99, 100);
    let mut checks = Vec::new();
    if let Some(limit) = analysis.max_error_rate {
        let of = evidence.requests.max(analysis.min_requests);
        checks.push(Check {
            limit: "maxErrorRate".into(),
            wanted: limit.to_string(),
            measured: format!("{} of {}", evidence.errors, evidence.requests),
            holds: !limit.is_exceeded_by(evidence.errors, of),
        });
    }
    if let Some(limit) = analysis.max_latency_p99.filter(|_| evidence.requests > 0) {
        let is_within = p99_micros.is_some_and(|p99| p99 <= limit.as_millis() * 1_000);
        checks.push(Check {
            limit: "maxLatencyP99".into(),
            wanted: limit.to_string(),
            measured: p99_micros.map_or_else(|| "no answer".into(), milliseconds),
            holds: !enough || is_within,
        });
    }
    let decision = if checks.iter().any(|check| !check.holds) {
        Decision::Fail
    } else if enough {
        Decision::Pass
    } else {
        Decision::NeedMoreData { have: evidence.requests, want: analysis.min_requests }
    };
    Verdict { decision, requests: evidence.requests, errors: evidence.errors, p99_micros, checks }
}

/// Whole microseconds as milliseconds with three decimals.
fn milliseconds(micros: u64) -> String {
    format!("{}.{:03}ms", micros / 1_000, micros % 1_000)
}
