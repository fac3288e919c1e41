//! Verdicts: when a version passes, fails, or has shown too little; and what becomes of it then.

use modelyard_core::verdict::Decision;
use modelyard_core::{
    Analysis, Evidence, LatencyHistogram, OnInconclusive, Rate, RevisionNumber, Span, Strategy, Window,
};
use modelyard_planner::{judge, plan};
use proptest::prelude::{ProptestConfig, prop_assert, prop_assert_eq, proptest};

use crate::world::{World, canary, spec};

fn evidence(requests: u64, errors: u64, latencies: &[(u64, u64)]) -> Evidence {
    let mut latency = LatencyHistogram::default();
    latencies.iter().for_each(|(ms, count)| latency.add(LatencyHistogram::bucket(ms * 1000), *count));
    Evidence { requests, errors, rescued: 0, latency, ..Evidence::default() }
}

fn errors_at_most(share: f64) -> Analysis {
    Analysis { min_requests: 100, max_error_rate: Some(Rate::from_share(share).unwrap()), ..Analysis::default() }
}

fn p99_at_most(ms: u64) -> Analysis {
    Analysis { min_requests: 100, max_latency_p99: Some(Span::from_millis(ms)), ..Analysis::default() }
}

fn decide(analysis: &Analysis, evidence: &Evidence) -> Decision {
    judge(analysis, evidence).decision
}

#[test]
fn nothing_passes_before_the_minimum_of_requests() {
    let analysis = errors_at_most(0.01);
    assert_eq!(decide(&analysis, &evidence(0, 0, &[])), Decision::NeedMoreData { have: 0, want: 100 });
    assert_eq!(decide(&analysis, &evidence(99, 0, &[])), Decision::NeedMoreData { have: 99, want: 100 });
    assert_eq!(decide(&analysis, &evidence(100, 0, &[])), Decision::Pass);
}

#[test]
fn the_limit_on_errors_is_itself_allowed() {
    let analysis = errors_at_most(0.01);
    assert_eq!(decide(&analysis, &evidence(100, 1, &[])), Decision::Pass);
    assert_eq!(decide(&analysis, &evidence(100, 2, &[])), Decision::Fail);
    assert_eq!(decide(&analysis, &evidence(1000, 10, &[])), Decision::Pass);
    assert_eq!(decide(&analysis, &evidence(1000, 11, &[])), Decision::Fail);
}

#[test]
fn errors_fail_early_only_where_later_requests_could_not_make_up_for_them() {
    let analysis = errors_at_most(0.05);
    assert!(
        matches!(decide(&analysis, &evidence(5, 5, &[])), Decision::NeedMoreData { .. }),
        "95 good ones may follow"
    );
    assert_eq!(decide(&analysis, &evidence(6, 6, &[])), Decision::Fail);
    assert_eq!(decide(&errors_at_most(0.0), &evidence(1, 1, &[])), Decision::Fail);
    assert_eq!(decide(&errors_at_most(1.0), &evidence(100, 100, &[])), Decision::Pass);
}

#[test]
fn the_latency_limit_is_on_the_99th_percentile_of_enough_requests() {
    let analysis = p99_at_most(50);
    assert_eq!(decide(&analysis, &evidence(100, 0, &[(5, 99), (500, 1)])), Decision::Pass);
    assert_eq!(decide(&analysis, &evidence(100, 0, &[(5, 98), (500, 2)])), Decision::Fail);
    assert!(matches!(decide(&analysis, &evidence(99, 0, &[(500, 99)])), Decision::NeedMoreData { .. }));
}

#[test]
fn a_version_that_answers_nothing_does_not_keep_a_limit_on_latency() {
    let verdict = judge(&p99_at_most(50), &evidence(100, 100, &[]));
    assert_eq!(verdict.decision, Decision::Fail);
    assert_eq!(verdict.to_string(), "fail; maxLatencyP99 no answer exceeds 50ms");
    let unasked = judge(&p99_at_most(50), &evidence(0, 0, &[]));
    assert_eq!(unasked.to_string(), "need more data: 0 of 100 requests", "nor is it said to break it unasked");
}

