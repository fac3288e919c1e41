//! A/B tests: variants side by side, whatever comes before, between and after them.

use std::collections::BTreeSet;

use modelyard_core::event::EventKind;
use modelyard_core::plan::ConditionKind;
use modelyard_core::state::{Cause, Phase};
use modelyard_core::verdict::Decision;
use modelyard_core::{
    Analysis, Canary, DeploymentSpec, Evidence, EvidenceKey, Exposure, MatchRule, Rate, RevisionNumber, Salt, Strategy,
    UnitHash, VariantName, Weight,
};
use modelyard_planner::{outline, plan};

use crate::world::{World, ab_test, canary, spec, weight};

fn even() -> DeploymentSpec {
    spec("1", ab_test(&[("control", "1", 50.0), ("treatment", "2", 50.0)]))
}

fn uneven() -> DeploymentSpec {
    spec("1", ab_test(&[("control", "1", 20.0), ("treatment", "2", 80.0)]))
}

/// Version 1 served; an A/B test of versions 1 and 2 serves as revision 2.
fn under_test() -> World {
    let mut world = World::with_version_1();
    world.apply(even());
    world.settle();
    world
}

fn named(names: &[(&str, f64)]) -> Vec<(String, f64)> {
    names.iter().map(|(name, percent)| ((*name).to_owned(), *percent)).collect()
}

fn variant_of(world: &World, unit: &str) -> String {
    world.route().assignment.expect("units are assigned").variant_of(unit).to_string()
}

#[test]
fn a_test_begins_in_one_flip_when_all_of_its_workers_are_ready() {
    let mut world = World::with_version_1();
    world.apply(even());
    world.run();
    assert_eq!(world.split(), [("1".to_owned(), 100.0)]);
    assert_eq!(world.report().waiting_on, ["0 of 2 workers of version 2 are ready"]);
    world.all_ready();
    let next = world.run();
    assert_eq!(world.named_split(), named(&[("control", 50.0), ("treatment", 50.0)]));
    assert_eq!(world.report().phase, Phase::Completed);
    let assignment = world.route().assignment.unwrap();
    assert_eq!(assignment.salt, "linear/2".parse::<Salt>().unwrap());
    let told = next.commits.values().flat_map(|c| &c.events).find(|e| e.kind == EventKind::WeightsChanged).unwrap();
    insta::assert_json_snapshot!((&told.message, &told.data));
    assert!(plan(&world.inputs).is_settled());
}

#[test]
fn a_first_deployment_may_be_a_test_and_serves_by_what_is_ready() {
    let mut world = World::new();
    world.apply(even());
    world.run();
    let before = world.route().assignment;
    assert!(before.is_some());
    world.settle();
    assert_eq!(world.route().assignment, before, "who came early keeps what it had");
}

#[test]
fn variants_of_one_version_share_its_workers() {
    let mut world = World::with_version_1();
    world.apply(spec("1", ab_test(&[("a", "1", 50.0), ("b", "1", 50.0)])));
    world.run();
    assert_eq!(world.named_split(), named(&[("a", 50.0), ("b", 50.0)]), "an A/A test, at once");
    assert_eq!(world.inputs.observation.workloads.len(), 1);
}

#[test]
fn other_weights_take_effect_at_once_and_move_no_more_units_than_they_must() {
    let mut world = under_test();
    let units: Vec<_> = (0..1000).map(|n| format!("user-{n}")).collect();
    let before: Vec<_> = units.iter().map(|unit| variant_of(&world, unit)).collect();
    world.apply(uneven());
    world.run();
    assert_eq!(world.report().phase, Phase::Completed);
    assert_eq!(world.named_split(), named(&[("control", 20.0), ("treatment", 80.0)]));
    let after: Vec<_> = units.iter().map(|unit| variant_of(&world, unit)).collect();
    let moved = before.iter().zip(&after).filter(|(b, a)| b != a);
    assert!(moved.clone().all(|(b, _)| b == "control"));
    assert!((200..400).contains(&moved.count()), "three in ten of a thousand");
    assert_eq!(world.desired().state.experiment.as_ref().map(|e| e.began), Some(RevisionNumber(2)));
}

