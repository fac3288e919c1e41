//! What belongs to a Deployment: a Service, and where asked for a budget, an autoscaler and a network policy.

use modelyard_core::Workload;
use serde_json::{Map, Value, json};

use super::{Body, PORT, selector};
use crate::config::KubeSettings;
use crate::kind::{Kind, Served};
use crate::names;

/// For people and other programs: our gateway goes to pods by their addresses.
pub(super) fn service(workload: &Workload) -> Body {
    Body::new(json!({
        "type": "ClusterIP",
        "selector": {names::WORKLOAD: workload.id},
        "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}],
    }))
}

pub(super) fn disruption_budget(workload: &Workload) -> Option<Body> {
    let budget = workload.disruption_budget?;
    Some(Body::new(json!({"selector": selector(workload), "maxUnavailable": budget.max_unavailable})))
}

pub(super) fn autoscaler(workload: &Workload, served: &Served) -> Option<Body> {
    let range = workload.autoscaling.filter(|_| workload.replicas > 0)?;
    let mut spec = json!({
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": workload.id},
        "minReplicas": range.min_replicas,
        "maxReplicas": range.max_replicas,
    });
    let target = range.target_cpu_utilization;
    if served.api_version(Kind::Autoscaler).as_deref() == Some("autoscaling/v1") {
        spec["targetCPUUtilizationPercentage"] = json!(target);
    } else {
        let target = json!({"type": "Utilization", "averageUtilization": target});
        spec["metrics"] = json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}]);
    }
    Some(Body::new(spec))
}

/// Lets the gateway in, and nobody else. The kubelet's probes are exempt by nature.
pub(super) fn network_policy(workload: &Workload, settings: &KubeSettings) -> Option<Body> {
    let labels = settings.gateway_labels.as_ref()?;
    let labels: Map<String, Value> = labels.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
    Some(Body::new(json!({
        "podSelector": selector(workload),
        "policyTypes": ["Ingress"],
        "ingress": [{
            "from": [{"podSelector": {"matchLabels": labels}}],
            "ports": [{"protocol": "TCP", "port": PORT}],
        }],
    })))
}
