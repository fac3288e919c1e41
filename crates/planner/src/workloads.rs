//! Which workloads a deployment's state calls for.

use std::collections::BTreeMap;

use modelyard_core::{DeploymentName, Workload, WorkloadId};

use crate::rollout::Next;

/// Those of the target, the stable and the warm revisions. Where revisions share one, the newest says how many
/// replicas it has.
pub(crate) fn wanted(name: &DeploymentName, next: &Next) -> BTreeMap<WorkloadId, Workload> {
    let mut numbers = next.live_revisions();
    numbers.sort_unstable();
    let of = |number| next.revision(number).map(|revision| revision.workload(name));
    numbers.into_iter().filter_map(of).map(|workload| (workload.id.clone(), workload)).collect()
}
