//! From a workload to its objects. Pure: what is built depends on the arguments alone.
//!
//! Only fields that we mean are set: server-side apply leaves all others to the cluster and to other people.

mod deployment;
mod pod;
mod policies;

use std::collections::BTreeMap;

use modelyard_core::{Epoch, Workload};
use serde_json::{Map, Value, json};

use crate::config::KubeSettings;
use crate::kind::{Kind, Served};
use crate::names;

/// Where workers listen.
pub(crate) const PORT: u16 = 8000;

/// The objects of a workload.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Objects {
    /// By kind, at most one of each. All bear the workload's name.
    pub(crate) objects: BTreeMap<Kind, Value>,
    /// What was asked for and this cluster does not serve, in words.
    pub(crate) lacking: Vec<String>,
}

/// What shapes the objects besides the workload itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) settings: &'a KubeSettings,
    pub(crate) served: &'a Served,
    /// How many replicas there are now, where the cluster chooses their number.
    pub(crate) scaled_to: Option<i64>,
}

pub(crate) fn objects(workload: &Workload, context: Context<'_>) -> Objects {
    let wanted = [
        (Kind::Deployment, Some(deployment::deployment(workload, context))),
        (Kind::Service, Some(policies::service(workload))),
        (Kind::DisruptionBudget, policies::disruption_budget(workload)),
        (Kind::Autoscaler, policies::autoscaler(workload, context.served)),
        (Kind::NetworkPolicy, policies::network_policy(workload, context.settings)),
    ];
    let mut objects = BTreeMap::new();
    let mut lacking = Vec::new();
    for (kind, body) in wanted {
        match (body, context.served.api_version(kind)) {
            (Some(body), Some(version)) => {
                objects.insert(kind, object(workload, kind, &version, body));
            }
            (Some(_), None) => lacking.push(format!("this cluster serves no {}: there is none", kind.name())),
            (None, _) => {}
        }
    }
    Objects { objects, lacking }
}

/// The name of a workload's object of that kind.
pub(crate) fn name(workload: &modelyard_core::WorkloadId, kind: Kind) -> String {
    match kind {
        Kind::Service => names::service(workload),
        _ => workload.as_str().to_owned(),
    }
}

/// Makes the workload's Deployment the owner: when it goes, what belongs to it goes too.
pub(crate) fn own(object: &mut Value, deployment_uid: &str) {
    let name = object["metadata"]["labels"][names::WORKLOAD].clone();
    object["metadata"]["ownerReferences"] =
        json!([{"apiVersion": "apps/v1", "kind": "Deployment", "name": name, "uid": deployment_uid}]);
}

/// An object as it was at one time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Version<'a> {
    pub(crate) uid: &'a str,
    pub(crate) resource_version: &'a str,
}

/// What is known only when an object is written: by whom, and what it must still be like.
pub(crate) fn stamp(object: &mut Value, epoch: Epoch, seen: Option<Version<'_>>) {
    let metadata = &mut object["metadata"];
    metadata["labels"][names::GENERATION] = json!(epoch.to_string());
    if let Some(Version { uid, resource_version }) = seen {
        // Without the uid, server-side apply would make one that has vanished anew.
        metadata["uid"] = json!(uid);
        metadata["resourceVersion"] = json!(resource_version);
    }
}

fn object(workload: &Workload, kind: Kind, api_version: &str, body: Body) -> Value {
    let mut metadata = json!({"name": name(&workload.id, kind), "labels": names::labels(workload)});
    if !body.annotations.is_empty() {
        metadata["annotations"] = body.annotations.into();
    }
    json!({"apiVersion": api_version, "kind": kind.name(), "metadata": metadata, "spec": body.spec})
}

/// What differs between kinds.
struct Body {
    annotations: Map<String, Value>,
    spec: Value,
}

impl Body {
    fn new(spec: Value) -> Self {
        Self { annotations: Map::new(), spec }
    }
}

fn selector(workload: &Workload) -> Value {
    json!({"matchLabels": {names::WORKLOAD: workload.id}})
}

#[cfg(test)]
mod tests;
