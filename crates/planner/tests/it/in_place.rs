//! `maxSurge`: versions that take each other's place where there is no room for both.

use modelyard_core::plan::ConditionKind;
use modelyard_core::state::{Outcome, Phase};
use modelyard_core::{Autoscaling, Canary, DeploymentSpec, Observed, RevisionNumber, Strategy};
use modelyard_planner::{outline, plan};
use proptest::prelude::*;

use crate::invariants::check_invariants;
use crate::world::{World, canary, spec};

fn rolling(version: &str, replicas: u32, max_surge: u32) -> DeploymentSpec {
    DeploymentSpec { replicas, ..spec(version, Strategy::Rolling { max_surge: Some(max_surge) }) }
}

fn stepped(version: &str, replicas: u32, max_surge: u32) -> DeploymentSpec {
    let strategy = Strategy::Canary(Canary { max_surge: Some(max_surge), analysis: None, ..canary() });
    DeploymentSpec { replicas, ..spec(version, strategy) }
}

/// Version 1 serves with that many workers.
fn serving(replicas: u32, max_surge: u32) -> World {
    let mut world = World::new();
    world.apply(rolling("1", replicas, max_surge));
    world.settle();
    world
}

/// A checked reconcile.
fn pass(world: &mut World) -> Vec<String> {
    let next = plan(&world.inputs);
    check_invariants(&world.inputs, &next);
    world.execute(&next);
    world.gateways_report();
    let weighted = next.routes[&world.name].variants.iter().filter(|v| !v.weight.is_zero());
    weighted.map(|v| format!("{}:{}%", v.version, v.weight.percent())).collect()
}

/// Workers asked for and shares of traffic after each pass, in between which what fits gets ready.
fn walk(world: &mut World, capacity: u32, passes: usize) -> Vec<String> {
    let mut seen: Vec<String> = Vec::new();
    for _ in 0..passes {
        let split = pass(world);
        let asked: Vec<_> = world.asked().iter().map(|(version, n)| format!("{version}x{n}")).collect();
        let line = format!("{} | {}", asked.join(" "), split.join(" "));
        if seen.last() != Some(&line) {
            seen.push(line);
        }
        world.ready_within(capacity);
    }
    seen
}

#[test]
fn workers_are_replaced_one_by_one_and_traffic_follows() {
    let mut world = serving(3, 0);
    world.apply(rolling("2", 3, 0));
    assert_eq!(walk(&mut world, 3, 8), ["1x2 2x1 | 1:100%", "1x1 2x2 | 1:50% 2:50%", "1x0 2x3 | 2:100%",]);
    assert_eq!(world.report().phase, Phase::Completed);
    assert!(plan(&world.inputs).is_settled());
}

#[test]
fn with_a_surge_of_one_there_are_never_fewer_ready_than_before() {
    let mut world = serving(3, 1);
    world.apply(rolling("2", 3, 1));
    let mut fewest = usize::MAX;
    for _ in 0..8 {
        pass(&mut world);
        let ready = world.route().variants.iter().map(|v| v.backends.len()).sum();
        fewest = fewest.min(ready);
        world.ready_within(4);
    }
    assert_eq!((world.report().phase, fewest), (Phase::Completed, 3));
    assert_eq!(world.asked(), [("1".into(), 1), ("2".into(), 3)], "one stays warm: there is room for it");
}

#[test]
fn a_surge_that_fits_both_changes_nothing_but_that_all_of_it_stays_warm() {
    let mut world = serving(2, 2);
    world.apply(rolling("2", 2, 2));
    assert_eq!(walk(&mut world, 4, 4), ["1x2 2x2 | 1:100%", "1x2 2x2 | 2:100%"]);
}

