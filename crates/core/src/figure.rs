//! Numbers that were estimated, as they are kept and compared.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A number in millionths: fixed point, so that verdicts compare exactly and read back as they were written.
/// Written as a number. What it counts (a share, a ratio, milliseconds) its owner says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = f64))]
pub struct Figure(i64);

impl Figure {
    /// Rounded to millionths. `None` for what is no finite number of less than 9 · 10^12.
    pub fn new(value: f64) -> Option<Self> {
        let millionths = (value * 1e6).round();
        #[expect(clippy::cast_possible_truncation, reason = "checked to be within the range, where it is exact enough")]
        (millionths.is_finite() && millionths.abs() < 9e18).then_some(Self(millionths as i64))
    }

    pub fn get(self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "16 digits are more than was measured")]
        let value = self.0 as f64;
        value / 1e6
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}", self.get()))
    }
}

impl Serialize for Figure {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_f64(self.get())
    }
}

impl<'de> Deserialize<'de> for Figure {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let value = f64::deserialize(d)?;
        Self::new(value).ok_or_else(|| serde::de::Error::custom(format_args!("{value} is out of range")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_figure_round_trips_through_json(millionths in -1_000_000_000_000_000i64..1_000_000_000_000_000) {
            let figure = Figure(millionths);
            let text = serde_json::to_string(&figure).unwrap();
            prop_assert_eq!(serde_json::from_str::<Figure>(&text).unwrap(), figure, "{}", text);
        }
    }

    #[test]
    fn what_is_no_number_is_no_figure() {
        assert_eq!(Figure::new(f64::NAN), None);
        assert_eq!(Figure::new(f64::INFINITY), None);
        assert_eq!(Figure::new(0.1).map(Figure::get), Some(0.1));
    }
}
