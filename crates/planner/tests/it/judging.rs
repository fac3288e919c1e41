//! Verdicts: when a version passes, fails, or has shown too little.

use std::collections::BTreeMap;

use modelyard_core::verdict::{Decision, Unit};
use modelyard_core::{
    Analysis, Disagreement, Evidence, Figure, LatencyHistogram, LatencyIncreases, PrometheusGate, Quantile, Rate, Span,
    Timestamp, Weight,
};
use modelyard_planner::{Stage, Trial, judge};
use proptest::prelude::{ProptestConfig, prop_assert, prop_assert_eq, proptest};

use crate::world::weight;

pub(crate) fn evidence(requests: u64, errors: u64, latencies: &[(u64, u64)]) -> Evidence {
    let mut latency = LatencyHistogram::default();
    latencies.iter().for_each(|(ms, count)| latency.add(LatencyHistogram::bucket(ms * 1000), *count));
    Evidence { requests, errors, latency, ..Evidence::default() }
}

fn rate(share: f64) -> Option<Rate> {
    Some(Rate::from_share(share).unwrap())
}

fn errors_at_most(share: f64) -> Analysis {
    Analysis { max_error_rate: rate(share), warmup: 0, ..Analysis::default() }
}

fn errors_increase_at_most(share: f64) -> Analysis {
    Analysis { max_error_rate_increase: rate(share), warmup: 0, ..Analysis::default() }
}

fn p99_at_most(ms: u64) -> Analysis {
    Analysis { max_latency_p99: Some(Span::from_millis(ms)), warmup: 0, ..Analysis::default() }
}

fn p99_increases_at_most(percent: &str) -> Analysis {
    let increases = BTreeMap::from([(Quantile::P99, percent.parse().unwrap())]);
    Analysis { max_latency_increase: LatencyIncreases(increases), warmup: 0, ..Analysis::default() }
}

/// The only step of a canary that has 10 %, a minute after it began.
fn trial<'a>(analysis: &'a Analysis, candidate: &'a Evidence, stable: &'a Evidence) -> Trial<'a> {
    static NONE: BTreeMap<String, Result<Figure, String>> = BTreeMap::new();
    Trial {
        analysis,
        step: 0,
        steps: 1,
        candidate,
        stable,
        weight: weight(10.0),
        stage: Stage::Judged,
        is_mirrored: false,
        since: Timestamp::from_millis(0),
        now: Timestamp::from_millis(60_000),
        measurements: &NONE,
    }
}

fn decide(analysis: &Analysis, evidence: &Evidence) -> Decision {
    judge(&trial(analysis, evidence, &Evidence::default())).decision
}

fn compare(analysis: &Analysis, candidate: &Evidence, stable: &Evidence) -> Decision {
    judge(&trial(analysis, candidate, stable)).decision
}

fn is_open(decision: Decision) -> bool {
    matches!(decision, Decision::NeedMoreData { .. })
}

#[test]
fn nothing_passes_before_the_minimum_of_requests() {
    let analysis = Analysis { min_requests: 2000, ..errors_at_most(0.01) };
    let wanted = |have| match decide(&analysis, &evidence(have, 0, &[])) {
        Decision::NeedMoreData { want, .. } => want,
        other => panic!("{other:?}"),
    };
    assert_eq!((wanted(0), wanted(1999)), (2000, 2000));
    assert_eq!(decide(&analysis, &evidence(2000, 0, &[])), Decision::Pass);
    assert!(is_open(decide(&Analysis { min_requests: 100, warmup: 0, ..Analysis::default() }, &evidence(99, 0, &[]))));
}

#[test]
fn a_clear_record_passes_once_it_shows_the_limit_to_be_kept_and_no_sooner() {
    let analysis = errors_at_most(0.01);
    assert!(
        is_open(decide(&analysis, &evidence(100, 0, &[]))),
        "of 100 requests at 1 %, none fails in a third of cases"
    );
    assert_eq!(decide(&analysis, &evidence(250, 0, &[])), Decision::Pass);
    assert!(is_open(decide(&analysis, &evidence(250, 2, &[]))));
    assert_eq!(decide(&analysis, &evidence(2000, 4, &[])), Decision::Pass);
}

#[test]
fn a_version_that_fails_everything_goes_within_a_few_requests() {
    assert_eq!(decide(&errors_at_most(0.01), &evidence(2, 2, &[])), Decision::Fail);
    assert_eq!(decide(&errors_at_most(0.05), &evidence(3, 3, &[])), Decision::Fail);
    let alone = compare(&errors_increase_at_most(0.005), &evidence(4, 4, &[]), &evidence(36, 0, &[]));
    assert_eq!(alone, Decision::Fail);
    assert!(is_open(decide(&errors_at_most(0.01), &evidence(1, 1, &[]))), "one failure may be chance");
}