#[test]
fn where_there_is_room_for_one_the_old_one_ends_first() {
    let mut world = serving(1, 0);
    world.apply(rolling("2", 1, 0));
    pass(&mut world);
    assert_eq!(world.asked(), [("1".into(), 0), ("2".into(), 1)]);
    assert_eq!(
        world.report().waiting_on,
        [
            "0 of 1 workers of version 2 are ready",
            "there is room for one worker (maxSurge 0): version 1 ends before version 2 can start, and nothing serves in \
             between",
        ]
    );
    let available =
        |world: &World| world.report().conditions.iter().any(|c| c.kind == ConditionKind::Available && c.status);
    assert!(!available(&world), "the gap is not hidden");
    world.ready_within(1);
    pass(&mut world);
    assert_eq!(world.split(), [("2".into(), 100.0)]);
    assert!(available(&world));
}

#[test]
fn each_step_of_a_canary_has_workers_in_proportion() {
    let mut world = serving(10, 0);
    world.apply(stepped("2", 10, 0));
    pass(&mut world);
    assert_eq!(world.asked(), [("1".into(), 9), ("2".into(), 1)]);
    world.ready_within(10);
    pass(&mut world);
    assert_eq!(world.split(), [("1".into(), 90.0), ("2".into(), 10.0)]);
    world.pass_time(29);
    pass(&mut world);
    assert_eq!(world.asked(), [("1".into(), 9), ("2".into(), 1)], "the hold is not over");
    world.pass_time(1);
    let seen = walk(&mut world, 10, 12);
    assert_eq!(
        seen,
        [
            "1x8 2x2 | 1:88.89% 2:11.11%",
            "1x7 2x3 | 1:77.78% 2:22.22%",
            "1x6 2x4 | 1:66.67% 2:33.33%",
            "1x5 2x5 | 1:55.56% 2:44.44%",
            "1x5 2x5 | 1:50% 2:50%",
        ]
    );
    assert!(world.report().waiting_on[0].starts_with("the hold of 1m at 50 %"), "{:?}", world.report().waiting_on);
    world.pass_time(60);
    let seen = walk(&mut world, 10, 12);
    assert_eq!(seen.last().unwrap(), "1x0 2x10 | 2:100%");
    assert_eq!(world.report().phase, Phase::Completed);
}

#[test]
fn a_step_that_has_not_its_workers_yet_says_so() {
    let mut world = serving(10, 0);
    world.apply(stepped("2", 10, 0));
    pass(&mut world);
    world.ready_within(10);
    pass(&mut world);
    world.pass_time(30);
    pass(&mut world);
    let report = world.report();
    assert_eq!(report.waiting_on[0], "1 of 5 workers of version 2 are ready for 50 % of the traffic");
    assert_eq!(report.phase, Phase::Progressing);
    assert!(report.waiting_on[1].contains("room for 10 workers (maxSurge 0)"), "{report:?}");
}

#[test]
fn a_failing_canary_goes_back_at_once() {
    let mut world = serving(10, 0);
    let strategy = Strategy::Canary(Canary { max_surge: Some(0), ..canary() });
    world.apply(DeploymentSpec { replicas: 10, ..spec("2", strategy) });
    walk(&mut world, 10, 3);
    world.evidence(2, 2, 5);
    pass(&mut world);
    assert_eq!(world.split(), [("1".into(), 100.0)]);
    let seen = walk(&mut world, 10, 3);
    assert_eq!(seen.last().unwrap(), "1x10 | 1:100%");
}

#[test]
fn a_canary_without_room_for_two_is_replaced_like_any_other() {
    let mut world = serving(1, 0);
    world.apply(stepped("2", 1, 0));
    assert_eq!(walk(&mut world, 1, 4), ["1x0 2x1 | 1:100%", "1x0 2x1 | 2:100%"]);
}

#[test]
fn a_rollback_to_a_version_that_was_not_kept_warm_walks_the_same_path() {
    let mut world = serving(3, 0);
    world.apply(rolling("2", 3, 0));
    walk(&mut world, 3, 8);
    world.roll_back(1);
    assert_eq!(walk(&mut world, 3, 8), ["1x1 2x2 | 2:100%", "1x2 2x1 | 2:50% 1:50%", "1x3 2x0 | 1:100%",]);
    assert_eq!(world.report().phase, Phase::Completed);
}

