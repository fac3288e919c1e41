//! Verdicts of a rollout's analysis, with the numbers they were made on.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::figure::Figure;
use crate::timestamp::Timestamp;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    pub decision: Decision,
    /// Requests that the revision got in the step, and those it failed.
    pub requests: u64,
    pub errors: u64,
    /// 99th percentile of its latency, in microseconds.
    pub p99_micros: Option<u64>,
    /// The same of the stable revision in the same time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stable: Option<StableCounts>,
    /// Each limit, what was measured against it, and what follows.
    pub checks: Vec<Check>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct StableCounts {
    pub requests: u64,
    pub errors: u64,
    pub p99_micros: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Decision {
    Pass,
    Fail,
    /// Too few requests to tell.
    #[serde(rename_all = "camelCase")]
    NeedMoreData {
        have: u64,
        /// With how many, if it goes on as it did so far, a decision is to be expected. [`Decision::UNFORESEEABLE`]
        /// where the estimate lies at the limit.
        want: u64,
        /// When that is to be expected, at the rate of requests so far. `None` without requests.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        at: Option<Timestamp>,
    },
}

impl Decision {
    /// More requests than anybody waits for.
    pub const UNFORESEEABLE: u64 = 1_000_000_000;
}

/// One gate of the analysis.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// The manifest's name of the limit: `maxErrorRate`, `maxLatencyIncrease (p99)`.
    pub limit: String,
    pub wanted: String,
    /// What was counted, in words.
    pub measured: String,
    /// False once the limit is exceeded beyond doubt.
    pub holds: bool,
    /// True once it is kept beyond doubt.
    #[serde(default)]
    pub passes: bool,
    #[serde(default)]
    pub unit: Unit,
    /// Of the number that the limit is on: the rate, the difference, the quantile or its increase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimate: Option<Figure>,
    /// Confidence bounds, valid at every look: the true number is below `lower` with a chance of at most this gate's
    /// share of `alpha`, and above `upper` with at most 1 - `power`. `None`: not bounded by the evidence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lower: Option<Figure>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upper: Option<Figure>,
    /// What the estimate rests on.
    #[serde(default)]
    pub requests: u64,
    /// Of a comparison: the requests of the stable revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stable_requests: Option<u64>,
    /// The reason for the decision, in words.
    #[serde(default)]
    pub why: String,
}

/// What the figures of a check are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum Unit {
    /// From 0 to 1; of a difference from -1 to 1.
    #[default]
    Share,
    /// Of an increase: 0.2 is a fifth more.
    Ratio,
    Milliseconds,
    /// Whatever a query answers.
    Number,
}

impl Unit {
    /// A figure as people read it: `1.25 %`, `61.5 ms`.
    pub fn tell(self, figure: Figure) -> String {
        let value = figure.get();
        match self {
            Self::Share | Self::Ratio => format!("{} %", rounded(value * 100.0)),
            Self::Milliseconds => format!("{} ms", rounded(value)),
            Self::Number => figure.to_string(),
        }
    }
}

/// Three digits that count, at least.
fn rounded(value: f64) -> String {
    let decimals = match value.abs() {
        v if v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        v if v >= 1.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

impl Check {
    /// `from 0.2 % to 3.1 %`; empty without bounds.
    pub fn interval(&self) -> String {
        match (self.lower, self.upper) {
            (None, None) => String::new(),
            (Some(lower), None) => format!("at least {}", self.unit.tell(lower)),
            (None, Some(upper)) => format!("at most {}", self.unit.tell(upper)),
            (Some(lower), Some(upper)) => format!("from {} to {}", self.unit.tell(lower), self.unit.tell(upper)),
        }
    }

    /// How the number stands to its limit.
    pub fn standing(&self) -> &'static str {
        match (self.holds, self.passes) {
            (false, _) => "exceeds",
            (true, true) => "within",
            (true, false) => "not told from",
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} {}", self.limit, self.measured, self.standing(), self.wanted)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.decision {
            Decision::Pass => write!(f, "pass")?,
            Decision::Fail => write!(f, "fail")?,
            Decision::NeedMoreData { have, want, .. } if want >= Decision::UNFORESEEABLE => {
                write!(f, "need more data: {have} requests, and the estimate lies at the limit")?;
            }
            Decision::NeedMoreData { have, want, .. } => write!(f, "need more data: {have} of {want} requests")?,
        }
        for check in &self.checks {
            write!(f, "; {check}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_that_was_recorded_before_there_were_intervals_reads_back() {
        let recorded = r#"{"decision": {"kind": "needMoreData", "have": 4, "want": 10}, "requests": 4, "errors": 1,
            "p99Micros": null, "checks": [{"limit": "maxErrorRate", "wanted": "0.01", "measured": "1 of 4", "holds": true}]}"#;
        let read: Verdict = serde_json::from_str(recorded).unwrap();
        assert_eq!(read.decision, Decision::NeedMoreData { have: 4, want: 10, at: None });
        assert_eq!(read.checks[0].interval(), "");
        let json = serde_json::to_string(&read).unwrap();
        assert_eq!(serde_json::from_str::<Verdict>(&json).unwrap(), read);
    }

    #[test]
    fn figures_are_told_with_the_digits_that_count() {
        let told = |unit: Unit, value| unit.tell(Figure::new(value).unwrap());
        assert_eq!(told(Unit::Share, 0.0125), "1.25 %");
        assert_eq!(told(Unit::Share, -0.0005), "-0.05 %");
        assert_eq!(told(Unit::Milliseconds, 61.526), "61.5 ms");
        assert_eq!(told(Unit::Milliseconds, 250.0), "250 ms");
        assert_eq!(told(Unit::Ratio, 0.0), "0 %");
        assert_eq!(told(Unit::Number, 0.25), "0.25");
    }
}
