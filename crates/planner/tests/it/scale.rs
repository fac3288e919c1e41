//! A thousand deployments in one plan.

use std::time::{Duration, Instant};

use modelyard_core::{DeploymentName, Observed, Strategy, WorkloadStatus};
use modelyard_planner::plan;

use crate::world::{World, canary, spec, write};

/// Far above what it takes, and far below what anything quadratic would.
const LIMIT: Duration = Duration::from_secs(2);

#[test]
fn a_thousand_settled_deployments_are_planned_in_milliseconds() {
    let mut world = World::in_first_step();
    world.apply(spec("3", Strategy::Canary(canary())));
    let desired = world.desired().clone();
    let mut inputs = world.inputs.clone();
    for n in 0..1000 {
        let name: DeploymentName = format!("d{n}").parse().unwrap();
        inputs.deployments.insert(name, desired.clone());
    }
    let seen = inputs.observation.of(&world.workload(1)).known().unwrap().replicas.clone();
    loop {
        let next = plan(&inputs);
        for (name, commit) in &next.commits {
            write(inputs.deployments.get_mut(name).unwrap(), commit, inputs.now);
        }
        for (id, workload) in next.ensure.clone() {
            let epoch = inputs.epoch;
            let replicas = seen.clone();
            let status =
                WorkloadStatus { workload, epoch, replicas, drift: Vec::new(), messages: Vec::new(), autoscaler: None };
            inputs.observation.workloads.insert(id, Observed::Known(status));
        }
        if next.commits.is_empty() && next.ensure.is_empty() {
            break;
        }
    }
    let began = Instant::now();
    let next = plan(&inputs);
    let took = began.elapsed();
    eprintln!("1,001 deployments, {} workloads: planned in {took:?}", inputs.observation.workloads.len());
    assert_eq!((next.commits.len(), next.ensure.len(), next.reports.len()), (0, 0, 1001));
    assert!(took < LIMIT, "{took:?}");
}