#[test]
fn a_rollback_obeys_the_bound_of_the_version_it_leaves() {
    let mut world = World::new();
    world.apply(DeploymentSpec { replicas: 3, ..spec("1", Strategy::rolling()) });
    world.settle();
    world.apply(rolling("2", 3, 0));
    walk(&mut world, 3, 8);
    world.roll_back(1);
    let seen = walk(&mut world, 3, 8);
    assert_eq!(seen.first().unwrap(), "1x1 2x2 | 2:100%");
    assert_eq!(seen.last().unwrap(), "1x3 2x0 | 1:100%");
}

#[test]
fn a_rollback_in_mid_way_goes_at_once_while_the_old_version_has_as_many_workers() {
    let mut world = serving(4, 0);
    world.apply(rolling("2", 4, 0));
    assert_eq!(walk(&mut world, 4, 2).last().unwrap(), "1x2 2x2 | 1:66.67% 2:33.33%");
    world.roll_back(1);
    assert_eq!(pass(&mut world), ["1:100%"]);
    assert!(matches!(world.outcomes[&RevisionNumber(2)], Outcome::RolledBack { .. }));
    assert_eq!(walk(&mut world, 4, 4).last().unwrap(), "1x4 | 1:100%");
}

#[test]
fn a_rollback_late_on_the_way_does_not_overrun_the_workers_that_are_left() {
    let mut world = serving(4, 0);
    world.apply(rolling("2", 4, 0));
    walk(&mut world, 4, 3);
    assert_eq!(world.asked(), [("1".into(), 1), ("2".into(), 3)]);
    world.roll_back(1);
    assert_eq!(pass(&mut world), ["2:66.67%", "1:33.33%"], "what has most of the workers goes on serving");
    assert_eq!(walk(&mut world, 4, 8).last().unwrap(), "1x4 2x0 | 1:100%");
}

#[test]
fn a_pause_holds_the_replacement_where_it_is() {
    let mut world = serving(4, 0);
    world.apply(rolling("2", 4, 0));
    walk(&mut world, 4, 2);
    world.pause();
    assert_eq!(walk(&mut world, 4, 4), ["1x2 2x2 | 1:66.67% 2:33.33%"]);
    world.resume();
    assert_eq!(walk(&mut world, 4, 8).last().unwrap(), "1x0 2x4 | 2:100%");
}

#[test]
fn nothing_moves_while_it_is_unknown_what_runs() {
    let mut world = serving(4, 0);
    world.apply(rolling("2", 4, 0));
    walk(&mut world, 4, 2);
    let split = pass(&mut world);
    for version in [1, 2] {
        let id = world.workload(version);
        let seen = world.inputs.observation.workloads.insert(id.clone(), Observed::Unknown { reason: "lost".into() });
        let next = plan(&world.inputs);
        assert!(next.is_settled(), "{next}");
        assert_eq!(pass(&mut world), split);
        world.inputs.observation.workloads.extend(seen.map(|seen| (id, seen)));
    }
}

#[test]
fn a_newcomer_that_loses_all_workers_gives_the_traffic_back() {
    let mut world = serving(3, 0);
    world.apply(rolling("2", 3, 0));
    walk(&mut world, 3, 3);
    assert_eq!(world.asked(), [("1".into(), 0), ("2".into(), 3)]);
    let id = world.workload(2);
    world.set_ready(&id, 0);
    pass(&mut world);
    assert_eq!(world.asked(), [("1".into(), 1), ("2".into(), 2)]);
    assert_eq!(world.split(), [("1".into(), 100.0)]);
}