#[test]
fn a_limit_of_zero_is_broken_by_one_error_and_kept_by_the_minimum_without() {
    let analysis = errors_at_most(0.0);
    assert_eq!(decide(&analysis, &evidence(1, 1, &[])), Decision::Fail);
    assert_eq!(
        decide(&analysis, &evidence(99, 0, &[])),
        Decision::NeedMoreData { have: 99, want: 100, at: Some(Timestamp::from_millis(60_606)) }
    );
    assert_eq!(decide(&analysis, &evidence(100, 0, &[])), Decision::Pass);
    assert_eq!(decide(&errors_at_most(1.0), &evidence(100, 100, &[])), Decision::Pass);
}

#[test]
fn a_rate_near_its_limit_is_not_decided_by_luck() {
    let analysis = errors_at_most(0.01);
    for (requests, errors) in [(100, 1), (100, 2), (1000, 10), (1000, 13), (1000, 8)] {
        assert!(is_open(decide(&analysis, &evidence(requests, errors, &[]))), "{errors} of {requests}");
    }
    assert_eq!(decide(&analysis, &evidence(1000, 30, &[])), Decision::Fail);
}

#[test]
fn against_the_stable_version_what_both_suffer_is_no_reason_to_fail() {
    let analysis = errors_increase_at_most(0.005);
    assert_eq!(compare(&analysis, &evidence(1000, 100, &[]), &evidence(9000, 180, &[])), Decision::Fail);
    assert!(is_open(compare(&analysis, &evidence(1000, 100, &[]), &evidence(9000, 900, &[]))));
    assert_eq!(compare(&analysis, &evidence(4000, 20, &[]), &evidence(36_000, 180, &[])), Decision::Pass);
}

#[test]
fn what_is_worse_by_less_than_the_limit_does_not_fail_however_sure_that_is() {
    let analysis = errors_increase_at_most(0.02);
    let (candidate, stable) = (evidence(100_000, 1500, &[]), evidence(900_000, 4500, &[]));
    assert_eq!(compare(&analysis, &candidate, &stable), Decision::Pass);
}

#[test]
fn without_requests_to_compare_with_nothing_is_decided_and_the_verdict_says_so() {
    let analysis = errors_increase_at_most(0.005);
    let (candidate, none) = (evidence(5000, 5, &[]), Evidence::default());
    let verdict = judge(&trial(&analysis, &candidate, &none));
    assert!(is_open(verdict.decision));
    assert_eq!(verdict.checks[0].why, "the stable version has had no requests to compare with");
    let idle = judge(&trial(&analysis, &none, &none));
    assert_eq!(idle.checks[0].why, "no requests yet");
    assert!(matches!(idle.decision, Decision::NeedMoreData { have: 0, at: None, .. }), "{idle:?}");
}

#[test]
fn the_latency_limit_is_on_a_quantile_of_the_answers() {
    let analysis = p99_at_most(50);
    assert_eq!(decide(&analysis, &evidence(250, 0, &[(5, 250)])), Decision::Pass);
    assert!(is_open(decide(&analysis, &evidence(99, 0, &[(500, 99)]))), "a burst of slow answers is soon over");
    assert_eq!(decide(&analysis, &evidence(100, 0, &[(500, 100)])), Decision::Fail);
    assert!(is_open(decide(&analysis, &evidence(100, 0, &[(5, 99), (500, 1)]))));
    assert_eq!(decide(&analysis, &evidence(1000, 0, &[(5, 950), (500, 50)])), Decision::Fail);
    let p50 = Analysis { max_latency_p50: Some(Span::from_millis(50)), max_latency_p99: None, ..analysis };
    assert_eq!(decide(&p50, &evidence(1000, 0, &[(5, 950), (500, 50)])), Decision::Pass, "half of them are fast");
}

#[test]
fn latency_is_compared_with_that_of_the_stable_version() {
    let analysis = p99_increases_at_most("20%");
    let spread = |scale: u64, n: u64| {
        let mut latency = LatencyHistogram::default();
        (0..n).for_each(|i| latency.record(scale * (100 + 900 * i / n)));
        Evidence { requests: n, latency, ..Evidence::default() }
    };
    let stable = spread(100, 90_000);
    assert_eq!(compare(&analysis, &spread(150, 10_000), &stable), Decision::Fail);
    assert_eq!(compare(&analysis, &spread(100, 10_000), &stable), Decision::Pass);
    let verdict = judge(&trial(&analysis, &stable, &stable));
    let check = &verdict.checks[0];
    assert_eq!((check.unit, check.estimate), (Unit::Ratio, Figure::new(0.0)));
    assert!(check.upper < Figure::new(0.2) && check.lower < Figure::new(0.0), "{check:?}");
}

