//! What people are told before a change is made.

use modelyard_core::{RevisionNumber, Span, Strategy};
use modelyard_planner::outline;

use crate::world::{World, canary, spec};

/// The words for a change to a world.
fn words(world: &mut World, change: impl FnOnce(&mut World) -> RevisionNumber) -> String {
    let before = world.desired().clone();
    change(world);
    outline(&world.name, Some(&before), world.desired()).join("\n")
}

#[test]
fn a_first_deployment() {
    let mut world = World::new();
    world.apply(spec("1", Strategy::Canary(canary())));
    let words = outline(&world.name, None, world.desired()).join("\n");
    insta::assert_snapshot!(words, @"linear: start 2 worker(s) of linear version 1; all traffic goes to them as they get ready");
}

#[test]
fn another_version_at_once() {
    let mut world = World::with_version_1();
    let words = words(&mut world, |w| w.apply(spec("2", Strategy::rolling())));
    insta::assert_snapshot!(words, @r"
    linear: start 2 worker(s) of linear version 2 beside version 1
    linear: move all traffic when they are ready
    linear: keep version 1 warm for 10m
    ");
}

#[test]
fn another_version_with_nothing_kept_warm() {
    let mut world = World::with_version_1();
    let next = modelyard_core::DeploymentSpec { rollback_window: Span::default(), ..spec("2", Strategy::rolling()) };
    let words = words(&mut world, |w| w.apply(next));
    insta::assert_snapshot!(words, @r"
    linear: start 2 worker(s) of linear version 2 beside version 1
    linear: move all traffic when they are ready
    linear: stop version 1
    ");
}

#[test]
fn more_workers() {
    let mut world = World::with_version_1();
    let next = modelyard_core::DeploymentSpec { replicas: 5, ..spec("1", Strategy::rolling()) };
    let words = words(&mut world, |w| w.apply(next));
    insta::assert_snapshot!(words, @"linear: version 1 goes on serving; workers 2 → 5");
}

#[test]
fn another_strategy() {
    let mut world = World::with_version_1();
    let words = words(&mut world, |w| w.apply(spec("1", Strategy::Canary(canary()))));
    insta::assert_snapshot!(words, @"linear: version 1 goes on serving; its own workers stay as they are");
}

#[test]
fn a_version_in_mid_canary_of_another() {
    let mut world = World::in_first_step();
    let words = words(&mut world, |w| w.apply(spec("3", Strategy::Canary(canary()))));
    insta::assert_snapshot!(words, @r"
    linear: end the rollout to revision 2 at 10 %
    linear: start 2 worker(s) of linear version 3 beside version 1
    linear: move traffic 10 % (hold 30s) → 50 % (hold 1m) → 100 %
    linear: each step needs at least 100 requests, an error rate of at most 0.01, a p99 latency of at most 50ms; otherwise back to version 1
    linear: keep version 1 warm for 10m
    ");
}

#[test]
fn a_rollback_in_mid_canary() {
    let mut world = World::in_first_step();
    let words = words(&mut world, |w| w.roll_back(1));
    insta::assert_snapshot!(words, @r"
    linear: end the rollout to revision 2 at 10 %
    linear: version 1 goes on serving; its own workers stay as they are
    ");
}

#[test]
fn a_rollback_while_the_old_version_is_warm() {
    let mut world = World::in_first_step();
    world.promote();
    world.settle();
    let words = words(&mut world, |w| w.roll_back(1));
    insta::assert_snapshot!(words, @r"
    linear: version 1 is still warm: no worker starts
    linear: move all traffic at once
    linear: keep version 2 warm for 10m
    ");
}

#[test]
fn a_rollback_when_the_old_version_is_cold() {
    let mut world = World::in_first_step();
    world.promote();
    world.settle();
    world.pass_time(600);
    world.settle();
    let words = words(&mut world, |w| w.roll_back(1));
    insta::assert_snapshot!(words, @r"
    linear: start 2 worker(s) of linear version 1 beside version 2
    linear: move all traffic when the first is ready
    linear: keep version 2 warm for 10m
    ");
}
