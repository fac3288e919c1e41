//! Whether an object is as it was meant: every field that was set has its value, whatever else others have added.

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
                    // What is not set is what it is by default: empty, zero, false.
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

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(s) => s.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(is_nothing),
        Value::Bool(true) => false,
    }
}

/// The API server writes quantities in its own way: `0.5` becomes `500m`.
fn is_same_quantity(path: &str, wanted: &Value, live: &Value) -> bool {
    let amount = |value: &Value| value.as_str().and_then(amount);
    path.contains(".resources.") && amount(wanted).is_some_and(|wanted| Some(wanted) == amount(live))
}

/// In thousandths.
fn amount(quantity: &str) -> Option<u128> {
    let end = quantity.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(quantity.len());
    let (number, suffix) = quantity.split_at(end);
    let factor: u128 = match suffix {
        "m" => 1,
        "" => 1_000,
        "k" => 1_000_000,
        "M" => 1_000_000_000,
        "G" => 1_000_000_000_000,
        "T" => 1_000_000_000_000_000,
        "Ki" => 1_000 << 10,
        "Mi" => 1_000 << 20,
        "Gi" => 1_000 << 30,
        "Ti" => 1_000 << 40,
        _ => return None,
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let part = &part[..part.len().min(9)];
    let scale = 10_u128.checked_pow(u32::try_from(part.len()).ok()?)?;
    let digits: u128 = format!("{whole}{part}").parse().ok()?;
    Some(digits.checked_mul(factor)? / scale)
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
        assert_eq!(differences("spec", &resources("0.5", "1Gi"), &resources("501m", "1Gi")).len(), 1);
        assert_eq!(differences("spec", &json!({"image": "1000m"}), &json!({"image": "1"})).len(), 1);
    }

    #[test]
    fn defaults_that_the_server_leaves_out_are_no_difference() {
        let wanted = json!({"minReadySeconds": 0, "volumes": [{"name": "work", "emptyDir": {}}]});
        let live = json!({"volumes": [{"name": "work", "emptyDir": {}}]});
        assert_eq!(differences("spec", &wanted, &live), [""; 0]);
    }
}