#[test]
fn a_version_that_answers_nothing_does_not_keep_a_limit_on_latency() {
    let (mute, none) = (evidence(100, 100, &[]), Evidence::default());
    let analysis = p99_at_most(50);
    let verdict = judge(&trial(&analysis, &mute, &none));
    assert_eq!(verdict.decision, Decision::Fail);
    assert_eq!(verdict.to_string(), "fail; maxLatencyP99 no answer exceeds 50ms");
    let unasked = judge(&trial(&analysis, &none, &none));
    assert!(is_open(unasked.decision) && unasked.checks[0].holds, "nor is it said to break it unasked");
}

#[test]
fn answers_that_differ_are_a_gate_where_requests_are_mirrored() {
    let analysis = Analysis { max_disagreement: rate(0.02), warmup: 0, ..Analysis::default() };
    let seen = |compared, differing| {
        let disagreement = Disagreement { mirrored: compared, compared, differing, ..Disagreement::default() };
        Evidence { requests: 1000, disagreement, ..Evidence::default() }
    };
    let none = Evidence::default();
    let decide = |seen: &Evidence| judge(&Trial { is_mirrored: true, ..trial(&analysis, seen, &none) }).decision;
    assert_eq!(decide(&seen(1000, 0)), Decision::Pass);
    assert_eq!(decide(&seen(1000, 60)), Decision::Fail);
    assert!(is_open(decide(&seen(0, 0))), "nothing was compared");
    assert_eq!(compare(&analysis, &seen(0, 0), &none), Decision::Pass, "nothing is to be compared");
}

#[test]
fn a_number_of_prometheus_is_compared_as_it_is_and_waited_for() {
    let gate = PrometheusGate { query: "gpu_temperature".into(), max: Figure::new(80.0).unwrap() };
    let analysis = Analysis { prometheus: vec![gate], warmup: 0, ..Analysis::default() };
    let (seen, none) = (evidence(1000, 0, &[]), Evidence::default());
    let with = |answer: Option<Result<f64, &str>>| {
        let answer = answer.map(|a| a.map(|n| Figure::new(n).unwrap()).map_err(str::to_owned));
        let measurements = answer.map(|a| ("gpu_temperature".to_owned(), a)).into_iter().collect();
        judge(&Trial { measurements: &measurements, ..trial(&analysis, &seen, &none) })
    };
    assert_eq!(with(Some(Ok(80.0))).decision, Decision::Pass);
    assert_eq!(with(Some(Ok(80.5))).decision, Decision::Fail);
    assert!(is_open(with(None).decision));
    let failed = with(Some(Err("Prometheus refused the query")));
    assert!(is_open(failed.decision));
    assert!(failed.checks.iter().any(|check| check.why == "Prometheus refused the query"), "{:?}", failed.checks);
}

#[test]
fn all_limits_must_hold() {
    let analysis = Analysis { max_latency_p99: Some(Span::from_millis(50)), ..errors_at_most(0.01) };
    let (candidate, none) = (evidence(400, 0, &[(80, 400)]), Evidence::default());
    let verdict = judge(&trial(&analysis, &candidate, &none));
    assert_eq!(verdict.decision, Decision::Fail);
    let standings: Vec<_> = verdict.checks.iter().map(|c| (c.holds, c.passes)).collect();
    assert_eq!(standings, [(true, true), (false, false)]);
}

#[test]
fn in_the_warm_up_only_errors_beyond_doubt_are_heeded() {
    let analysis = Analysis { max_latency_p99: Some(Span::from_millis(50)), ..errors_at_most(0.01) };
    let none = Evidence::default();
    let decide = |seen: &Evidence| {
        let stage = Stage::WarmUp { requests: 40 };
        judge(&Trial { stage, ..trial(&analysis, seen, &none) }).decision
    };
    let slow = decide(&evidence(30, 0, &[(500, 30)]));
    assert!(matches!(slow, Decision::NeedMoreData { have: 30, want: 40, .. }), "a cold cache is slow: {slow:?}");
    assert!(is_open(decide(&evidence(39, 0, &[]))));
    assert_eq!(decide(&evidence(4, 4, &[])), Decision::Fail);
}

