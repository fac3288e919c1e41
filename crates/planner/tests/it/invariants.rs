//! What every plan keeps, whatever it was made from.

use modelyard_core::inputs::Inputs;
use modelyard_core::plan::Plan;
use modelyard_core::state::Phase;
use modelyard_core::{Observed, WorkloadId};
use modelyard_planner::plan;

use crate::world::World;

pub(crate) fn check(inputs: &Inputs, plan: &Plan) {
    for (name, route) in &plan.routes {
        let sum: u32 = route.variants.iter().map(|v| u32::from(v.weight.basis_points())).sum();
        assert_eq!(sum, 10_000, "weights of {name} sum to the whole: {route:?}");
        let mut workloads: Vec<_> = route.variants.iter().map(|v| &v.workload).collect();
        workloads.dedup();
        assert_eq!(workloads.len(), route.variants.len(), "no workload stands in a route twice");
        assert_eq!(route.variants.iter().filter(|v| v.fallback).count(), 1, "one variant is the judge");
        for variant in &route.variants {
            assert!(!plan.remove.contains(&variant.workload), "{} is routed to and removed", variant.workload);
            assert!(runs(inputs, plan, &variant.workload), "{} is routed to and kept running", variant.workload);
            let ready: Vec<_> =
                inputs.observation.of(&variant.workload).known().into_iter().flat_map(|s| s.ready()).collect();
            let routed: Vec<_> = variant.backends.iter().map(|b| (&b.id, b.address)).collect();
            assert_eq!(routed, ready, "traffic goes to the ready backends and to no others");
        }
    }
    for (name, report) in &plan.reports {
        let done = report.phase == Phase::Completed;
        assert!(done || !report.waiting_on.is_empty(), "{name} waits, and says on what: {report:?}");
    }
    for (name, commit) in &plan.commits {
        let before = &inputs.deployments[name];
        if let (Some(old), Some(new)) = (&before.state.rollout, &commit.state.rollout)
            && old.revision == new.revision
        {
            assert!((old.phase, old.step) <= (new.phase, new.step), "no phase goes backward: {old:?} -> {new:?}");
        }
    }
}

fn runs(inputs: &Inputs, plan: &Plan, id: &WorkloadId) -> bool {
    plan.ensure.contains_key(id) || !matches!(inputs.observation.of(id), Observed::Absent)
}

/// A plan whose decisions were written decides nothing more.
pub(crate) fn check_idempotent(mut world: World) {
    world.run();
    let again = plan(&world.inputs);
    assert!(again.commits.is_empty(), "{:?}", again.commits);
}
