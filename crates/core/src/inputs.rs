//! Everything a plan is made from, gathered before it is made.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::evidence::{Evidence, EvidenceKey};
use crate::figure::Figure;
use crate::names::{AliasName, DeploymentName, Epoch, ModelName, RevisionNumber, StateVersion, VersionName};
use crate::observation::{Observation, Observed};
use crate::state::{Control, DeploymentState, Revision};
use crate::timestamp::Timestamp;
use crate::workload::WorkloadId;

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Inputs {
    pub now: Timestamp,
    pub epoch: Epoch,
    pub deployments: BTreeMap<DeploymentName, DesiredDeployment>,
    pub aliases: Aliases,
    pub observation: Observation,
    /// What the runtime was asked for and did not do, in words, by workload: until it has done what was asked last.
    pub failures: BTreeMap<WorkloadId, String>,
    /// What was changed by somebody else's hand within the last minutes, and set back.
    pub drifts: BTreeMap<WorkloadId, Drift>,
    pub evidence: BTreeMap<EvidenceKey, Evidence>,
    /// What a Prometheus answered lately, by query, or why there is no number.
    pub measurements: BTreeMap<String, Result<Figure, String>>,
    /// Workloads that a gateway may still send to, by the table published last and by what gateways report. Unknown
    /// while gateways that served an earlier control plane may not have reported to this one yet.
    pub in_use: Observed<BTreeSet<WorkloadId>>,
}

/// Where the aliases of models point.
pub type Aliases = BTreeMap<ModelName, BTreeMap<AliasName, VersionName>>;

/// Drift that is mended is soon gone; this is what people are told of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drift {
    /// Each difference that was seen, once.
    pub differences: BTreeSet<String>,
    /// How often the workload was found changed.
    pub times: u32,
    pub last: Timestamp,
}

/// A deployment as Postgres has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredDeployment {
    /// The latest revision.
    pub target: RevisionNumber,
    /// The target, and every revision that the state names.
    pub revisions: BTreeMap<RevisionNumber, Revision>,
    pub control: Control,
    pub state: DeploymentState,
    /// What the state was read at, and must still be at when a plan made from it is committed.
    pub parent: StateVersion,
}
