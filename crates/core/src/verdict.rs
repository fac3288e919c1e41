//! Verdicts of a rollout's analysis, with the numbers they were made on.

use std::fmt;

use serde::{Deserialize, Serialize};

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
    /// Each limit, what was measured against it, and whether it holds.
    pub checks: Vec<Check>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Decision {
    Pass,
    Fail,
    /// Too few requests to tell.
    NeedMoreData {
        have: u64,
        want: u64,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// The manifest's name of the limit: `maxErrorRate`, `maxLatencyP99`.
    pub limit: String,
    pub wanted: String,
    pub measured: String,
    pub holds: bool,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.decision {
            Decision::Pass => write!(f, "pass")?,
            Decision::Fail => write!(f, "fail")?,
            Decision::NeedMoreData { have, want } => write!(f, "need more data: {have} of {want} requests")?,
        }
        for check in &self.checks {
            let word = if check.holds { "within" } else { "exceeds" };
            write!(f, "; {} {} {word} {}", check.limit, check.measured, check.wanted)?;
        }
        Ok(())
    }
}