#[test]
fn all_limits_must_hold() {
    let analysis = Analysis { max_latency_p99: Some(Span::from_millis(50)), ..errors_at_most(0.01) };
    let verdict = judge(&analysis, &evidence(200, 1, &[(80, 200)]));
    assert_eq!(verdict.decision, Decision::Fail);
    assert_eq!(verdict.checks.iter().map(|c| c.holds).collect::<Vec<_>>(), [true, false]);
}

#[test]
fn each_step_of_each_revision_gathers_evidence_of_its_own() {
    let mut world = World::with_version_1();
    let mut seen = vec![world.route().window];
    world.apply(spec("2", Strategy::Canary(canary())));
    world.run();
    seen.push(world.route().window);
    world.all_ready();
    world.run();
    for step in 1..=2 {
        assert_eq!(world.route().window, Window { revision: RevisionNumber(2), step });
        seen.push(world.route().window);
        world.evidence(100, 0, 5);
        world.pass_time(60);
        world.run();
    }
    seen.push(world.route().window);
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 5, "{seen:?}");
}

#[test]
fn a_canary_whose_workers_all_crash_is_inconclusive_by_the_deadline() {
    for (choice, expected) in [
        (OnInconclusive::Hold, vec![("1".to_owned(), 90.0), ("2".to_owned(), 10.0)]),
        (OnInconclusive::Promote, vec![("1".to_owned(), 90.0), ("2".to_owned(), 10.0)]),
        (OnInconclusive::Rollback, vec![("1".to_owned(), 100.0)]),
    ] {
        let mut world = World::with_version_1();
        let strategy = modelyard_core::Canary { on_inconclusive: choice, ..canary() };
        world.apply(spec("2", Strategy::Canary(strategy)));
        world.run();
        world.all_ready();
        world.run();
        let id = world.workload(2);
        world.set_ready(&id, 0);
        world.pass_time(30 + 600);
        world.run();
        assert_eq!(world.split(), expected, "{choice:?}: nothing moves to where no worker is");
    }
}

#[test]
fn a_step_that_waits_names_its_time_and_asks_to_be_looked_at_then() {
    let mut world = World::in_first_step();
    let began = world.inputs.now;
    let next = plan(&world.inputs);
    assert_eq!(next.wake_at, Some(began + Span::from_secs(30)));
    assert_eq!(world.report().waiting_on, ["the hold of 30s at 10 %, until 2025-11-24T16:00:30.000Z"]);
    world.pass_time(30);
    assert_eq!(plan(&world.inputs).wake_at, Some(began + Span::from_secs(630)), "the progress deadline");
    assert_eq!(world.report().waiting_on, ["100 more requests to version 2 (0 of 100)"]);
    world.pass_time(600);
    assert_eq!(plan(&world.inputs).wake_at, None, "only evidence or people take it on");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn more_errors_never_help(
        requests in 0u64..500, errors in 0u64..500, more in 0u64..50, percent in 0u32..=100, ms in 1u64..100,
    ) {
        let analysis = Analysis { max_latency_p99: Some(Span::from_millis(50)), ..errors_at_most(f64::from(percent) / 100.0) };
        let of = |errors: u64| decide(&analysis, &evidence(requests, errors.min(requests), &[(ms, requests)]));
        if of(errors) == Decision::Fail {
            prop_assert_eq!(of(errors + more), Decision::Fail);
        }
    }

    #[test]
    fn an_early_failure_would_have_failed_anyway(requests in 0u64..100, errors in 0u64..100, percent in 0u32..=100) {
        let (analysis, errors) = (errors_at_most(f64::from(percent) / 100.0), errors.min(requests));
        let at_best = decide(&analysis, &evidence(100, errors, &[]));
        match decide(&analysis, &evidence(requests, errors, &[])) {
            Decision::Fail => prop_assert_eq!(at_best, Decision::Fail),
            Decision::NeedMoreData { have, want } => {
                prop_assert_eq!((have, want), (requests, 100));
                prop_assert_eq!(at_best, Decision::Pass);
            }
            Decision::Pass => prop_assert!(false, "{} requests are too few to pass", requests),
        }
    }
}
