//! What a walk knows: the revisions, what runs of them, what people ask, and what gateways saw.

use std::collections::BTreeSet;

use modelyard_core::state::Cause;
use modelyard_core::{Course, Observed, RevisionNumber, VariantName, Workload, WorkloadId, WorkloadStatus};

use super::Walk;
use crate::routes::target_variant;
use crate::runs::Runs;

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

    pub(super) fn workloads_of(&self, number: RevisionNumber) -> &[Workload] {
        self.runs.get(&number).map(Runs::workloads).unwrap_or_default()
    }

    pub(super) fn ids_of(&self, number: RevisionNumber) -> BTreeSet<&WorkloadId> {
        self.runs.get(&number).map(Runs::ids).unwrap_or_default()
    }

    /// Of each workload of a revision.
    pub(super) fn observed(&self, number: RevisionNumber) -> impl Iterator<Item = &'a Observed<WorkloadStatus>> {
        let inputs = self.inputs;
        self.workloads_of(number).iter().map(|workload| inputs.observation.of(&workload.id))
    }

    /// Whether all that it runs serves as the stable revision's. Where that is several workloads, other weights move
    /// traffic, so each must have a worker.
    pub(super) fn runs_as_stable(&self, number: RevisionNumber) -> bool {
        let Some(stable) = self.state.stable else { return false };
        let workloads = self.workloads_of(number);
        let is_up = || workloads.iter().all(|workload| self.ready_of(workload) > 0);
        self.ids_of(stable) == self.ids_of(number) && (workloads.len() == 1 || is_up())
    }

    /// What is unknown is not given up: it may be all that serves.
    pub(super) fn may_serve(&self, number: RevisionNumber) -> bool {
        self.observed(number).any(|o| matches!(o, Observed::Unknown { .. })) || self.ready_replicas(number) > 0
    }

    pub(super) fn ready_of(&self, workload: &Workload) -> u32 {
        count_ready(self.inputs.observation.of(&workload.id))
    }

    pub(super) fn ready_replicas(&self, number: RevisionNumber) -> u32 {
        self.observed(number).map(count_ready).fold(0, u32::saturating_add)
    }

    /// How many workers make a revision ready for all traffic.
    pub(super) fn needed_replicas(&self, number: RevisionNumber) -> u32 {
        self.runs.get(&number).map_or(1, Runs::needed)
    }

    /// What the target is called among the variants.
    pub(super) fn target_variant(&self) -> VariantName {
        target_variant(self.revisions.get(&self.rollout.revision), &self.rollout)
    }

    pub(super) fn version_of(&self, number: RevisionNumber) -> String {
        self.revisions.get(&number).map(|r| r.version.version.to_string()).unwrap_or_default()
    }

    /// `version 2`; of an A/B test `versions 1, 2`.
    pub(super) fn words_of(&self, number: RevisionNumber) -> String {
        let versions: Vec<_> = self.workloads_of(number).iter().map(|w| w.version.as_str()).collect();
        match versions.as_slice() {
            [_, _, ..] => format!("versions {}", versions.join(", ")),
            _ => format!("version {}", self.version_of(number)),
        }
    }

    pub(super) fn target_version(&self) -> String {
        self.version_of(self.rollout.revision)
    }
}

fn count_ready(observed: &Observed<WorkloadStatus>) -> u32 {
    let ready = observed.known().map_or(0, |status| status.ready().count());
    u32::try_from(ready).unwrap_or(u32::MAX)
}
