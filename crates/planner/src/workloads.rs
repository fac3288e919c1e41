//! Which workloads a deployment's state calls for.

use std::collections::BTreeMap;

use modelyard_core::{DeploymentName, Workload, WorkloadId};

use crate::rollout::Next;

/// Those of the target, the stable and the warm revisions, which share none.
pub(crate) fn wanted(name: &DeploymentName, next: &Next) -> BTreeMap<WorkloadId, Workload> {
    let of = |number| next.revision(number).map(|revision| revision.workload(name));
    next.live_revisions().into_iter().filter_map(of).map(|workload| (workload.id.clone(), workload)).collect()
}
