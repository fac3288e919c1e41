//! What a walk knows: the revisions, what runs of them, what people ask, and what gateways saw.

use modelyard_core::state::Cause;
use modelyard_core::{Course, Observed, RevisionNumber, VariantName, Workload, WorkloadId, WorkloadStatus};

use super::Walk;
use crate::routes::target_variant;

impl<'a> Walk<'a> {
    pub(super) fn cause_of(&self, number: RevisionNumber) -> Option<Cause> {
        self.revisions.get(&number).map(|r| r.cause.clone())
    }

    pub(super) fn is_rollback(&self) -> bool {
        self.cause_of(self.rollout.revision).is_some_and(|cause| cause.is_rollback())
    }

    pub(super) fn is_promoted(&self) -> bool {
        let control = &self.desired.control;
        control.revision == self.rollout.revision && control.promoted_by.is_some()
    }

    pub(super) fn is_warm(&self, number: RevisionNumber) -> bool {
        self.state.warm.iter().any(|w| w.revision == number)
    }

    /// The stages that the target walks, by its strategy.
    pub(super) fn course(&self) -> Option<Course> {
        self.revisions.get(&self.rollout.revision)?.spec.strategy.course()
    }

    /// Whether the target's own manifest bounds how many workers there may be.
    pub(super) fn is_bounded(&self) -> bool {
        let target = self.revisions.get(&self.rollout.revision);
        target.is_some_and(|revision| revision.spec.strategy.max_surge().is_some())
    }

    pub(super) fn workload_of(&self, number: RevisionNumber) -> Option<&WorkloadId> {
        self.workloads.get(&number).map(|workload| &workload.id)
    }

    pub(super) fn observed(&self, number: RevisionNumber) -> &'a Observed<WorkloadStatus> {
        self.workload_of(number).map_or(&Observed::Absent, |id| self.inputs.observation.of(id))
    }

    pub(super) fn runs_as_stable(&self, number: RevisionNumber) -> bool {
        let stable = self.state.stable.and_then(|stable| self.workload_of(stable));
        stable.is_some() && stable == self.workload_of(number)
    }

    /// What is unknown is not given up: it may be all that serves.
    pub(super) fn may_serve(&self, number: RevisionNumber) -> bool {
        matches!(self.observed(number), Observed::Unknown { .. }) || self.ready_replicas(number) > 0
    }

    pub(super) fn ready_replicas(&self, number: RevisionNumber) -> u32 {
        let ready = self.observed(number).known().map_or(0, |status| status.ready().count());
        u32::try_from(ready).unwrap_or(u32::MAX)
    }

    /// How many workers make a revision ready for all traffic.
    pub(super) fn needed_replicas(&self, number: RevisionNumber) -> u32 {
        self.workloads.get(&number).map_or(1, Workload::needed)
    }

    /// What the target is called among the variants.
    pub(super) fn target_variant(&self) -> VariantName {
        target_variant(self.revisions.get(&self.rollout.revision), &self.rollout)
    }

    pub(super) fn version_of(&self, number: RevisionNumber) -> String {
        self.revisions.get(&number).map(|r| r.version.version.to_string()).unwrap_or_default()
    }

    pub(super) fn target_version(&self) -> String {
        self.version_of(self.rollout.revision)
    }
}