#[test]
fn weights_do_not_move_to_a_variant_without_workers() {
    let mut world = under_test();
    let treatment = world.route().variants[1].workload.clone();
    world.set_ready(&treatment, 0);
    world.apply(uneven());
    world.run();
    assert_eq!(world.named_split(), named(&[("control", 50.0), ("treatment", 50.0)]));
    assert_eq!(world.report().waiting_on[0], "0 of 2 workers of version 2 are ready");
    world.settle();
    assert_eq!(world.named_split(), named(&[("control", 20.0), ("treatment", 80.0)]));
}

#[test]
fn a_canary_away_from_a_test_takes_from_all_variants_and_gives_back_what_it_took() {
    let mut world = under_test();
    let before = world.route().assignment;
    world.apply(spec("3", Strategy::Canary(canary())));
    world.run();
    world.all_ready();
    world.run();
    assert_eq!(world.named_split(), named(&[("control", 45.0), ("treatment", 45.0), ("canary", 10.0)]));
    world.evidence(200, 100, 5);
    world.run();
    assert_eq!(world.named_split(), named(&[("control", 50.0), ("treatment", 50.0)]));
    assert_eq!(world.route().assignment, before);
    assert_eq!(world.desired().state.experiment.as_ref().map(|e| e.began), Some(RevisionNumber(2)));
}

#[test]
fn a_version_beside_a_test_is_compared_with_all_variants_together() {
    let mut world = under_test();
    let analysis =
        Analysis { max_error_rate_increase: Some(Rate::from_share(0.05).unwrap()), warmup: 0, ..Analysis::default() };
    world.apply(spec("3", Strategy::Canary(Canary { analysis: Some(analysis), ..canary() })));
    world.run();
    world.all_ready();
    world.run();
    // Asked before there is evidence: by half of it the version would be rolled back.
    let window = world.route().window;
    world.evidence(2000, 200, 5);
    for (name, errors) in [("control", 0), ("treatment", 1800)] {
        let deployment = world.name.clone();
        let key = EvidenceKey { deployment, window, revision: RevisionNumber(2), variant: name.parse().unwrap() };
        world.inputs.evidence.insert(key, Evidence { requests: 9000, errors, ..Evidence::default() });
    }
    let report = world.report();
    let verdict = report.verdict.clone().unwrap_or_else(|| panic!("{report:?}"));
    assert_eq!(verdict.checks[0].stable_requests, Some(18_000));
    assert_ne!(verdict.decision, Decision::Fail, "one in ten of its requests fails, as of theirs");
}

#[test]
fn concluding_for_a_variant_is_one_flip_and_the_others_stay_warm() {
    let mut world = under_test();
    let cause = Cause::Concluded { experiment: RevisionNumber(2), winner: "treatment".parse().unwrap() };
    let version = world.history[&RevisionNumber(2)].variants[1].version.clone();
    world.add_revision(spec("2", Strategy::rolling()), version, cause);
    let next = world.run();
    assert!(next.ensure.is_empty() && next.remove.is_empty(), "its workers run already: {next:?}");
    assert_eq!(world.split(), [("2".to_owned(), 100.0)]);
    let route = world.route();
    assert_eq!((route.assignment, route.variants.len()), (None, 2));
    assert_eq!(route.variants[1].name, VariantName::previous(), "the loser, warm");
    assert!(world.desired().state.experiment.is_some(), "late outcomes still belong to it");

    world.roll_back(2);
    world.run();
    assert_eq!(world.named_split(), named(&[("control", 50.0), ("treatment", 50.0)]));
    let experiment = world.desired().state.experiment.clone().unwrap();
    assert_eq!(experiment.began, RevisionNumber(2), "a rollback takes it up again");
}

#[test]
fn warm_variants_end_together_and_what_serves_stays() {
    let mut world = under_test();
    world.apply(spec("2", Strategy::rolling()));
    world.settle();
    assert_eq!(world.inputs.observation.workloads.len(), 2);
    world.pass_time(600);
    world.settle();
    let running: BTreeSet<_> = world.inputs.observation.workloads.keys().cloned().collect();
    assert_eq!(running, world.workloads(3));
}

