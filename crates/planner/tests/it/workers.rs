//! What plans make of workers that come up, crash, hide or belong to another term of office.

use modelyard_core::event::EventKind;
use modelyard_core::plan::ConditionKind;
use modelyard_core::state::Phase;
use modelyard_core::{Observed, ReplicaPhase, Span, Strategy};
use modelyard_planner::plan;

use crate::world::{World, canary, spec};

#[test]
fn a_new_term_of_office_writes_nothing_and_moves_nothing() {
    let mut world = World::in_first_step();
    let route = world.route();
    world.inputs.epoch = world.inputs.epoch.next();
    let next = world.run();
    assert!(next.is_settled(), "{next}");
    assert_eq!(world.route(), route);
}

#[test]
fn a_workload_that_is_gone_is_started_again() {
    let mut world = World::with_version_1();
    let id = world.workload(1);
    for absent in [None, Some(Observed::Absent)] {
        world.inputs.observation.workloads.remove(&id);
        world.inputs.observation.workloads.extend(absent.map(|o| (id.clone(), o)));
        assert!(plan(&world.inputs).ensure.contains_key(&id));
    }
}

#[test]
fn what_is_absent_already_is_not_removed() {
    let mut world = World::with_version_1();
    let stray = World::in_first_step().workload(2);
    world.inputs.observation.workloads.insert(stray, Observed::Absent);
    assert!(plan(&world.inputs).is_settled());
}

#[test]
fn an_unknown_canary_gets_no_next_step() {
    let mut world = World::in_first_step();
    world.evidence(1000, 0, 5);
    world.pass_time(30);
    let id = world.workload(2);
    let seen = world.inputs.observation.workloads.insert(id.clone(), Observed::Unknown { reason: "lost".into() });
    let next = world.run();
    assert!(next.commits.is_empty() && !next.ensure.contains_key(&id) && !next.remove.contains(&id));
    assert_eq!(world.report().waiting_on, ["no worker of version 2 is ready"]);
    world.inputs.observation.workloads.extend(seen.map(|seen| (id, seen)));
    world.run();
    assert_eq!(world.split(), [("1".into(), 50.0), ("2".into(), 50.0)]);
}

#[test]
fn an_unfinished_first_revision_is_not_given_up_while_it_is_unknown_whether_it_serves() {
    let mut world = World::new();
    world.apply(spec("1", Strategy::rolling()));
    world.run();
    let id = world.workload(1);
    world.set_ready(&id, 1);
    world.run();
    let seen = world.inputs.observation.workloads.insert(id.clone(), Observed::Unknown { reason: "lost".into() });
    world.apply(spec("2", Strategy::rolling()));
    world.run();
    world.inputs.observation.workloads.extend(seen.map(|seen| (id.clone(), seen)));
    assert!(!world.run().remove.contains(&id));
    assert_eq!(world.route().variants[0].backends.len(), 1, "it serves until version 2 does");
    world.settle();
    assert_eq!(world.split(), [("2".into(), 100.0)]);
}

#[test]
fn a_first_revision_that_never_came_up_leaves_nothing_behind() {
    let mut world = World::new();
    world.apply(spec("1", Strategy::rolling()));
    world.run();
    let failed = world.workload(1);
    world.apply(spec("2", Strategy::Canary(canary())));
    world.run();
    assert_eq!(world.split(), [("2".into(), 100.0)], "there is nothing to share traffic with");
    assert!(world.run().remove.contains(&failed));
}

#[test]
fn without_a_window_the_replaced_workers_end_once_traffic_has_left_them() {
    let mut world = World::with_version_1();
    let old = world.workload(1);
    world.apply(modelyard_core::DeploymentSpec {
        rollback_window: Span::from_millis(0),
        ..spec("2", Strategy::rolling())
    });
    world.run();
    world.all_ready();
    let next = plan(&world.inputs);
    assert!(!next.remove.contains(&old), "this plan moves the traffic");
    let told: Vec<_> = next.commits[&world.name].events.iter().map(|e| e.kind).collect();
    assert_eq!(told, [EventKind::RolloutCompleted, EventKind::WeightsChanged], "it never was warm");
    world.execute(&next);
    assert!(!plan(&world.inputs).remove.contains(&old), "a gateway may not have heard");
    world.gateways_report();
    assert!(plan(&world.inputs).remove.contains(&old));
}

#[test]
fn several_replaced_versions_are_warm_each_for_its_own_time() {
    let mut world = World::with_version_1();
    for version in ["2", "3"] {
        world.pass_time(60);
        world.apply(spec(version, Strategy::rolling()));
        world.settle();
    }
    let warm: Vec<_> = world.desired().state.warm.iter().map(|w| w.revision.0).collect();
    assert_eq!(warm, [1, 2]);
    world.pass_time(540);
    world.settle();
    let warm: Vec<_> = world.desired().state.warm.iter().map(|w| w.revision.0).collect();
    assert_eq!(warm, [2]);
}

#[test]
fn deployments_do_not_disturb_each_other() {
    let mut world = World::in_first_step();
    let wake_at = plan(&world.inputs).wake_at;
    let other: modelyard_core::DeploymentName = "other".parse().unwrap();
    let mut twin = world.desired().clone();
    (twin.state, twin.target) = (modelyard_core::state::DeploymentState::default(), modelyard_core::RevisionNumber(1));
    world.inputs.deployments.insert(other.clone(), twin);
    let both = plan(&world.inputs);
    assert_eq!(both.commits.keys().collect::<Vec<_>>(), [&other]);
    assert_eq!(both.routes[&world.name], world.route());
    assert_eq!(both.wake_at, wake_at);
    assert!(both.ensure.values().all(|w| w.deployment == other) && both.remove.is_empty());
}

#[test]
fn a_deleted_deployment_leaves_the_routes_first_and_then_its_workers_end() {
    let mut world = World::with_version_1();
    let id = world.workload(1);
    world.inputs.deployments.clear();
    let next = plan(&world.inputs);
    assert!(next.routes.is_empty() && next.remove.is_empty());
    world.execute(&next);
    world.gateways_report();
    assert_eq!(plan(&world.inputs).remove, [id].into());
}

#[test]
fn a_crash_loop_is_named_with_the_words_of_the_worker() {
    let mut world = World::with_version_1();
    world.apply(spec("2", Strategy::rolling()));
    world.run();
    let id = world.workload(2);
    world.set_ready(&id, 1);
    let Some(Observed::Known(status)) = world.inputs.observation.workloads.get_mut(&id) else { panic!("it runs") };
    let until = world.inputs.now + Span::from_secs(10);
    status.replicas[1].phase = ReplicaPhase::BackOff { until };
    status.replicas[1].restarts = 3;
    status.replicas[1].message = Some("exit code 1: no such operator".into());
    world.run();
    let report = world.report();
    assert_eq!(report.phase, Phase::Starting);
    assert_eq!(
        report.waiting_on,
        [
            "1 of 2 workers of version 2 are ready",
            "worker 1: crashed, starts again at 2025-11-24T16:00:10.000Z (exit code 1: no such operator)",
        ]
    );
    let looping = report.conditions.iter().find(|c| c.kind == ConditionKind::CrashLooping).unwrap();
    assert_eq!(looping.message, "a worker of version 2 ended 3 times: exit code 1: no such operator");
    assert!(report.conditions.iter().any(|c| c.kind == ConditionKind::Available && c.status), "version 1 serves");
}
