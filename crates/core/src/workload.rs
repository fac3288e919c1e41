//! Workloads: what a runtime runs for one (deployment, version, settings).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::deployment::{Autoscaling, Batching, DeploymentSpec, DisruptionBudget, Labels, Resources, Toleration};
use crate::digest::Digest;
use crate::engine::EngineSpec;
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

    /// The name of the deployment whose workload it is.
    pub fn deployment(&self) -> &str {
        self.0.rsplit_once('-').map_or("", |(name, _)| name)
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
    #[serde(default, skip_serializing_if = "EngineSpec::is_empty")]
    pub engine: EngineSpec,
    pub node_selector: Labels,
    pub tolerations: Vec<Toleration>,
    pub autoscaling: Option<Autoscaling>,
    pub disruption_budget: Option<DisruptionBudget>,
}

impl Workload {
    /// The workload that serves `version` as `spec` asks.
    pub fn new(deployment: &DeploymentName, spec: &DeploymentSpec, version: &ModelVersion) -> Self {
        let mut shape = vec![serde_json::json!([
            version.model,
            version.version,
            version.format,
            version.digest,
            spec.resources,
            spec.batching,
            spec.node_selector,
            spec.tolerations,
        ])];
        // What came later counts where it is set, so that workloads of before keep their names.
        if !spec.engine.is_empty() {
            shape.push(serde_json::json!({"engine": spec.engine}));
        }
        let shape: String = shape.iter().map(ToString::to_string).collect();
        let hash = Digest::of(shape.as_bytes()).to_string();
        Self {
            id: WorkloadId(format!("{deployment}-{}", &hash[..10])),
            deployment: deployment.clone(),
            model: version.model.clone(),
            version: version.version.clone(),
            format: version.format,
            digest: version.digest,
            replicas: spec.autoscaling.map_or(spec.replicas, |a| spec.replicas.clamp(a.min_replicas, a.max_replicas)),
            resources: spec.resources.clone(),
            batching: spec.batching,
            engine: spec.engine.clone(),
            node_selector: spec.node_selector.clone(),
            tolerations: spec.tolerations.clone(),
            autoscaling: spec.autoscaling,
            disruption_budget: spec.disruption_budget,
        }
    }

    /// The most workers that there may be of it: where the cluster chooses their number, its upper limit.
    pub fn size(&self) -> u32 {
        self.autoscaling.map_or(self.replicas, |a| a.max_replicas)
    }

    /// How many workers must be ready for it to be up: where the cluster chooses their number, its lower limit.
    pub fn needed(&self) -> u32 {
        self.autoscaling.map_or(self.replicas, |a| a.min_replicas.max(1))
    }

    /// The same with at most `size` workers. Of none, the cluster cannot choose the number.
    #[must_use]
    pub fn limited_to(mut self, size: u32) -> Self {
        self.replicas = self.replicas.min(size);
        self.autoscaling = self.autoscaling.filter(|_| size > 0).map(|a| {
            let max_replicas = a.max_replicas.min(size);
            Autoscaling { min_replicas: a.min_replicas.min(max_replicas), max_replicas, ..a }
        });
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(autoscaling: Option<Autoscaling>) -> Workload {
        let spec: DeploymentSpec = serde_json::from_value(serde_json::json!({
            "model": "m", "version": "1", "replicas": 3, "rollbackWindow": "10m", "strategy": {"rolling": {}},
            "autoscaling": autoscaling,
        }))
        .unwrap();
        let version = serde_json::from_value(serde_json::json!({
            "model": "m", "version": "1", "format": "onnx", "digest": Digest::of(b"m"), "size": 1,
            "signature": {"inputs": [], "outputs": []}, "labels": {}, "metadata": {},
        }))
        .unwrap();
        Workload::new(&"d".parse().unwrap(), &spec, &version)
    }

    fn between(min_replicas: u32, max_replicas: u32) -> Option<Autoscaling> {
        Some(Autoscaling { min_replicas, max_replicas, target_cpu_utilization: 80 })
    }

    #[test]
    fn the_cluster_chooses_within_its_limits_and_begins_within_them() {
        let fixed = workload(None);
        assert_eq!((fixed.replicas, fixed.size(), fixed.needed()), (3, 3, 3));
        let scaled = workload(between(4, 9));
        assert_eq!((scaled.replicas, scaled.size(), scaled.needed()), (4, 9, 4));
        assert_eq!(fixed.id, scaled.id, "who chooses the number is no part of the identity");
    }

    #[test]
    fn an_engine_makes_other_workers_and_its_absence_none() {
        let mut spec: DeploymentSpec = serde_json::from_value(serde_json::json!({
            "model": "m", "version": "1", "replicas": 3, "rollbackWindow": "10m", "strategy": {"rolling": {}},
        }))
        .unwrap();
        let version = serde_json::from_value(serde_json::json!({
            "model": "m", "version": "1", "format": "onnx", "digest": Digest::of(b"m"), "size": 1,
            "signature": {"inputs": [], "outputs": []}, "labels": {}, "metadata": {},
        }))
        .unwrap();
        let name = "d".parse().unwrap();
        // Workloads that run were named so before there was an engine to choose.
        assert_eq!(Workload::new(&name, &spec, &version).id.as_str(), "d-b2d3fcd5f0");
        spec.engine.name = Some(crate::engine::EngineName::Rten);
        let other = Workload::new(&name, &spec, &version);
        assert_ne!(other.id.as_str(), "d-b2d3fcd5f0");
        assert_eq!(other.engine, spec.engine);
    }

    #[test]
    fn a_limit_takes_and_never_gives() {
        assert_eq!(workload(None).limited_to(2).replicas, 2);
        assert_eq!(workload(None).limited_to(7), workload(None));
        let limited = workload(between(2, 9)).limited_to(1);
        assert_eq!((limited.replicas, limited.autoscaling), (1, between(1, 1)));
        let none = workload(between(2, 9)).limited_to(0);
        assert_eq!((none.replicas, none.autoscaling, none.size()), (0, None, 0));
    }
}
