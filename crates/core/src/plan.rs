//! Plans: what a reconcile is going to do, as a value. `Display` is what `--dry-run` prints.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::event::EventDraft;
use crate::names::{DeploymentName, RevisionNumber, StateVersion, VariantName, VersionName};
use crate::route::Route;
use crate::state::{DeploymentState, Outcome, Phase};
use crate::timestamp::Timestamp;
use crate::verdict::Verdict;
use crate::weight::Weight;
use crate::workload::{Workload, WorkloadId};

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// 1: decisions, written before anything is done.
    pub commits: BTreeMap<DeploymentName, Commit>,
    /// 2: workloads to start, scale or stamp anew.
    pub ensure: BTreeMap<WorkloadId, Workload>,
    /// 3: the whole route table, but for its version.
    pub routes: BTreeMap<DeploymentName, Route>,
    /// 4: workloads that nothing wants and no gateway uses.
    pub remove: BTreeSet<WorkloadId>,
    /// 5: what people are told.
    pub reports: BTreeMap<DeploymentName, DeploymentReport>,
    /// When time alone changes the plan next.
    pub wake_at: Option<Timestamp>,
}

impl Plan {
    /// Whether there is nothing to do but to go on routing as before.
    pub fn is_settled(&self) -> bool {
        self.commits.is_empty() && self.ensure.is_empty() && self.remove.is_empty()
    }
}

/// The next state of a deployment, and what led to it. Refused if the state is no longer at `parent`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Commit {
    pub parent: StateVersion,
    pub state: DeploymentState,
    /// A revision that the system makes itself: the rollback that a failed analysis leads to.
    pub rollback: Option<RollbackDraft>,
    pub outcomes: BTreeMap<RevisionNumber, Outcome>,
    pub events: Vec<EventDraft>,
}

impl Commit {
    /// What was the latest revision when it was made. Numbers of revisions are never used twice, so that this tells a deployment
    /// from one of that name that was deleted, whose counts of writes begin anew.
    pub fn made_for(&self) -> Option<RevisionNumber> {
        let of_state = || self.state.rollout.as_ref().map(|rollout| rollout.revision);
        self.rollback.as_ref().map(|draft| draft.from).or_else(of_state)
    }
}

/// A revision to be made as a copy of another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RollbackDraft {
    /// The new revision's number: one above the latest.
    pub number: RevisionNumber,
    pub from: RevisionNumber,
    pub to: RevisionNumber,
    pub reason: String,
}

/// The status of a deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct DeploymentReport {
    /// The revision that this report is about: the latest that the reconciler has seen.
    pub observed_revision: RevisionNumber,
    pub phase: Phase,
    pub paused: bool,
    /// Of a canary: the step, from 0, and how many there are.
    pub step: Option<StepReport>,
    pub variants: Vec<VariantReport>,
    pub conditions: Vec<Condition>,
    /// What must happen before the rollout goes on; empty when it is done.
    pub waiting_on: Vec<String>,
    /// The analysis of the current step, as of now.
    pub verdict: Option<Verdict>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct StepReport {
    pub index: u32,
    pub count: u32,
    pub since: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct VariantReport {
    pub name: VariantName,
    pub revision: RevisionNumber,
    pub version: VersionName,
    pub workload: WorkloadId,
    pub weight: Weight,
    pub replicas: u32,
    pub ready: u32,
    pub restarts: u32,
    /// For a warm one: until when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm_until: Option<Timestamp>,
}

/// In the manner of Kubernetes: a named statement that is true, false or unknown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    pub kind: ConditionKind,
    pub status: bool,
    pub message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ConditionKind {
    /// Every variant with weight has a ready worker.
    Available,
    /// The latest revision's rollout is not done.
    Progressing,
    /// A version that serves has fewer ready workers than it should, and why.
    Degraded,
    /// Workers end again and again.
    CrashLooping,
    /// Somebody else's hand changed what runs; it is being mended, or was within the last minutes.
    Drifted,
    /// The analysis has had no verdict for longer than the progress deadline.
    Inconclusive,
    /// Units did not come to the variants of an experiment in the ratio of their shares: its figures are not to be
    /// believed.
    SampleRatioMismatch,
    /// The runtime did not do what it was asked for, and why: a quota, a missing right, a refusal; it is asked again.
    WorkloadFailure,
    /// The number of workers does not follow the load, though that was asked for, and why.
    AutoscalerFailing,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_settled() {
            return write!(f, "nothing to do");
        }
        for (name, commit) in &self.commits {
            for event in &commit.events {
                writeln!(f, "{name}: {}", event.message)?;
            }
        }
        for workload in self.ensure.values() {
            writeln!(
                f,
                "{}: run {} worker(s) of {} version {} ({})",
                workload.deployment, workload.replicas, workload.model, workload.version, workload.id
            )?;
        }
        for id in &self.remove {
            writeln!(f, "stop {id}")?;
        }
        Ok(())
    }
}
