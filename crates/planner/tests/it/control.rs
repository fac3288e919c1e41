//! What people may ask of a rollout under way: to hold, to go on, to skip steps, to turn to something else.

use modelyard_core::event::EventKind;
use modelyard_core::plan::Plan;
use modelyard_core::state::{Cause, Outcome, Phase};
use modelyard_core::{RevisionNumber, Span, Strategy, Weight};
use modelyard_planner::plan;

use crate::world::{World, canary, spec};

fn told(plan: &Plan, kind: EventKind) -> usize {
    plan.commits.values().flat_map(|c| &c.events).filter(|e| e.kind == kind).count()
}

#[test]
fn a_pause_holds_back_the_first_step_too() {
    let mut world = World::with_version_1();
    world.apply(spec("2", Strategy::rolling()));
    world.run();
    world.pause();
    world.all_ready();
    assert!(world.run().commits.is_empty());
    let report = world.report();
    assert!(report.paused);
    assert_eq!(report.waiting_on, ["paused by ann: resume, promote or abort"]);
    world.resume();
    world.run();
    assert_eq!(world.split(), [("2".into(), 100.0)]);
}

#[test]
fn a_pause_of_one_revision_is_void_for_the_next() {
    let mut world = World::in_first_step();
    world.pause();
    world.run();
    world.apply(spec("3", Strategy::rolling()));
    world.settle();
    assert_eq!(world.split(), [("3".into(), 100.0)]);
    assert!(!world.report().paused);
}

#[test]
fn promoting_skips_the_steps_that_are_left() {
    let mut world = World::in_first_step();
    world.promote();
    let next = world.run();
    assert_eq!(world.split(), [("2".into(), 100.0)]);
    assert_eq!(told(&next, EventKind::WeightsChanged), 1);
}

#[test]
fn promoting_a_revision_that_is_coming_up_skips_all_steps_once_it_is_up() {
    let mut world = World::with_version_1();
    world.apply(spec("2", Strategy::Canary(canary())));
    world.promote();
    world.run();
    assert_eq!(world.split(), [("1".into(), 100.0)], "no traffic before there are workers");
    world.all_ready();
    world.run();
    assert_eq!(world.split(), [("2".into(), 100.0)]);
}

#[test]
fn a_promoted_revision_without_workers_says_that_it_waits_for_one() {
    let mut world = World::in_first_step();
    let id = world.workload(2);
    world.set_ready(&id, 0);
    world.promote();
    assert!(world.run().commits.is_empty());
    assert_eq!(world.report().waiting_on, ["no worker of version 2 is ready"]);
    world.set_ready(&id, 1);
    world.run();
    assert_eq!(world.split(), [("2".into(), 100.0)]);
}

#[test]
fn pausing_what_was_promoted_holds_it() {
    let mut world = World::in_first_step();
    let id = world.workload(2);
    world.set_ready(&id, 0);
    world.promote();
    world.run();
    world.pause();
    world.set_ready(&id, 2);
    assert!(world.run().commits.is_empty(), "the later word counts");
    world.resume();
    world.run();
    assert_eq!(world.report().phase, Phase::Completed);
}

#[test]
fn promoting_does_not_save_a_failing_revision() {
    let mut world = World::in_first_step();
    world.promote();
    world.evidence(2, 2, 5);
    world.run();
    assert_eq!(world.split(), [("1".into(), 100.0)]);
}

#[test]
fn steps_without_hold_or_analysis_are_walked_in_one_pass() {
    let mut world = World::with_version_1();
    let mut canary = modelyard_core::Canary { analysis: None, ..canary() };
    canary.steps.iter_mut().for_each(|step| step.hold = Span::from_millis(0));
    world.apply(spec("2", Strategy::Canary(canary)));
    world.run();
    world.all_ready();
    let next = world.run();
    assert_eq!(world.split(), [("2".into(), 100.0)]);
    assert_eq!(told(&next, EventKind::WeightsChanged), 1, "the shares in between were never asked for");
}

