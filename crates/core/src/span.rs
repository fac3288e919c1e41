//! Lengths of time as manifests write them: `500ms`, `30s`, `2m`, `1h`, `14d`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::names::NameError;

/// A length of time in whole milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String))]
#[serde(try_from = "String", into = "String")]
pub struct Span(u64);

const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
const RULE: &str = "use a whole number and a unit: 500ms, 30s, 2m, 1h or 14d";

impl Span {
    pub const fn from_millis(ms: u64) -> Self {
        Self(ms)
    }
    pub const fn from_secs(s: u64) -> Self {
        Self(s * 1_000)
    }
    pub const fn as_millis(self) -> u64 {
        self.0
    }
    pub const fn as_duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

impl FromStr for Span {
    type Err = NameError;
    fn from_str(s: &str) -> Result<Self, NameError> {
        let refuse = || NameError::new("duration", s, RULE);
        let digits = s.find(|c: char| !c.is_ascii_digit()).ok_or_else(refuse)?;
        let (number, unit) = s.split_at(digits);
        let (_, factor) = UNITS.into_iter().find(|(name, _)| *name == unit).ok_or_else(refuse)?;
        let number: u64 = number.parse().map_err(|_| refuse())?;
        // A century bounds every sum of times that is made later.
        let ms = number.checked_mul(factor).filter(|ms| *ms <= 36_500 * 86_400_000).ok_or_else(refuse)?;
        Ok(Self(ms))
    }
}

impl TryFrom<String> for Span {
    type Error = NameError;
    fn try_from(s: String) -> Result<Self, NameError> {
        s.parse()
    }
}

impl From<Span> for String {
    fn from(span: Span) -> String {
        span.to_string()
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.pad("0s");
        }
        let (unit, factor) = UNITS.into_iter().find(|(_, factor)| self.0.is_multiple_of(*factor)).unwrap_or(("ms", 1));
        f.pad(&format!("{}{unit}", self.0 / factor))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_round_trip() {
        for text in ["500ms", "30s", "2m", "10m", "1h", "14d", "0s"] {
            assert_eq!(text.parse::<Span>().map(|s| s.to_string()), Ok(text.to_owned()));
        }
        assert_eq!("90s".parse::<Span>(), Ok(Span::from_millis(90_000)));
        for bad in ["", "5", "s", "-1s", "1.5s", "1 s", "99999999999999d", "1w"] {
            assert!(bad.parse::<Span>().is_err(), "{bad:?}");
        }
    }
}
