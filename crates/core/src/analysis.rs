//! The gates of a rollout's steps: which limits, against what, and how sure a verdict must be.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::figure::Figure;
use crate::names::NameError;
use crate::span::Span;
use crate::weight::Rate;

/// The gates of a canary's steps: each must pass. `docs/progressive-delivery.md` has what passing means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Analysis {
    /// Nothing passes on fewer requests of the step, however clear.
    pub min_requests: u64,
    /// Requests per worker at the beginning that do not count: of them, only errors that leave no doubt are heeded.
    #[serde(default = "Analysis::default_warmup")]
    pub warmup: u32,
    /// The chance, over the whole rollout and however often one looks, that a version which keeps the absolute limits
    /// and is no worse than the stable one is rolled back.
    #[serde(default = "Analysis::default_alpha")]
    pub alpha: Rate,
    /// The chance that a version which exceeds a limit is not let pass; the rest is the chance that it is.
    #[serde(default = "Analysis::default_power")]
    pub power: Rate,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_error_rate: Option<Rate>,
    /// Against the stable version in the same time, as a difference of shares.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_error_rate_increase: Option<Rate>,
    #[serde(default, rename = "maxLatencyP50", skip_serializing_if = "Option::is_none")]
    pub max_latency_p50: Option<Span>,
    #[serde(default, rename = "maxLatencyP95", skip_serializing_if = "Option::is_none")]
    pub max_latency_p95: Option<Span>,
    #[serde(default, rename = "maxLatencyP99", skip_serializing_if = "Option::is_none")]
    pub max_latency_p99: Option<Span>,
    /// Against the stable version in the same time, relative to it.
    #[serde(default, skip_serializing_if = "LatencyIncreases::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = serde_json::Value))]
    pub max_latency_increase: LatencyIncreases,
    /// The share of mirrored requests that the version may answer otherwise than the stable one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_disagreement: Option<Rate>,
    /// Numbers of a Prometheus. They have no known error, and so are compared as they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prometheus: Vec<PrometheusGate>,
}

impl Analysis {
    pub const DEFAULT_MIN_REQUESTS: u64 = 100;
    pub const DEFAULT_WARMUP: u32 = 20;

    pub fn default_warmup() -> u32 {
        Self::DEFAULT_WARMUP
    }
    pub fn default_alpha() -> Rate {
        Rate::PERCENT_5
    }
    pub fn default_power() -> Rate {
        Rate::PERCENT_80
    }

    /// The absolute limits on latency, by quantile.
    pub fn latency_limits(&self) -> impl Iterator<Item = (Quantile, Span)> {
        let limits = [
            (Quantile::P50, self.max_latency_p50),
            (Quantile::P95, self.max_latency_p95),
            (Quantile::P99, self.max_latency_p99),
        ];
        limits.into_iter().filter_map(|(quantile, limit)| Some((quantile, limit?)))
    }

    /// How many gates share `alpha`: those that may fail a version by chance.
    pub fn tested_gates(&self) -> usize {
        let rates = [self.max_error_rate, self.max_error_rate_increase, self.max_disagreement];
        rates.iter().flatten().count() + self.latency_limits().count() + self.max_latency_increase.0.len()
    }
}

/// What a manifest that names no limit has.
impl Default for Analysis {
    fn default() -> Self {
        Self {
            min_requests: Self::DEFAULT_MIN_REQUESTS,
            warmup: Self::DEFAULT_WARMUP,
            alpha: Self::default_alpha(),
            power: Self::default_power(),
            max_error_rate: None,
            max_error_rate_increase: None,
            max_latency_p50: None,
            max_latency_p95: None,
            max_latency_p99: None,
            max_latency_increase: LatencyIncreases::default(),
            max_disagreement: None,
            prometheus: Vec::new(),
        }
    }
}

/// Which latency: the one that a share of requests stays under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Quantile {
    P50,
    P95,
    P99,
}

impl Quantile {
    /// Per cent of requests that stay under it.
    pub fn percent(self) -> u64 {
        match self {
            Self::P50 => 50,
            Self::P95 => 95,
            Self::P99 => 99,
        }
    }

