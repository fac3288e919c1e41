//! The labels, annotations and names by which our objects are known.

use modelyard_core::{Workload, WorkloadId};
use serde_json::{Map, Value, json};

/// Owns the fields that we set. Kubernetes keeps account of it per field.
pub(crate) const FIELD_MANAGER: &str = "modelyard";

pub(crate) const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
pub(crate) const COMPONENT: &str = "app.kubernetes.io/component";
/// The workload's id: what selects its pods.
pub(crate) const WORKLOAD: &str = "modelyard.dev/workload";
/// The epoch of the control plane that wrote last.
pub(crate) const GENERATION: &str = "modelyard.dev/generation";
/// The whole wish, as JSON. On pods: what of it is the same for as long as the workload lives.
pub(crate) const SPEC: &str = "modelyard.dev/workload-spec";

pub(crate) const APPLICATION: &str = "modelyard";
pub(crate) const WORKER: &str = "worker";

/// Selects everything that this program made for workloads.
pub(crate) fn ours() -> String {
    format!("{MANAGED_BY}={APPLICATION},{COMPONENT}={WORKER}")
}

/// What every object of a workload bears.
pub(crate) fn labels(workload: &Workload) -> Map<String, Value> {
    let mut labels = Map::new();
    let mut set = |key: &str, value: &str| {
        // People select by these; a version that cannot be a label is in the annotation.
        if is_label_value(value) {
            labels.insert(key.to_owned(), json!(value));
        }
    };
    set(MANAGED_BY, APPLICATION);
    set(COMPONENT, WORKER);
    set(WORKLOAD, workload.id.as_str());
    set("modelyard.dev/deployment", workload.deployment.as_str());
    set("modelyard.dev/model", workload.model.as_str());
    set("modelyard.dev/version", workload.version.as_str());
    labels
}

fn is_label_value(text: &str) -> bool {
    text.len() <= 63 && text.ends_with(|c: char| c.is_ascii_alphanumeric())
}

/// Services must begin with a letter (RFC 1035), which deployments need not: `3d-shapes`.
pub(crate) fn service(id: &WorkloadId) -> String {
    let id = id.as_str();
    if !id.starts_with(|c: char| c.is_ascii_digit()) {
        return id.to_owned();
    }
    let (name, hash) = id.rsplit_once('-').unwrap_or((id, ""));
    let name: String = name.chars().take(50).collect();
    format!("w-{}-{hash}", name.trim_end_matches('-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_begins_with_a_letter_and_is_a_label() {
        assert_eq!(service(&"linear-0123456789".parse().unwrap()), "linear-0123456789");
        let long = format!("3{}-0123456789", "a".repeat(51));
        let name = service(&long.parse().unwrap());
        assert!(name.len() <= 63 && name.starts_with("w-3a") && name.ends_with("-0123456789"), "{name}");
    }
}
