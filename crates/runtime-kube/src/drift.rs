//! Whether an object is as it was meant: every field that was set has its value, whatever else others have added.

use modelyard_core::Quantity;
use serde_json::Value;

/// How `live`, at `path`, differs from `wanted`, in words. Empty if it does not.
pub(crate) fn differences(path: &str, wanted: &Value, live: &Value) -> Vec<String> {
    let mut found = Vec::new();
    compare(path, wanted, live, &mut found);
    found
}

fn compare(path: &str, wanted: &Value, live: &Value, found: &mut Vec<String>) {
    match (wanted, live) {
        (Value::Object(wanted), live) => {
            for (key, wanted) in wanted {
                let path = format!("{path}.{key}");
                match live.get(key) {
                    Some(live) => compare(&path, wanted, live, found),
                    // What is empty or zero may be left out.
                    None if is_nothing(wanted) => {}
                    None => found.push(format!("{path} is gone")),
                }
            }
        }
        // Items with names are a set, to which others may add.
        (Value::Array(wanted), Value::Array(live)) if wanted.iter().all(|item| item.get("name").is_some()) => {
            for item in wanted {
                let name = &item["name"];
                // Two mounts may have one name.
                let same = |other: &&Value| other["name"] == *name && other["mountPath"] == item["mountPath"];
                let path = format!("{path}[{}]", name.as_str().unwrap_or_default());
                match live.iter().find(same) {
                    Some(live) => compare(&path, item, live, found),
                    None => found.push(format!("{path} is gone")),
                }
            }
        }
        (Value::Array(wanted), Value::Array(live)) if wanted.len() == live.len() => {
            for (i, (wanted, live)) in wanted.iter().zip(live).enumerate() {
                compare(&format!("{path}[{i}]"), wanted, live, found);
            }
        }
        (wanted, live) if wanted == live || is_same_quantity(path, wanted, live) => {}
        (wanted, live) => found.push(format!("{path} is {}, not {}", shown(live), shown(wanted))),
    }
}

/// What the API server leaves out of its answers. Truth is never in doubt: where we say `false`
/// (`allowPrivilegeEscalation`), the default that takes its place may be `true`.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(s) => s.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(is_nothing),
        Value::Bool(_) => false,
    }
}

/// The API server writes quantities in its own way: `0.5` becomes `500m`.
fn is_same_quantity(path: &str, wanted: &Value, live: &Value) -> bool {
    let amount = |value: &Value| value.as_str().and_then(|text| text.parse::<Quantity>().ok());
    path.contains(".resources.") && amount(wanted).is_some_and(|wanted| Some(wanted) == amount(live))
}

/// A whole pod template would be no help.
fn shown(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if text.chars().count() > 80 { format!("{}…", text.chars().take(80).collect::<String>()) } else { text }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_others_add_is_no_difference() {
        let wanted = json!({"replicas": 2, "containers": [{"name": "worker", "image": "a"}]});
        let live = json!({
            "replicas": 2, "paused": false,
            "containers": [{"name": "proxy"}, {"name": "worker", "image": "a", "tty": false}],
        });
        assert_eq!(differences("spec", &wanted, &live), [""; 0]);
    }

    #[test]
    fn what_was_changed_or_taken_away_is_named() {
        let wanted = json!({
            "replicas": 2, "template": {"labels": {"a": "b"}},
            "containers": [{"name": "worker", "image": "a", "args": ["x", "y"]}],
        });
        let live =
            json!({"replicas": 5, "template": {}, "containers": [{"name": "worker", "image": "b", "args": ["x"]}]});
        insta::assert_snapshot!(differences("spec", &wanted, &live).join("\n"), @r#"
        spec.containers[worker].args is ["x"], not ["x","y"]
        spec.containers[worker].image is b, not a
        spec.replicas is 5, not 2
        spec.template.labels is gone
        "#);
    }

    #[test]
    fn quantities_are_compared_by_what_they_are() {
        let resources = |cpu: &str, memory: &str| json!({"resources": {"limits": {"cpu": cpu, "memory": memory}}});
        assert_eq!(differences("spec", &resources("0.5", "1024Mi"), &resources("500m", "1Gi")), [""; 0]);
        assert_eq!(differences("spec", &resources("0.0001", "1e9"), &resources("100u", "1G")), [""; 0]);
        assert_eq!(differences("spec", &resources("0.5", "1Gi"), &resources("501m", "1Gi")).len(), 1);
        assert_eq!(differences("spec", &json!({"image": "1000m"}), &json!({"image": "1"})).len(), 1);
    }

    #[test]
    fn hardening_that_was_taken_away_is_a_difference() {
        let wanted = json!({
            "automountServiceAccountToken": false,
            "containers": [{"name": "worker", "securityContext": {"allowPrivilegeEscalation": false}}],
        });
        let live = json!({"containers": [{"name": "worker", "securityContext": {}}]});
        insta::assert_snapshot!(differences("spec", &wanted, &live).join("\n"), @r"
        spec.automountServiceAccountToken is gone
        spec.containers[worker].securityContext.allowPrivilegeEscalation is gone
        ");
        let live = json!({"containers": [{"name": "worker"}]});
        insta::assert_snapshot!(differences("spec", &wanted, &live).join("\n"), @r"
        spec.automountServiceAccountToken is gone
        spec.containers[worker].securityContext is gone
        ");
    }

    #[test]
    fn defaults_that_the_server_leaves_out_are_no_difference() {
        let wanted = json!({"minReadySeconds": 0, "volumes": [{"name": "work", "emptyDir": {}}]});
        let live = json!({"volumes": [{"name": "work", "emptyDir": {}}]});
        assert_eq!(differences("spec", &wanted, &live), [""; 0]);
    }
}
