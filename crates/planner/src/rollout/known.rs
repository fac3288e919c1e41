//! What a walk knows: the revisions, what runs of them, what people ask, and what gateways saw.

use modelyard_core::state::Cause;
use modelyard_core::{
    Course, Evidence, EvidenceKey, Observed, RevisionNumber, VariantName, Window, Workload, WorkloadId,
    WorkloadStatus,
};

use super::Walk;

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

    pub(super) fn evidence(&self) -> Evidence {
        let revision = self.rollout.revision;
        let window = Window { revision, step: self.rollout.step + 1 };
        // A version of a course without traffic goes by another name than a canary.
        let variant = self.course().map_or_else(VariantName::canary, |course| course.variant());
        let key = EvidenceKey { deployment: self.name.clone(), window, revision, variant };
        self.inputs.evidence.get(&key).cloned().unwrap_or_default()
    }

    pub(super) fn version_of(&self, number: RevisionNumber) -> String {
        self.revisions.get(&number).map(|r| r.version.version.to_string()).unwrap_or_default()
    }

    pub(super) fn target_version(&self) -> String {
        self.version_of(self.rollout.revision)
    }
}
