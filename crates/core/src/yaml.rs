//! YAML text out of values. (YAML in is [`crate::manifest`].) These two modules alone know serde_yaml.

use serde::Serialize;

/// # Errors
/// What the value's own `Serialize` refuses; none of this crate's does.
pub fn to_string<T: Serialize>(value: &T) -> Result<String, String> {
    serde_yaml::to_string(value).map_err(|e| e.to_string())
}
