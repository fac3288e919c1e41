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

#[cfg(test)]
mod tests {
    use super::super::{Resource, parse};
    use super::*;
    use crate::span::Span;
    use crate::strategy::Strategy;

    fn text(analysis: &str) -> String {
        format!(
            "apiVersion: modelyard.dev/v1\nkind: ModelDeployment\nmetadata: {{name: d}}\nspec:\n  model: m\n  version: \"1\"\n  \
             strategy:\n    canary:\n      steps: [{{weight: 10}}]\n      analysis:\n        {}\n",
            analysis.replace('\n', "\n        ")
        )
    }

    fn read(analysis: &str) -> Analysis {
        let documents = parse(&text(analysis)).unwrap();
        let Resource::ModelDeployment(deployment) = &documents[0].resource else { panic!() };
        let Strategy::Canary(canary) = &deployment.spec.strategy else { panic!() };
        let analysis = canary.analysis.clone().unwrap();
        let stored = serde_json::to_string(&analysis).unwrap();
        assert_eq!(
            serde_json::from_str::<Analysis>(&stored).unwrap(),
            analysis,
            "the stored form reads back: {stored}"
        );
        analysis
    }

    #[test]
    fn every_gate_is_read_and_reads_back() {
        let analysis = read(
            "minRequests: 500\nwarmup: 5\nalpha: 0.01\npower: 0.9\nmaxErrorRate: 0.02\nmaxErrorRateIncrease: 0.005\n\
             maxLatencyP50: 10ms\nmaxLatencyP95: 20ms\nmaxLatencyP99: 50ms\nmaxLatencyIncrease: 20%\n\
             maxDisagreement: 0.01\nprometheus: {query: 'up', max: 1.5}",
        );
        let rate = |share| Rate::from_share(share).unwrap();
        assert_eq!((analysis.min_requests, analysis.warmup), (500, 5));
        assert_eq!((analysis.alpha, analysis.power), (rate(0.01), rate(0.9)));
        assert_eq!((analysis.max_error_rate, analysis.max_error_rate_increase), (Some(rate(0.02)), Some(rate(0.005))));
        let limits: Vec<_> = analysis.latency_limits().map(|(of, limit)| (of.percent(), limit)).collect();
        assert_eq!(limits, [(50, Span::from_millis(10)), (95, Span::from_millis(20)), (99, Span::from_millis(50))]);
        assert_eq!(analysis.max_latency_increase.0, [(Quantile::P99, "20%".parse().unwrap())].into());
        assert_eq!(analysis.prometheus, [PrometheusGate { query: "up".into(), max: Figure::new(1.5).unwrap() }]);
        assert_eq!(analysis.tested_gates(), 7);
    }

    #[test]
    fn what_is_left_out_has_its_default_and_quantiles_may_be_several() {
        assert_eq!(read("{}"), Analysis::default());
        let analysis =
            read("maxLatencyIncrease: {p50: 10%, p99: 20%}\nprometheus: [{query: a, max: 1}, {query: b, max: 2}]");
        let expected = [(Quantile::P50, "10%".parse().unwrap()), (Quantile::P99, "20%".parse().unwrap())];
        assert_eq!(analysis.max_latency_increase.0, expected.into());
        assert_eq!(analysis.prometheus.len(), 2);
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_line() {
        for (bad, path, word) in [
            ("alpha: 0", "alpha", "above 0 and up to 0.5"),
            ("alpha: 0.6", "alpha", "above 0 and up to 0.5"),
            ("power: 1", "power", "from 0.5 to below 1"),
            ("maxErrorRateIncrease: 0", "maxErrorRateIncrease", "above 0"),
            ("maxLatencyIncrease: 20", "maxLatencyIncrease", "quote it"),
            ("maxLatencyIncrease: 0%", "maxLatencyIncrease", "per cent above 0"),
            ("maxLatencyIncrease: {p90: 20%}", "maxLatencyIncrease.p90", "unknown field"),
            ("maxLatencyIncrease: [20%]", "maxLatencyIncrease", "must be a string"),
            ("prometheus: {max: 1}", "prometheus", "`query` is missing"),
            ("prometheus: [{query: up}]", "prometheus[0]", "`max` is missing"),
            ("prometheus: [{query: ' ', max: .nan}]", "prometheus[0].query", "must not be empty"),
            ("maxErrors: 1", "maxErrors", "unknown field"),
        ] {
            let problems = parse(&text(bad)).unwrap_err();
            let path = format!("spec.strategy.canary.analysis.{path}");
            let found = problems.iter().find(|p| p.path == path && p.message.contains(word));
            assert!(found.is_some_and(|p| p.line == Some(11)), "{bad}: {problems:?}");
        }
    }
}