#[test]
fn where_the_cluster_chooses_the_number_its_lower_limit_makes_a_version_ready() {
    let limits = Autoscaling { min_replicas: 2, max_replicas: 6, target_cpu_utilization: 80 };
    let mut world = World::new();
    world.apply(DeploymentSpec { replicas: 4, autoscaling: Some(limits), ..spec("1", Strategy::rolling()) });
    pass(&mut world);
    let id = world.workload(1);
    world.set_ready(&id, 1);
    pass(&mut world);
    assert_eq!(world.report().waiting_on, ["1 of 2 workers of version 1 are ready"]);
    world.set_ready(&id, 2);
    pass(&mut world);
    assert_eq!(world.report().phase, Phase::Completed);
    let Some(Observed::Known(status)) = world.inputs.observation.workloads.get_mut(&id) else { panic!("it runs") };
    let sixth = status.replicas.first().cloned().unwrap();
    status.replicas.extend([sixth.clone(), sixth]);
    assert!(plan(&world.inputs).is_settled(), "how many there are is the cluster's business");
    let report = world.report();
    assert_eq!((report.variants[0].ready, report.variants[0].replicas), (4, 6), "the numbers are those seen");
}

#[test]
fn where_the_cluster_chooses_the_number_the_limits_of_both_versions_share_the_room() {
    let limits = Autoscaling { min_replicas: 2, max_replicas: 4, target_cpu_utilization: 80 };
    let scaled = |version| DeploymentSpec { autoscaling: Some(limits), ..rolling(version, 2, 0) };
    let mut world = World::new();
    world.apply(scaled("1"));
    world.settle();
    world.apply(scaled("2"));
    pass(&mut world);
    let max = |world: &World, revision| {
        let status = world.inputs.observation.of(&world.workload(revision)).known().cloned().unwrap();
        status.workload.autoscaling.map(|a| (a.min_replicas, a.max_replicas))
    };
    assert_eq!((max(&world, 1), max(&world, 2)), (Some((2, 3)), Some((1, 1))));
    world.settle();
    assert_eq!((max(&world, 1), max(&world, 2)), (None, Some((2, 4))));
}

#[test]
fn the_words_before_say_that_there_is_a_gap() {
    let mut world = serving(1, 0);
    let before = world.desired().clone();
    world.apply(rolling("2", 1, 0));
    insta::assert_snapshot!(outline(&world.name, Some(&before), world.desired()).join("\n"), @r"
    linear: stop version 1, then start 1 worker(s) of linear version 2 in its place: there is room for one, and nothing serves in between
    linear: move traffic to them as they get ready
    linear: stop version 1, for want of room: a rollback starts it again, in place
    ");
}

#[test]
fn the_words_before_say_how_workers_take_each_others_place() {
    let mut world = serving(4, 1);
    let before = world.desired().clone();
    world.apply(stepped("2", 4, 1));
    insta::assert_snapshot!(outline(&world.name, Some(&before), world.desired()).join("\n"), @r"
    linear: start 4 worker(s) of linear version 2 in the place of version 1, one after the other: at most 5 worker(s) of both
    linear: move traffic 10 % (hold 30s) → 50 % (hold 1m) → 100 %
    linear: keep 1 worker(s) of version 1 warm for 10m
    ");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// In a cluster with room for no more than the larger version and the surge, whatever follows whatever, it ends.
    #[test]
    fn a_full_cluster_never_deadlocks(
        changes in prop::collection::vec((1u8..4, 1u32..6, any::<bool>(), 0u8..4, 0usize..6), 1..6),
        max_surge in 0u32..3,
    ) {
        let mut world = World::new();
        let mut largest = 0;
        for (version, replicas, is_stepped, back, passes) in changes {
            let version = version.to_string();
            if back == 0 && world.history.len() > 1 {
                world.roll_back(1);
            } else if is_stepped {
                world.apply(stepped(&version, replicas, max_surge));
                largest = largest.max(replicas);
            } else {
                world.apply(rolling(&version, replicas, max_surge));
                largest = largest.max(replicas);
            }
            for _ in 0..passes {
                pass(&mut world);
                world.ready_within(largest + max_surge);
            }
        }
        for _ in 0..60 {
            pass(&mut world);
            world.ready_within(largest + max_surge);
            world.pass_time(30);
        }
        let report = world.report();
        prop_assert_eq!(report.phase, Phase::Completed, "{:?}", report);
    }
}