    /// The share of requests that exceed it.
    pub fn tail(self) -> f64 {
        match self {
            Self::P50 => 0.5,
            Self::P95 => 0.05,
            Self::P99 => 0.01,
        }
    }
}

impl fmt::Display for Quantile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::P50 => "p50",
            Self::P95 => "p95",
            Self::P99 => "p99",
        })
    }
}

/// A relative increase, above 0, in hundredths of a per cent. Written `20%`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Increase(u32);

const INCREASE_RULE: &str = "use per cent above 0 and up to 1000 with at most two decimals, such as 20%";

impl Increase {
    /// 0.2 for 20 %.
    pub fn share(self) -> f64 {
        f64::from(self.0) / 1e4
    }
}

impl FromStr for Increase {
    type Err = NameError;
    fn from_str(s: &str) -> Result<Self, NameError> {
        let refuse = || NameError::new("increase", s, INCREASE_RULE);
        let number = s.strip_suffix('%').ok_or_else(refuse)?.trim_end();
        let percent: f64 = number.parse().map_err(|_| refuse())?;
        let hundredths = (percent * 100.0).round();
        let is_exact = (percent * 100.0 - hundredths).abs() < 1e-6;
        if !(1.0..=100_000.0).contains(&hundredths) || !is_exact {
            return Err(refuse());
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "checked to be within 1 to 100,000"
        )]
        Ok(Self(hundredths as u32))
    }
}

impl TryFrom<String> for Increase {
    type Error = NameError;
    fn try_from(s: String) -> Result<Self, NameError> {
        s.parse()
    }
}

impl From<Increase> for String {
    fn from(increase: Increase) -> String {
        increase.to_string()
    }
}

impl fmt::Display for Increase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}%", f64::from(self.0) / 100.0))
    }
}

/// `20%`, which is about p99, or one for each quantile: `{p50: 10%, p99: 20%}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "IncreaseForm", into = "IncreaseForm")]
pub struct LatencyIncreases(pub BTreeMap<Quantile, Increase>);

impl LatencyIncreases {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum IncreaseForm {
    OfP99(Increase),
    Each(BTreeMap<Quantile, Increase>),
}

impl From<IncreaseForm> for LatencyIncreases {
    fn from(form: IncreaseForm) -> Self {
        match form {
            IncreaseForm::OfP99(increase) => Self(BTreeMap::from([(Quantile::P99, increase)])),
            IncreaseForm::Each(each) => Self(each),
        }
    }
}

impl From<LatencyIncreases> for IncreaseForm {
    fn from(increases: LatencyIncreases) -> Self {
        match increases.0.get(&Quantile::P99) {
            Some(increase) if increases.0.len() == 1 => Self::OfP99(*increase),
            _ => Self::Each(increases.0),
        }
    }
}

/// A number that a Prometheus must not answer above `max`: an instant query with one value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PrometheusGate {
    pub query: String,
    pub max: Figure,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn increases_are_per_cent() {
        for (text, share) in [("20%", 0.2), ("0.5 %", 0.005), ("1000%", 10.0), ("12.25%", 0.1225)] {
            assert_eq!(text.parse::<Increase>().map(Increase::share), Ok(share), "{text}");
        }
        for bad in ["20", "0%", "-1%", "1001%", "0.001%", "x%", "%", "nan%", "inf%"] {
            assert!(bad.parse::<Increase>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_analysis_that_was_stored_before_there_were_tests_reads_back_with_their_defaults() {
        let stored = r#"{"minRequests": 50, "maxErrorRate": 0.01, "maxLatencyP99": "50ms"}"#;
        let read: Analysis = serde_json::from_str(stored).unwrap();
        let expected = Analysis {
            min_requests: 50,
            max_error_rate: Rate::from_share(0.01).ok(),
            max_latency_p99: Some(Span::from_millis(50)),
            ..Analysis::default()
        };
        assert_eq!(read, expected);
    }
}