#[test]
fn a_verdict_tells_what_was_compared_how_sure_it_is_and_why() {
    let increase = LatencyIncreases(BTreeMap::from([(Quantile::P99, "20%".parse().unwrap())]));
    let analysis =
        Analysis { max_error_rate_increase: rate(0.005), max_latency_increase: increase, ..errors_at_most(0.05) };
    let candidate = evidence(1000, 25, &[(5, 990), (20, 10)]);
    let stable = evidence(9000, 45, &[(5, 8910), (20, 90)]);
    insta::assert_yaml_snapshot!(judge(&trial(&analysis, &candidate, &stable)));
}

#[test]
fn what_is_wanted_is_about_what_it_takes() {
    for (analysis, share) in [(errors_at_most(0.01), 0.0), (errors_at_most(0.01), 0.002), (errors_at_most(0.01), 0.03)]
    {
        let of = |requests: u64| {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss,
                reason = "small"
            )]
            let errors = (requests as f64 * share) as u64;
            decide(&analysis, &evidence(requests, errors, &[]))
        };
        let Decision::NeedMoreData { want, .. } = of(100) else { panic!("{share}: {:?}", of(100)) };
        let took = (1..).map(|n| n * 10).find(|n| !is_open(of(*n))).unwrap();
        assert!(want < took * 3 && took < want * 3, "at {share}, {want} were expected and {took} were needed");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn more_errors_never_help(
        requests in 0u64..2000, errors in 0u64..500, more in 0u64..50, percent in 0u32..=100, ms in 1u64..100,
        stable in 0u64..5000, stable_errors in 0u64..500,
    ) {
        let analysis = Analysis {
            max_latency_p99: Some(Span::from_millis(50)),
            max_error_rate_increase: rate(0.005),
            ..errors_at_most(f64::from(percent) / 100.0)
        };
        let stable = evidence(stable, stable_errors.min(stable), &[]);
        let of = |errors: u64| compare(&analysis, &evidence(requests, errors.min(requests), &[(ms, requests)]), &stable);
        let (fewer, more) = (of(errors), of(errors + more));
        prop_assert!(fewer != Decision::Fail || more == Decision::Fail, "{fewer:?} {more:?}");
        prop_assert!(more != Decision::Pass || fewer == Decision::Pass, "{fewer:?} {more:?}");
    }

    #[test]
    fn slower_answers_never_help(n in 1u64..2000, slow in 0u64..100, ms in 1u64..200, slower in 1u64..200) {
        let stable = evidence(9000, 0, &[(10, 8000), (40, 1000)]);
        let analysis = Analysis { max_latency_p95: Some(Span::from_millis(50)), ..p99_increases_at_most("20%") };
        let of = |ms: u64| compare(&analysis, &evidence(n, 0, &[(10, n.saturating_sub(slow)), (ms, slow.min(n))]), &stable);
        let (fast, slow) = (of(ms), of(ms + slower));
        prop_assert!(fast != Decision::Fail || slow == Decision::Fail, "{fast:?} {slow:?}");
        prop_assert!(slow != Decision::Pass || fast == Decision::Pass, "{fast:?} {slow:?}");
    }

    #[test]
    fn every_verdict_is_whole(
        requests in 0u64..5000, errors in 0u64..6000, stable in 0u64..5000, stable_errors in 0u64..6000,
        share in 0u16..=10_000, ms in 0u64..100_000,
    ) {
        let increases = BTreeMap::from([Quantile::P50, Quantile::P95, Quantile::P99].map(|q| (q, "20%".parse().unwrap())));
        let analysis = Analysis {
            max_error_rate_increase: rate(0.005), max_latency_increase: LatencyIncreases(increases),
            max_latency_p50: Some(Span::from_millis(5)), ..errors_at_most(0.01)
        };
        let candidate = evidence(requests, errors, &[(ms, requests)]);
        let stable = evidence(stable, stable_errors, &[(5, stable)]);
        let trial = Trial { weight: Weight::from_basis_points(share).unwrap(), ..trial(&analysis, &candidate, &stable) };
        let verdict = judge(&trial);
        prop_assert_eq!(&verdict, &judge(&trial));
        for check in &verdict.checks {
            let (lower, upper) = (check.lower, check.upper);
            prop_assert!(!check.passes || check.holds, "{check:?}");
            if let (Some(estimate), Unit::Share) = (check.estimate, check.unit) {
                prop_assert!(lower.is_none_or(|l| l <= estimate) && upper.is_none_or(|u| estimate <= u), "{check:?}");
            }
        }
        match verdict.decision {
            Decision::Pass => prop_assert!(requests >= 100 && verdict.checks.iter().all(|c| c.passes)),
            Decision::Fail => prop_assert!(verdict.checks.iter().any(|c| !c.holds)),
            Decision::NeedMoreData { have, want, .. } => prop_assert!(have == requests && want > have),
        }
    }
}
