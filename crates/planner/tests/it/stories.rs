//! The stories that people know the planner by.

use modelyard_core::state::{Outcome, Phase};
use modelyard_core::{Observed, OnInconclusive, RevisionNumber, Span, Strategy};
use modelyard_planner::{outline, plan};

use crate::world::{World, canary, spec};

fn split(pairs: &[(&str, f64)]) -> Vec<(String, f64)> {
    pairs.iter().map(|(version, percent)| ((*version).to_owned(), *percent)).collect()
}

#[test]
fn a_first_revision_serves_as_soon_as_its_workers_are_ready() {
    let mut world = World::new();
    world.apply(spec("1", Strategy::Canary(canary())));
    insta::assert_yaml_snapshot!("first_plan", world.run());
    assert!(world.route().variants[0].backends.is_empty());
    let id = world.workload(1);
    world.set_ready(&id, 1);
    world.run();
    assert_eq!(world.route().variants[0].backends.len(), 1, "the first ready worker serves");
    assert_eq!(world.report().phase, Phase::Starting, "but it is done when all are ready");
    world.all_ready();
    world.run();
    assert_eq!(world.report().phase, Phase::Completed);
    assert!(plan(&world.inputs).is_settled());
}

#[test]
fn a_canary_walks_by_hold_and_verdict() {
    let mut world = World::with_version_1();
    world.apply(spec("2", Strategy::Canary(canary())));
    insta::assert_yaml_snapshot!("canary_starts", world.run().commits);
    assert_eq!(world.split(), split(&[("1", 100.0)]), "traffic waits for workers");
    world.all_ready();
    world.run();
    assert_eq!(world.split(), split(&[("1", 90.0), ("2", 10.0)]));

    world.evidence(1000, 0, 5);
    world.pass_time(29);
    assert!(world.run().commits.is_empty(), "the hold is not over");
    world.pass_time(1);
    insta::assert_yaml_snapshot!("canary_steps_on", world.run().commits);
    assert_eq!(world.split(), split(&[("1", 50.0), ("2", 50.0)]));

    world.pass_time(3600);
    assert!(world.run().commits.is_empty(), "time alone promotes nothing: the new step has no evidence yet");
    world.evidence(99, 0, 5);
    assert!(world.run().commits.is_empty());
    world.evidence(1000, 1, 5);
    world.run();
    assert_eq!(world.split(), split(&[("2", 100.0)]));
    assert!(matches!(world.outcomes[&RevisionNumber(2)], Outcome::Completed { .. }));
}

#[test]
fn a_failing_canary_goes_back_at_once_and_its_workers_end() {
    let mut world = World::in_first_step();
    world.evidence(2, 2, 5);
    insta::assert_yaml_snapshot!("canary_fails", world.run().commits);
    assert_eq!(world.desired().target, RevisionNumber(3));
    assert_eq!(world.split(), split(&[("1", 100.0)]));
    assert!(matches!(world.outcomes[&RevisionNumber(2)], Outcome::RolledBack { by: RevisionNumber(3), .. }));
    let failed = world.workload(2);
    let next = world.run();
    assert!(next.remove.contains(&failed), "it is not kept warm");
}

#[test]
fn a_slow_canary_fails_once_it_has_enough_requests() {
    let mut world = World::in_first_step();
    world.evidence(99, 0, 500);
    assert!(world.run().commits.is_empty(), "slow answers come in bursts");
    world.evidence(100, 0, 500);
    world.run();
    assert_eq!(world.split(), split(&[("1", 100.0)]));
}

#[test]
fn a_rollback_to_a_warm_version_is_done_by_the_first_pass() {
    let mut world = World::in_first_step();
    world.promote();
    world.settle();
    assert_eq!(world.split(), split(&[("2", 100.0)]));
    world.roll_back(1);
    insta::assert_yaml_snapshot!("rollback_while_warm", world.run());
    assert_eq!(world.split(), split(&[("1", 100.0)]));
    let warm: Vec<_> = world.desired().state.warm.iter().map(|w| w.revision).collect();
    assert_eq!(warm, [RevisionNumber(2)], "the version that was rolled back stays warm in its turn");
}

#[test]
fn a_rollback_in_any_phase_of_a_canary_is_done_by_the_first_pass() {
    let starting = {
        let mut world = World::with_version_1();
        world.apply(spec("2", Strategy::Canary(canary())));
        world.run();
        world
    };
    let paused = {
        let mut world = World::in_first_step();
        world.pause();
        world.run();
        world
    };
    let second_step = {
        let mut world = World::in_first_step();
        world.evidence(1000, 0, 5);
        world.pass_time(30);
        world.run();
        world
    };
    for mut world in [starting, World::in_first_step(), paused, second_step] {
        world.roll_back(1);
        world.run();
        assert_eq!(world.split(), split(&[("1", 100.0)]));
        assert_eq!(world.report().phase, Phase::Completed);
        assert!(matches!(world.outcomes[&RevisionNumber(2)], Outcome::RolledBack { .. }));
    }
}

#[test]
fn a_rollback_to_a_cold_version_waits_for_one_worker_of_it() {
    let mut world = World::in_first_step();
    world.promote();
    world.settle();
    world.pass_time(601);
    world.settle();
    world.roll_back(1);
    world.run();
    assert_eq!(world.split(), split(&[("2", 100.0)]), "what serves goes on until the old one is up");
    let id = world.workload(1);
    world.set_ready(&id, 1);
    world.run();
    assert_eq!(world.split(), split(&[("1", 100.0)]));
}