#[test]
fn weights_are_told_when_they_change_and_only_then() {
    let mut world = World::in_first_step();
    world.apply(spec("3", Strategy::rolling()));
    assert_eq!(told(&world.run(), EventKind::WeightsChanged), 1, "version 1 has all of it again");
    world.apply(spec("4", Strategy::rolling()));
    let next = world.run();
    assert_eq!(told(&next, EventKind::RolloutStarted), 1);
    assert_eq!(told(&next, EventKind::WeightsChanged), 0, "version 1 had it all already");
}

#[test]
fn revisions_that_were_never_begun_are_recorded_as_superseded() {
    let mut world = World::in_first_step();
    world.apply(spec("3", Strategy::rolling()));
    world.apply(spec("4", Strategy::rolling()));
    world.run();
    for number in [2, 3] {
        assert_eq!(world.outcomes[&RevisionNumber(number)], Outcome::Superseded { by: RevisionNumber(4) });
    }
    assert!(matches!(world.outcomes[&RevisionNumber(1)], Outcome::Completed { .. }), "what served is not rewritten");
}

#[test]
fn a_superseded_canary_ends_its_workers_once_gateways_have_left_them() {
    let mut world = World::in_first_step();
    let given_up = world.workload(2);
    world.apply(spec("3", Strategy::Canary(canary())));
    let next = plan(&world.inputs);
    world.execute(&next);
    assert!(!plan(&world.inputs).remove.contains(&given_up), "a gateway may have requests in flight there");
    world.gateways_report();
    assert!(plan(&world.inputs).remove.contains(&given_up));
}

#[test]
fn another_number_of_replicas_in_mid_canary_begins_the_canary_anew() {
    let mut world = World::in_first_step();
    world.evidence(1000, 0, 5);
    world.pass_time(30);
    world.run();
    let mut wider = spec("2", Strategy::Canary(canary()));
    wider.replicas = 4;
    world.apply(wider);
    world.run();
    assert_eq!(world.split(), [("1".into(), 100.0)]);
    world.all_ready();
    world.run();
    assert_eq!(world.split(), [("1".into(), 90.0), ("2".into(), 10.0)]);
    assert!(world.report().verdict.is_some_and(|v| v.requests == 0), "evidence of another revision does not count");
}

#[test]
fn a_warm_version_that_is_deployed_again_and_fails_is_not_kept() {
    let mut world = World::in_first_step();
    world.promote();
    world.settle();
    assert_eq!(world.desired().state.warm.len(), 1, "version 1 is warm");
    world.apply(spec("1", Strategy::Canary(canary())));
    world.run();
    assert_eq!(world.split(), [("2".into(), 90.0), ("1".into(), 10.0)], "its workers were still there");
    world.evidence(2, 2, 5);
    world.run();
    assert_eq!(world.split(), [("2".into(), 100.0)]);
    assert!(world.run().remove.contains(&world.workload(1)));
}

#[test]
fn a_rollback_by_the_system_copies_the_stable_revision_and_says_why() {
    let mut world = World::in_first_step();
    world.evidence(2, 2, 5);
    world.run();
    let made = &world.history[&RevisionNumber(3)];
    let reason = "maxErrorRate 2 of 2 exceeds 0.01".to_owned();
    assert_eq!(made.cause, Cause::Rollback { from: RevisionNumber(2), to: RevisionNumber(1), reason });
    assert_eq!(made.spec, world.history[&RevisionNumber(1)].spec);
}

#[test]
fn a_rollback_moves_all_traffic_though_its_spec_has_a_canary() {
    let mut world = World::new();
    for version in ["1", "2"] {
        world.apply(spec(version, Strategy::Canary(canary())));
        world.promote();
        world.settle();
    }
    world.roll_back(1);
    world.run();
    assert_eq!(world.split(), [("1".into(), 100.0)]);
}

#[test]
fn a_rollback_to_a_warm_version_needs_but_one_of_its_workers() {
    let mut world = World::in_first_step();
    world.promote();
    world.settle();
    let id = world.workload(1);
    world.set_ready(&id, 1);
    world.roll_back(1);
    let next = world.run();
    let variant = &next.routes[&world.name].variants[0];
    assert_eq!((&variant.workload, variant.weight, variant.backends.len()), (&id, Weight::FULL, 1));
}
