//! The Deployment: it carries the wish, and keeps the pods.

use modelyard_core::Workload;
use serde_json::{Map, json};

use super::{Body, Context, pod, selector};
use crate::names;

pub(super) fn deployment(workload: &Workload, context: Context<'_>) -> Body {
    let mut spec = json!({
        "selector": selector(workload),
        "replicas": replicas(workload, context.scaled_to),
        "revisionHistoryLimit": 1,
        // Of its own accord the cluster replaces pods one by one, none before its successor is ready. Versions never
        // meet in one Deployment: that is what rollouts are for.
        "strategy": {"type": "RollingUpdate", "rollingUpdate": strategy(workload)},
        "template": pod::template(workload, context.settings),
    });
    // Traffic goes by readiness alone; this only keeps a pod that flaps from counting at once.
    spec["minReadySeconds"] = json!(0);
    let annotations = Map::from_iter([(names::SPEC.to_owned(), json!(json!(workload).to_string()))]);
    Body { annotations, spec }
}

fn strategy(workload: &Workload) -> serde_json::Value {
    // Devices are scarce: a successor could wait for ever for the one that its predecessor holds.
    if workload.resources.gpu.is_some() {
        json!({"maxSurge": 0, "maxUnavailable": 1})
    } else {
        json!({"maxSurge": 1, "maxUnavailable": 0})
    }
}

/// Where the cluster chooses the number, what it chose stays: to leave the field out would set it back to one.
fn replicas(workload: &Workload, scaled_to: Option<i64>) -> i64 {
    let wanted = i64::from(workload.replicas);
    match workload.autoscaling {
        // A workload that is wanted at zero is not for the autoscaler to wake.
        Some(_) if wanted == 0 => 0,
        Some(range) => scaled_to.unwrap_or(wanted).clamp(i64::from(range.min_replicas), i64::from(range.max_replicas)),
        None => wanted,
    }
}
