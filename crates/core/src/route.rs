//! Route tables: which backends serve a deployment, with which weights. What the gateway follows.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::assignment::Assignment;
use crate::mirror::Mirror;
use crate::names::{AliasName, BackendId, DeploymentName, Epoch, HeaderName, RevisionNumber, VariantName, VersionName};
use crate::weight::Weight;
use crate::workload::WorkloadId;

/// Orders route tables: by term of office, then by count within it. A gateway ignores an older one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TableVersion {
    pub epoch: Epoch,
    pub sequence: u64,
}

impl fmt::Display for TableVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.sequence)
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteTable {
    pub version: TableVersion,
    pub deployments: BTreeMap<DeploymentName, Route>,
}

impl RouteTable {
    /// The workloads that may get requests by this table.
    pub fn workloads(&self) -> BTreeSet<WorkloadId> {
        self.deployments.values().flat_map(|r| &r.variants).map(|v| v.workload.clone()).collect()
    }
}

/// How one deployment is served. The weights of its variants sum to 10,000 basis points, or there are none.
///
/// The variant of a request is, in this order: one that has the version which its path names; the one that its header
/// `x-modelyard-variant` names; that of the first rule that it matches; the one that its unit is assigned to; one drawn
/// by weight.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Which evidence requests count for: evidence of different windows is never mixed.
    pub window: Window,
    pub variants: Vec<Variant>,
    /// Without it, each request is drawn by weight on its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assignment: Option<Assignment>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<MatchRule>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<Mirror>,
    /// The movable names of the model's versions, by which callers may pin one; served here or not.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub aliases: BTreeMap<AliasName, VersionName>,
}

/// Requests whose header has exactly this value go to this variant, whatever its weight.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MatchRule {
    pub header: HeaderName,
    pub equals: String,
    pub variant: VariantName,
}

/// A stretch of a rollout over which evidence is gathered: a step of a revision's rollout.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Window {
    pub revision: RevisionNumber,
    pub step: u32,
}

/// One version under a deployment. Weight 0: reachable only by its version (warm, or not yet on trial).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variant {
    pub name: VariantName,
    pub revision: RevisionNumber,
    pub version: VersionName,
    pub workload: WorkloadId,
    pub weight: Weight,
    /// Whether a request that another variant failed is asked of this one instead (inference is idempotent).
    pub fallback: bool,
    /// Ready ones only; empty while none is.
    pub backends: Vec<Backend>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Backend {
    pub id: BackendId,
    pub address: SocketAddr,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_an_earlier_version_are_read_and_plain_routes_are_written_as_before() {
        let text = r#"{"version":{"epoch":1,"sequence":2},"deployments":{"m":{"window":{"revision":1,"step":0},"variants":[]}}}"#;
        let table: RouteTable = serde_json::from_str(text).unwrap();
        let route = table.deployments.values().next().unwrap();
        assert!(route.assignment.is_none() && route.rules.is_empty() && route.mirror.is_none());
        assert!(route.aliases.is_empty());
        assert_eq!(serde_json::to_string(&table).unwrap(), text);
    }

    #[test]
    fn a_route_with_everything_survives_the_wire() {
        let text = r#"{
            "window": {"revision": 7, "step": 1},
            "variants": [],
            "assignment": {"sticky_by": {"header": "x-user-id"}, "salt": "m/7", "slots": [{"variant": "a", "width": 100}]},
            "rules": [{"header": "x-cohort", "equals": "beta", "variant": "b"}],
            "mirror": {"variant": "b", "share": 12.5, "outputs": {"state": "ignore"}, "redact": "values"},
            "aliases": {"stable": "1", "candidate": "2"}
        }"#;
        let route: Route = serde_json::from_str(text).unwrap();
        let mirror = route.mirror.as_ref().unwrap();
        assert_eq!((mirror.share.basis_points(), mirror.keep_examples), (1_250, 0));
        assert_eq!(mirror.tolerance, crate::mirror::Tolerance::default());
        let written = serde_json::to_string(&route).unwrap();
        assert_eq!(serde_json::from_str::<Route>(&written).unwrap(), route);
    }
}
