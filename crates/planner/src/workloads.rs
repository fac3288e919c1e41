//! Which workloads a deployment's state calls for.

use std::collections::BTreeMap;

use modelyard_core::{Workload, WorkloadId};

use crate::rollout::Next;

/// Those of the target, the stable and the warm revisions, which share none, with as many workers as each may have.
pub(crate) fn wanted(next: &Next) -> BTreeMap<WorkloadId, Workload> {
    next.live().map(|(_, workload)| (workload.id.clone(), workload)).collect()
}