#[test]
fn a_rollback_from_a_test_is_instant() {
    let mut world = under_test();
    world.roll_back(1);
    world.run();
    assert_eq!(world.split(), [("1".to_owned(), 100.0)]);
}

#[test]
fn rules_come_before_assignment_and_end_with_the_test() {
    let mut world = World::with_version_1();
    let mut with_rule = even();
    let rule =
        MatchRule { header: "x-cohort".parse().unwrap(), equals: "beta".into(), variant: "treatment".parse().unwrap() };
    if let Strategy::AbTest(test) = &mut with_rule.strategy {
        test.rules.push(rule.clone());
    }
    world.apply(with_rule);
    world.settle();
    assert_eq!(world.route().rules, [rule]);
    world.roll_back(1);
    world.settle();
    assert!(world.route().rules.is_empty());
}

#[test]
fn units_that_are_held_out_get_the_deployments_own_version() {
    let mut world = World::with_version_1();
    let mut held_out = spec("1", ab_test(&[("old", "2", 50.0), ("new", "3", 50.0)]));
    if let Strategy::AbTest(test) = &mut held_out.strategy {
        test.holdout = Some(weight(10.0));
    }
    world.apply(held_out);
    world.settle();
    assert_eq!(world.named_split(), named(&[("old", 45.0), ("new", 45.0), ("holdout", 10.0)]));
    assert_eq!(world.split()[2].0, "1");
}

/// Units as gateways count them, of the route as it is.
fn expose(world: &mut World, counts: &[(&str, u32)]) {
    let (window, salt) = (world.route().window, "linear/2".parse().unwrap());
    let mut next = 0;
    for (name, count) in counts {
        let mut exposure = Exposure { requests: u64::from(*count), ..Exposure::default() };
        (next..next + count).for_each(|unit| exposure.units.add(UnitHash::of(&salt, &unit.to_string())));
        next += count;
        let (deployment, revision, variant) = (world.name.clone(), window.revision, name.parse().unwrap());
        let key = EvidenceKey { deployment, window, revision, variant };
        world.inputs.evidence.insert(key, Evidence { exposure, ..Evidence::default() });
    }
}

#[test]
fn units_that_come_in_another_ratio_than_the_weights_raise_a_condition() {
    let mut world = under_test();
    let mismatch = |world: &World| {
        let conditions = world.report().conditions;
        conditions.into_iter().find(|c| c.kind == ConditionKind::SampleRatioMismatch).map(|c| c.message)
    };
    expose(&mut world, &[("control", 520), ("treatment", 480)]);
    assert_eq!(mismatch(&world), None);
    expose(&mut world, &[("control", 680), ("treatment", 420)]);
    let told = mismatch(&world).expect("a condition");
    assert!(told.contains("control 680 (expected 550), treatment 420 (expected 550)"), "{told}");
}

#[test]
fn tests_are_told_in_words_before_they_are_applied() {
    let told = |world: &mut World, spec: DeploymentSpec| {
        let before = world.desired().clone();
        world.apply(spec);
        let words = outline(&world.name, Some(&before), world.desired());
        world.settle();
        words
    };
    let mut world = World::with_version_1();
    let fresh = {
        let mut first = World::new();
        first.apply(even());
        outline(&first.name, None, first.desired())
    };
    insta::assert_yaml_snapshot!([
        fresh,
        told(&mut world, even()),
        told(&mut world, uneven()),
        told(&mut world, spec("1", ab_test(&[("control", "1", 50.0), ("treatment", "3", 50.0)]))),
        told(&mut world, spec("3", Strategy::rolling())),
    ]);
    assert_eq!(world.split(), [("3".to_owned(), 100.0)]);
}

#[test]
fn a_bound_on_workers_does_not_hold_for_tests() {
    let mut world = under_test();
    world.apply(spec("3", Strategy::Rolling { max_surge: Some(0) }));
    world.settle();
    assert_eq!(world.split(), [("3".to_owned(), 100.0)]);
    assert_eq!(world.route().variants[0].weight, Weight::FULL);
}
