//! YAML text out of values. (YAML in is [`crate::manifest`].) These two modules alone know serde_yaml.

use serde::Serialize;

/// # Errors
/// What the value's own `Serialize` refuses; none of this crate's does.
pub fn to_string<T: Serialize>(value: &T) -> Result<String, String> {
    let mut text = Vec::new();
    // By itself serde_yaml writes `strategy: !canary`, which is not what manifests say.
    serde_yaml::with::singleton_map_recursive::serialize(value, &mut serde_yaml::Serializer::new(&mut text))
        .map_err(|e| e.to_string())?;
    String::from_utf8(text).map_err(|e| e.to_string())
}
