//! The fields of `canary.analysis`.

use super::fields::Fields;
use crate::analysis::{Analysis, Increase, LatencyIncreases, PrometheusGate, Quantile};
use crate::figure::Figure;
use crate::names::NameError;
use crate::weight::Rate;

pub(super) fn analysis(mut fields: Fields<'_>) -> Option<Analysis> {
    let default = Analysis::default();
    let warmup = fields.optional_u64("warmup", 0..=1_000_000).and_then(|n| u32::try_from(n).ok());
    let analysis = Analysis {
        min_requests: fields.optional_u64("minRequests", 1..=1_000_000_000).unwrap_or(default.min_requests),
        warmup: warmup.unwrap_or(default.warmup),
        alpha: fields.optional_number("alpha", alpha).unwrap_or(default.alpha),
        power: fields.optional_number("power", power).unwrap_or(default.power),
        max_error_rate: fields.optional_number("maxErrorRate", Rate::from_share),
        max_error_rate_increase: fields.optional_number("maxErrorRateIncrease", error_increase),
        max_latency_p50: fields.optional("maxLatencyP50"),
        max_latency_p95: fields.optional("maxLatencyP95"),
        max_latency_p99: fields.optional("maxLatencyP99"),
        max_latency_increase: latency_increase(&mut fields),
        max_disagreement: fields.optional_number("maxDisagreement", Rate::from_share),
        prometheus: prometheus(&mut fields),
    };
    fields.finish();
    Some(analysis)
}

fn within(share: f64, low: f64, high: f64, rule: &'static str) -> Result<Rate, NameError> {
    // A NaN is in no range.
    if !(low..=high).contains(&share) {
        return Err(NameError::new("rate", &share.to_string(), rule));
    }
    Rate::from_share(share)
}

fn alpha(share: f64) -> Result<Rate, NameError> {
    within(share, 1e-6, 0.5, "use a chance above 0 and up to 0.5, such as 0.05")
}

fn power(share: f64) -> Result<Rate, NameError> {
    within(share, 0.5, 0.999_999, "use a chance from 0.5 to below 1, such as 0.8")
}

fn error_increase(share: f64) -> Result<Rate, NameError> {
    let rule = "use a difference of shares above 0, such as 0.005: that two versions fail equally often can be shown \
                up to a margin only";
    within(share, 1e-6, 1.0, rule)
}

/// `20%`, or a mapping from quantiles.
fn latency_increase(fields: &mut Fields<'_>) -> LatencyIncreases {
    let key = "maxLatencyIncrease";
    if !fields.is_mapping(key) {
        let of_p99: Option<Increase> = fields.optional(key);
        return LatencyIncreases(of_p99.map(|increase| (Quantile::P99, increase)).into_iter().collect());
    }
    let Some(mut each) = fields.optional_fields(key) else { return LatencyIncreases::default() };
    let quantiles = [("p50", Quantile::P50), ("p95", Quantile::P95), ("p99", Quantile::P99)];
    let of = |(key, quantile)| each.optional(key).map(|increase: Increase| (quantile, increase));
    let increases = quantiles.into_iter().filter_map(of).collect();
    each.finish();
    LatencyIncreases(increases)
}

/// One gate, or a list of them.
fn prometheus(fields: &mut Fields<'_>) -> Vec<PrometheusGate> {
    let key = "prometheus";
    let gates = if fields.is_mapping(key) {
        fields.optional_fields(key).into_iter().collect()
    } else {
        fields.optional_list(key).unwrap_or_default()
    };
    gates.into_iter().filter_map(prometheus_gate).collect()
}

fn prometheus_gate(mut fields: Fields<'_>) -> Option<PrometheusGate> {
    let query: Option<String> = fields.required("query");
    if query.as_ref().is_some_and(|query| query.trim().is_empty()) {
        fields.problem("query", "must not be empty");
    }
    let finite = |number: f64| Figure::new(number).ok_or("must be a finite number");
    let max = fields.required_number("max", finite);
    fields.finish();
    Some(PrometheusGate { query: query?, max: max? })
}
