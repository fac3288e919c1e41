//! Workloads: what a runtime runs for one (deployment, version, settings).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::deployment::{Autoscaling, Batching, DeploymentSpec, DisruptionBudget, Labels, Resources, Toleration};
use crate::digest::Digest;
use crate::names::{DeploymentName, ModelName, NameError, VersionName};
use crate::version::{Format, ModelVersion};

/// Names a workload: the deployment and a hash of all that shapes its workers, `linear-1f0c2a9b4d`.
///
/// The number of replicas, and who may change it, is no part of it: scaling keeps the workload. Two revisions with the same version and
/// settings share one, which is what makes a rollback to a warm version instant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(try_from = "String", into = "String")]
pub struct WorkloadId(String);

impl WorkloadId {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for WorkloadId {
    type Err = NameError;
    fn from_str(s: &str) -> Result<Self, NameError> {
        let fine = s.rsplit_once('-').is_some_and(|(name, hash)| {
            name.parse::<DeploymentName>().is_ok() && hash.len() == 10 && hash.bytes().all(|b| b.is_ascii_hexdigit())
        });
        if fine { Ok(Self(s.to_owned())) } else { Err(NameError::new("workload id", s, "use NAME-HASH")) }
    }
}

impl TryFrom<String> for WorkloadId {
    type Error = NameError;
    fn try_from(s: String) -> Result<Self, NameError> {
        s.parse()
    }
}

impl From<WorkloadId> for String {
    fn from(id: WorkloadId) -> String {
        id.0
    }
}

impl fmt::Display for WorkloadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Everything a runtime needs to run a version for a deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workload {
    pub id: WorkloadId,
    pub deployment: DeploymentName,
    pub model: ModelName,
    pub version: VersionName,
    pub format: Format,
    pub digest: Digest,
    pub replicas: u32,
    pub resources: Resources,
    pub batching: Option<Batching>,
    pub node_selector: Labels,
    pub tolerations: Vec<Toleration>,
    pub autoscaling: Option<Autoscaling>,
    pub disruption_budget: Option<DisruptionBudget>,
}

impl Workload {
    /// The workload that serves `version` as `spec` asks.
    pub fn new(deployment: &DeploymentName, spec: &DeploymentSpec, version: &ModelVersion) -> Self {
        let shape = serde_json::json!([
            version.model,
            version.version,
            version.format,
            version.digest,
            spec.resources,
            spec.batching,
            spec.node_selector,
            spec.tolerations,
        ]);
        let hash = Digest::of(shape.to_string().as_bytes()).to_string();
        Self {
            id: WorkloadId(format!("{deployment}-{}", &hash[..10])),
            deployment: deployment.clone(),
            model: version.model.clone(),
            version: version.version.clone(),
            format: version.format,
            digest: version.digest,
            replicas: spec.replicas,
            resources: spec.resources.clone(),
            batching: spec.batching,
            node_selector: spec.node_selector.clone(),
            tolerations: spec.tolerations.clone(),
            autoscaling: spec.autoscaling,
            disruption_budget: spec.disruption_budget,
        }
    }
}
