//! Sizes of differences: numbers that are neither negative nor NaN, and so have an order.

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::names::NameError;

/// A finite number of at least 0. The largest finite one stands for all beyond it: for the difference between a number and
/// NaN or infinity, which JSON has no number for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = f64))]
#[serde(try_from = "f64", into = "f64")]
pub struct Magnitude(f64);

impl Magnitude {
    pub const ZERO: Self = Self(0.0);
    pub const LARGEST: Self = Self(f64::MAX);

    /// The size of `value`, whatever its sign.
    pub fn of(value: f64) -> Self {
        if value.is_nan() { Self::LARGEST } else { Self(value.abs().min(f64::MAX)) }
    }

    pub fn get(self) -> f64 {
        self.0
    }
}

impl TryFrom<f64> for Magnitude {
    type Error = NameError;
    fn try_from(value: f64) -> Result<Self, NameError> {
        if value.is_finite() && value >= 0.0 {
            Ok(Self::of(value))
        } else {
            Err(NameError::new("magnitude", &value.to_string(), "use a number of at least 0"))
        }
    }
}

impl From<Magnitude> for f64 {
    fn from(magnitude: Magnitude) -> f64 {
        magnitude.0
    }
}

impl Eq for Magnitude {}

impl PartialOrd for Magnitude {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Magnitude {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl fmt::Display for Magnitude {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:e}", self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Found by fuzzing: numbers of many digits came back as their neighbours.
    #[test]
    fn a_magnitude_survives_json() {
        for text in ["9223372036254777507", "0.1", "1.7976931348623157e308", "5e-324"] {
            let magnitude: Magnitude = serde_json::from_str(text).unwrap();
            let written = serde_json::to_string(&magnitude).unwrap();
            assert_eq!(serde_json::from_str::<Magnitude>(&written).unwrap(), magnitude, "{text}");
        }
    }
}
