//! One plan: each deployment's next state, and from that the workloads, routes and reports that belong to it.

use std::collections::BTreeMap;

use modelyard_core::inputs::Inputs;
use modelyard_core::plan::Plan;
use modelyard_core::{Observed, Workload, WorkloadId};

use crate::{experiment, report, rollout, routes};

/// What to do now. Done and seen to be done, the next plan is settled.
pub fn plan(inputs: &Inputs) -> Plan {
    let mut plan = Plan::default();
    let mut wanted = BTreeMap::new();
    for (name, desired) in &inputs.deployments {
        let next = rollout::advance(name, desired, inputs);
        let route = routes::route(name, &next, inputs);
        let ratio = experiment::ratio_of_route(name, &route, &inputs.evidence);
        plan.reports.insert(name.clone(), report::report(name, &next, &route, inputs, ratio.as_ref()));
        plan.routes.insert(name.clone(), route);
        plan.wake_at = plan.wake_at.into_iter().chain(next.wake_at).min();
        wanted.extend(next.wanted);
        plan.commits.extend(next.commit.map(|commit| (name.clone(), commit)));
    }
    plan.remove = inputs.observation.workloads.keys().filter(|id| is_unused(id, &wanted, inputs)).cloned().collect();
    plan.ensure = wanted.into_iter().filter(|(_, workload)| needs_ensuring(workload, inputs)).collect();
    plan
}

/// An unknown workload is left alone: it may be as wanted, and only a new observation tells. One that an earlier term
/// of office asked for, and that is as wanted, needs no write either: a restart writes nothing.
fn needs_ensuring(workload: &Workload, inputs: &Inputs) -> bool {
    match inputs.observation.of(&workload.id) {
        Observed::Absent => true,
        Observed::Known(status) => status.workload != *workload || !status.drift.is_empty(),
        Observed::Unknown { .. } => false,
    }
}

/// Traffic moves last, and moves away first: a workload ends once no gateway can still send to it.
fn is_unused(id: &WorkloadId, wanted: &BTreeMap<WorkloadId, Workload>, inputs: &Inputs) -> bool {
    let is_there = *inputs.observation.of(id) != Observed::Absent;
    is_there && !wanted.contains_key(id) && inputs.in_use.known().is_some_and(|in_use| !in_use.contains(id))
}
