//! What people are told of workers that lag, in the runtime's own words.

use modelyard_core::plan::{ConditionKind, DeploymentReport};
use modelyard_core::state::Phase;
use modelyard_core::{Observed, ReplicaPhase, Span, Strategy, WorkloadId, WorkloadStatus};

use crate::world::{World, spec};

const UNSCHEDULABLE: &str = "Unschedulable: 0/1 nodes are available: 1 Insufficient cpu.";

fn status<'w>(world: &'w mut World, id: &WorkloadId) -> &'w mut WorkloadStatus {
    let Some(Observed::Known(status)) = world.inputs.observation.workloads.get_mut(id) else { panic!("it runs") };
    status
}

fn message(report: &DeploymentReport, kind: ConditionKind) -> Option<&str> {
    report.conditions.iter().find(|c| c.kind == kind && c.status).map(|c| c.message.as_str())
}

/// Version 2 of ten workers comes up beside version 1.
fn ten_starting() -> (World, WorkloadId) {
    let mut world = World::with_version_1();
    world.apply(modelyard_core::DeploymentSpec { replicas: 10, ..spec("2", Strategy::rolling()) });
    world.run();
    let id = world.workload(2);
    world.set_ready(&id, 1);
    (world, id)
}

#[test]
fn workers_in_the_same_trouble_are_told_of_once_with_their_number() {
    let (mut world, id) = ten_starting();
    for replica in &mut status(&mut world, &id).replicas[1..] {
        replica.message = Some(UNSCHEDULABLE.into());
    }
    status(&mut world, &id).replicas[9].message = Some("ErrImagePull: not found".into());
    world.run();
    assert_eq!(
        world.report().waiting_on,
        [
            "1 of 10 workers of version 2 are ready".to_owned(),
            format!("8 workers: starting ({UNSCHEDULABLE})"),
            "worker 9: starting (ErrImagePull: not found)".to_owned(),
        ]
    );
}

#[test]
fn workers_that_crash_alike_are_one_trouble_though_they_start_again_at_different_times() {
    let (mut world, id) = ten_starting();
    let now = world.inputs.now;
    for (seconds, replica) in (1..).zip(&mut status(&mut world, &id).replicas[1..4]) {
        replica.phase = ReplicaPhase::BackOff { until: now + Span::from_secs(40 - seconds) };
        replica.message = Some("OOMKilled: exit code 137".into());
    }
    world.run();
    assert_eq!(
        world.report().waiting_on[1],
        "3 workers: crashed, starts again at 2025-11-24T16:00:37.000Z (OOMKilled: exit code 137)"
    );
}

#[test]
fn what_no_worker_can_tell_is_told_first() {
    let (mut world, id) = ten_starting();
    let quota = "exceeded quota: gpus, requested: 1, used: 1, limited: 1";
    let status = status(&mut world, &id);
    status.messages = vec![quota.into(), quota.into()];
    status.replicas.truncate(1);
    world.run();
    assert_eq!(world.report().waiting_on, ["1 of 10 workers of version 2 are ready", quota]);
}

#[test]
fn a_serving_version_that_lacks_workers_says_why_after_its_rollout_too() {
    let mut world = World::with_version_1();
    assert_eq!(message(&world.report(), ConditionKind::Degraded), None);
    let id = world.workload(1);
    world.set_ready(&id, 1);
    status(&mut world, &id).replicas[1].message = Some(UNSCHEDULABLE.into());
    let report = world.report();
    assert_eq!(report.phase, Phase::Completed);
    assert!(report.waiting_on.is_empty(), "the rollout is done");
    let words = format!("1 of 2 workers of version 1 are ready; worker 1: starting ({UNSCHEDULABLE})");
    assert_eq!(message(&report, ConditionKind::Degraded), Some(words.as_str()));
    world.all_ready();
    assert_eq!(message(&world.report(), ConditionKind::Degraded), None);
}

#[test]
fn a_version_that_is_coming_up_is_waited_on_and_not_degraded() {
    let (world, _) = ten_starting();
    assert_eq!(message(&world.report(), ConditionKind::Degraded), None);
    let mut first = World::new();
    first.apply(spec("1", Strategy::rolling()));
    first.run();
    assert_eq!(message(&first.report(), ConditionKind::Degraded), None);
}

#[test]
fn drift_is_told_while_it_lasts() {
    let mut world = World::with_version_1();
    let id = world.workload(1);
    status(&mut world, &id).drift = vec!["the Service is missing".into()];
    let words = format!("{id}: the Service is missing; it is being mended");
    assert_eq!(message(&world.report(), ConditionKind::Drifted), Some(words.as_str()));
    world.run();
    assert_eq!(message(&world.report(), ConditionKind::Drifted), None, "ensured again");
}

#[test]
fn what_the_runtime_did_not_do_is_told_until_it_is_done() {
    let mut world = World::with_version_1();
    world.apply(spec("2", Strategy::rolling()));
    world.run();
    let id = world.workload(2);
    let words = format!("{id} could not be ensured: refused: exceeded quota");
    world.inputs.observation.workloads.remove(&id);
    world.inputs.failures.insert(id, words.clone());
    world.run();
    assert!(world.report().waiting_on.contains(&words), "{:?}", world.report().waiting_on);
    assert_eq!(message(&world.report(), ConditionKind::WorkloadFailure), Some(&*format!("{words}; trying again")));

    world.inputs.failures.clear();
    world.run();
    assert_eq!(message(&world.report(), ConditionKind::WorkloadFailure), None);
}

#[test]
fn a_workload_that_cannot_be_removed_is_told_of_though_nothing_wants_it() {
    let mut world = World::with_version_1();
    let id: WorkloadId = "linear-0123456789".parse().unwrap();
    let other: WorkloadId = "linear-two-0123456789".parse().unwrap();
    world.inputs.failures.insert(id, "it could not be removed".into());
    world.inputs.failures.insert(other, "of another deployment".into());
    world.run();
    assert_eq!(message(&world.report(), ConditionKind::WorkloadFailure), Some("it could not be removed; trying again"));
}