#[test]
fn a_replaced_version_is_warm_for_its_window_and_no_longer() {
    let mut world = World::in_first_step();
    world.promote();
    world.settle();
    let old = world.workload(1);
    world.pass_time(599);
    world.run();
    assert!(!world.run().remove.contains(&old));
    world.pass_time(1);
    insta::assert_yaml_snapshot!("warmth_ends", world.run());
    let next = world.run();
    assert!(next.remove.contains(&old));
    insta::assert_snapshot!(next, @"stop linear-c6f9afe696");
    assert!(world.run().is_settled());
}

#[test]
fn nothing_is_removed_while_it_is_unknown_what_gateways_use() {
    let mut world = World::in_first_step();
    world.evidence(2, 2, 5);
    world.run();
    world.inputs.in_use = Observed::Unknown { reason: "no gateway has reported yet".into() };
    assert!(plan(&world.inputs).remove.is_empty());
}

#[test]
fn a_pause_holds_steps_but_not_a_failing_analysis() {
    let mut world = World::in_first_step();
    world.pause();
    world.evidence(1000, 0, 5);
    world.pass_time(3600);
    assert!(world.run().commits.is_empty());
    assert!(world.report().paused && world.report().waiting_on[0].contains("paused by ann"));
    world.evidence(1000, 500, 5);
    world.run();
    assert_eq!(world.split(), split(&[("1", 100.0)]));
}

#[test]
fn a_new_revision_in_mid_canary_takes_its_place() {
    let mut world = World::in_first_step();
    world.apply(spec("3", Strategy::Canary(canary())));
    world.run();
    assert_eq!(world.split(), split(&[("1", 100.0)]), "the stable version has it all while version 3 comes up");
    assert_eq!(world.outcomes[&RevisionNumber(2)], Outcome::Superseded { by: RevisionNumber(3) });
    world.all_ready();
    world.run();
    assert_eq!(world.split(), split(&[("1", 90.0), ("3", 10.0)]));
}

#[test]
fn an_unfinished_first_revision_goes_on_serving_while_the_second_comes_up() {
    let mut world = World::new();
    world.apply(spec("1", Strategy::rolling()));
    world.run();
    let id = world.workload(1);
    world.set_ready(&id, 1);
    world.run();
    world.apply(spec("2", Strategy::rolling()));
    world.run();
    assert_eq!(world.route().variants[0].backends.len(), 1, "no outage");
    world.settle();
    assert_eq!(world.split(), split(&[("2", 100.0)]));
}

#[test]
fn scaling_moves_no_traffic() {
    let mut world = World::with_version_1();
    let mut wider = spec("1", Strategy::Canary(canary()));
    wider.replicas = 5;
    world.apply(wider);
    let next = world.run();
    assert_eq!(next.ensure.values().map(|w| (w.id.clone(), w.replicas)).collect::<Vec<_>>(), [(world.workload(1), 5)]);
    assert_eq!(world.report().phase, Phase::Completed);
    assert!(world.desired().state.warm.is_empty());
}

#[test]
fn an_inconclusive_step_does_what_the_manifest_says() {
    for (choice, expected) in [
        (OnInconclusive::Hold, split(&[("1", 90.0), ("2", 10.0)])),
        (OnInconclusive::Rollback, split(&[("1", 100.0)])),
        (OnInconclusive::Promote, split(&[("1", 50.0), ("2", 50.0)])),
    ] {
        let mut world = World::with_version_1();
        let strategy = modelyard_core::Canary { on_inconclusive: choice, ..canary() };
        world.apply(spec("2", Strategy::Canary(strategy)));
        world.run();
        world.all_ready();
        world.run();
        world.pass_time(30 + 599);
        world.run();
        assert_eq!(world.split(), split(&[("1", 90.0), ("2", 10.0)]), "not before the deadline");
        world.pass_time(1);
        world.run();
        assert_eq!(world.split(), expected, "{choice:?}");
    }
}

#[test]
fn an_unknown_workload_is_left_alone_and_gets_no_traffic() {
    let mut world = World::with_version_1();
    let id = world.workload(1);
    world.inputs.observation.workloads.insert(id.clone(), Observed::Unknown { reason: "lost".into() });
    let next = plan(&world.inputs);
    assert!(!next.ensure.contains_key(&id) && !next.remove.contains(&id));
    assert!(world.route().variants[0].backends.is_empty());
}

#[test]
fn a_window_of_zero_keeps_nothing_warm() {
    let mut world = World::with_version_1();
    let mut next = spec("2", Strategy::rolling());
    next.rollback_window = Span::from_millis(0);
    world.apply(next);
    world.settle();
    assert!(world.desired().state.warm.is_empty());
}

#[test]
fn a_change_is_told_in_words_before_it_is_made() {
    let mut world = World::with_version_1();
    let before = world.desired().clone();
    world.apply(spec("2", Strategy::Canary(canary())));
    let words = outline(&world.name, Some(&before), world.desired());
    insta::assert_snapshot!("outline_of_a_canary", words.join("\n"));
    assert!(outline(&world.name, Some(&before), &before).is_empty());
}
