//! The spec of a deployment: which version should serve, how many workers, and how a change reaches traffic.
//!
//! Values of these types come from [`crate::manifest`], which checks what the types alone cannot, or from Postgres,
//! where only checked ones are kept. They serialise to the manifest's own form.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::engine::EngineSpec;
use crate::names::{AliasName, ModelName, NameError, VersionName};
use crate::span::Span;
use crate::strategy::Strategy;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeploymentSpec {
    pub model: ModelName,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub version: VersionRef,
    pub replicas: u32,
    #[serde(default, skip_serializing_if = "Resources::is_empty")]
    pub resources: Resources,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batching: Option<Batching>,
    /// What runs it, and how. In a manifest, its name alone will do.
    #[serde(default, skip_serializing_if = "EngineSpec::is_empty")]
    pub engine: EngineSpec,
    /// Labels that a node must have to run its pods.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub node_selector: Labels,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,
    /// Lets the cluster choose the number of replicas; `replicas` is then what it begins with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<Autoscaling>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disruption_budget: Option<DisruptionBudget>,
    /// How long a replaced version stays warm.
    pub rollback_window: Span,
    /// Accepts a version that the callers of the one that serves cannot use ([`crate::schema`]).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_schema_change: bool,
    pub strategy: Strategy,
}

impl DeploymentSpec {
    pub const DEFAULT_REPLICAS: u32 = 1;
    pub const DEFAULT_ROLLBACK_WINDOW: Span = Span::from_secs(600);
}

/// A version by itself or by an alias of the model (`alias:stable`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum VersionRef {
    Exact(VersionName),
    Alias(AliasName),
}

impl FromStr for VersionRef {
    type Err = NameError;
    fn from_str(s: &str) -> Result<Self, NameError> {
        match s.strip_prefix("alias:") {
            Some(alias) => alias.parse().map(Self::Alias),
            None => s.parse().map(Self::Exact),
        }
    }
}

impl TryFrom<String> for VersionRef {
    type Error = NameError;
    fn try_from(s: String) -> Result<Self, NameError> {
        s.parse()
    }
}

impl From<VersionRef> for String {
    fn from(version: VersionRef) -> String {
        version.to_string()
    }
}

impl fmt::Display for VersionRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(version) => version.fmt(f),
            Self::Alias(alias) => f.pad(&format!("alias:{alias}")),
        }
    }
}

/// Kubernetes quantities, kept as written (`250m`, `128Mi`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Resources {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
    /// Whole devices, of the resource `nvidia.com/gpu`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<u32>,
}

impl Resources {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A taint that pods bear, in Kubernetes' own words. Without a key, and with `Exists`, it matches all taints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Toleration {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// `Equal`, or `Exists`.
    pub operator: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`; all of them if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<String>,
    /// How long a pod stays on a node with a `NoExecute` taint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub toleration_seconds: Option<u32>,
}

/// A HorizontalPodAutoscaler by CPU use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Autoscaling {
    pub min_replicas: u32,
    pub max_replicas: u32,
    /// Per cent of `resources.cpu`.
    pub target_cpu_utilization: u32,
}

/// How many workers the cluster may take away at once of its own will (a node drain).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DisruptionBudget {
    pub max_unavailable: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Batching {
    pub max_batch_size: u32,
    pub max_delay: Span,
}

/// Labels of a resource: free text by name.
pub type Labels = BTreeMap<String, String>;
