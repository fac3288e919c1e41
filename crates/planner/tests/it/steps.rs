//! What becomes of verdicts: steps that wait, steps that warm up, and windows of evidence.

use modelyard_core::{OnInconclusive, RevisionNumber, Span, Strategy, Window};
use modelyard_planner::plan;

use crate::world::{World, canary, spec};

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
        world.evidence(1000, 0, 5);
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
    let waiting = world.report().waiting_on;
    assert!(waiting[0].contains("more requests to version 2 (0 of "), "{waiting:?}");
    assert!(waiting[0].ends_with(": none has come yet"), "{waiting:?}");
    world.pass_time(600);
    assert_eq!(plan(&world.inputs).wake_at, None, "only evidence or people take it on");
}

#[test]
fn a_step_that_waits_for_evidence_says_when_it_is_to_be_expected() {
    let mut world = World::in_first_step();
    world.pass_time(30);
    world.evidence(100, 0, 5);
    let waiting = world.report().waiting_on;
    assert!(waiting[0].contains("(100 of ") && waiting[0].contains(", expected by 2025-11-24T16:0"), "{waiting:?}");
}

/// A canary whose first 20 requests per worker do not count.
fn warming_up() -> World {
    let mut world = World::with_version_1();
    let mut strategy = canary();
    strategy.analysis.as_mut().unwrap().warmup = 20;
    world.apply(spec("2", Strategy::Canary(strategy)));
    world.run();
    world.all_ready();
    world.run();
    world
}

#[test]
fn a_cold_start_does_not_count() {
    let mut world = warming_up();
    let cold = world.route().window;
    world.evidence(39, 0, 2000);
    world.pass_time(30);
    assert!(world.run().commits.is_empty(), "slow as it is");
    let waiting = world.report().waiting_on;
    assert!(waiting[0].contains("1 more warm-up requests to version 2 (39 of 40)"), "{waiting:?}");
    world.evidence(40, 0, 2000);
    world.run();
    assert_ne!(world.route().window, cold, "from here on it counts");
    assert_eq!(world.split(), [("1".into(), 90.0), ("2".into(), 10.0)]);
    world.evidence(1000, 0, 5);
    world.run();
    assert_eq!(world.split(), [("1".into(), 50.0), ("2".into(), 50.0)]);
    assert_eq!(world.route().window.step, 2, "its workers are warm by now");
}

#[test]
fn a_version_that_fails_everything_does_not_get_through_its_warm_up() {
    let mut world = warming_up();
    world.evidence(4, 4, 5);
    world.run();
    assert_eq!(world.split(), [("1".into(), 100.0)]);
}
