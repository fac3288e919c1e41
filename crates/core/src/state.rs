//! The persisted state of a deployment: its revisions, and how far the walk to the latest one has come.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ab_test::RevisionVariant;
use crate::deployment::DeploymentSpec;
use crate::experiment::Experiment;
use crate::names::{Actor, AliasName, DeploymentName, RevisionNumber, VariantName};
use crate::timestamp::Timestamp;
use crate::verdict::Verdict;
use crate::version::ModelVersion;
use crate::weight::Weight;
use crate::workload::Workload;

/// One accepted spec of a deployment, with its version resolved. Immutable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Revision {
    pub number: RevisionNumber,
    pub spec: DeploymentSpec,
    /// What `spec.version` meant when the revision was made.
    pub version: ModelVersion,
    /// Of an A/B test: what serves side by side, with weights that sum to the whole. Else none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub variants: Vec<RevisionVariant>,
    pub cause: Cause,
    pub actor: Actor,
    pub created_at: Timestamp,
}

impl Revision {
    /// Of `version`.
    pub fn workload(&self, deployment: &DeploymentName) -> Workload {
        self.workload_of(deployment, &self.version)
    }

    /// Of one of its versions.
    pub fn workload_of(&self, deployment: &DeploymentName, version: &ModelVersion) -> Workload {
        Workload::new(deployment, &self.spec, version)
    }

    /// All that it runs, each once: variants of one version share a workload.
    pub fn workloads(&self, deployment: &DeploymentName) -> Vec<Workload> {
        if self.variants.is_empty() {
            return vec![self.workload(deployment)];
        }
        let mut workloads = Vec::<Workload>::new();
        for workload in self.variants.iter().map(|variant| self.workload_of(deployment, &variant.version)) {
            if workloads.iter().all(|known| known.id != workload.id) {
                workloads.push(workload);
            }
        }
        workloads
    }
}

/// Why a revision was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Cause {
    /// A manifest was applied.
    Applied,
    /// An alias that the spec follows was moved.
    AliasMoved { alias: AliasName },
    /// An experiment was ended by giving all traffic to one of its variants. `experiment`: the revision that began it.
    Concluded { experiment: RevisionNumber, winner: VariantName },
    /// A copy of an earlier revision, asked for by a person or decided by a rollout's analysis.
    Rollback { from: RevisionNumber, to: RevisionNumber, reason: String },
}

impl Cause {
    pub fn is_rollback(&self) -> bool {
        matches!(self, Self::Rollback { .. })
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Applied => f.write_str("applied"),
            Self::AliasMoved { alias } => write!(f, "alias {alias} moved"),
            Self::Concluded { experiment, winner } => {
                write!(f, "experiment of revision {experiment} concluded: {winner} won")
            }
            Self::Rollback { from, to, reason } => write!(f, "rollback from {from} to {to}: {reason}"),
        }
    }
}

/// How a revision's rollout ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Outcome {
    /// Not yet.
    Pending,
    /// It came to serve all traffic.
    Completed { at: Timestamp },
    /// Another revision came before it was done.
    Superseded { by: RevisionNumber },
    /// It was taken back before it served all traffic.
    RolledBack { by: RevisionNumber, reason: String },
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pending => f.write_str("in progress"),
            Self::Completed { .. } => f.write_str("completed"),
            Self::Superseded { by } => write!(f, "superseded by {by}"),
            Self::RolledBack { by, reason } => write!(f, "rolled back by {by}: {reason}"),
        }
    }
}

/// What the planner decided so far. Written by the control plane's commits alone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeploymentState {
    /// The revision that serves, or last served, all traffic.
    pub stable: Option<RevisionNumber>,
    /// The walk to the latest revision; `None` before the first.
    pub rollout: Option<Rollout>,
    /// Replaced revisions that are kept running, without traffic.
    pub warm: Vec<Warm>,
    /// The experiment that is running, or that ran last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub experiment: Option<Experiment>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    pub revision: RevisionNumber,
    pub phase: Phase,
    /// The canary step, from 0.
    pub step: u32,
    /// The revision's share of traffic; the stable revision has the rest.
    pub weight: Weight,
    pub started_at: Timestamp,
    /// When the phase, or the step in it, began.
    pub since: Timestamp,
    /// The step's warm-up is not over: requests count for a window of their own.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub warming: bool,
    /// The verdict that ended the last step.
    pub verdict: Option<Verdict>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    /// Its workers are not all ready yet.
    Starting,
    /// It has the weight of a step.
    Progressing,
    /// It serves all traffic.
    Completed,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Warm {
    pub revision: RevisionNumber,
    pub until: Timestamp,
}

/// What people ask of the rollout to one revision. Written by the API alone; void for any other revision.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Control {
    pub revision: RevisionNumber,
    /// Who paused it. A paused rollout takes no next step; a failing analysis still rolls it back.
    pub paused_by: Option<Actor>,
    /// Who asked to skip the remaining steps.
    pub promoted_by: Option<Actor>,
}
