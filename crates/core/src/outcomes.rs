//! Outcomes: what came of requests, told by those who made them, and what is concluded from it.

use serde::{Deserialize, Serialize};

use crate::names::{DeploymentName, MetricName, ModelName, RequestId, RevisionNumber, Unit, VariantName, VersionName};
use crate::timestamp::Timestamp;
use crate::weight::Weight;

/// What came of a request or a unit, as it is posted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewOutcome {
    /// `x-request-id` of the answer. An outcome of the same request and metric is taken once, however often it is posted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<RequestId>,
    /// Who it is about, as `stickyBy` tells it: the value of the header or cookie, or the address. It is kept as a hash.
    /// With a request id: who made the request. Without one, a unit has one outcome per metric.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<Unit>,
    pub metric: MetricName,
    /// 0 and 1 for what happens or does not.
    pub value: f64,
    /// When the unit was served; now, if it is not given. Of no account where the request id tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
}

impl NewOutcome {
    /// Beyond these, squares lose their digits.
    pub const LARGEST_VALUE: f64 = 1e12;

    pub fn has_fit_value(&self) -> bool {
        self.value.is_finite() && self.value.abs() <= Self::LARGEST_VALUE
    }
}

/// The outcomes of one variant and metric: each unit is one number.
#[derive(Debug, Clone, PartialEq)]
pub struct Tally {
    pub variant: VariantName,
    pub metric: MetricName,
    pub units: u64,
    pub mean: f64,
    /// Of the sample: the sum of squares about the mean, divided by `units` - 1. 0 for one unit.
    pub variance: f64,
}

/// What an experiment has shown so far.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct ExperimentReport {
    pub deployment: DeploymentName,
    /// The revision that began it.
    pub experiment: RevisionNumber,
    pub since: Timestamp,
    /// False: another revision serves by now, without variants.
    pub running: bool,
    /// What is compared is what came since weights last moved.
    pub compared_since: Timestamp,
    pub baseline: VariantName,
    /// Of all intervals of one metric together, at whatever times one looks: 0.95.
    pub confidence: f64,
    pub variants: Vec<VariantFigures>,
    /// Each variant with the baseline, by metric.
    pub comparisons: Vec<Comparison>,
    pub leader: Leader,
    pub sample_ratio: SampleRatio,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct VariantFigures {
    pub name: VariantName,
    pub model: ModelName,
    pub version: VersionName,
    pub weight: Weight,
    /// Distinct units that were assigned to it since weights last moved. About, above 2,047.
    pub units: u64,
    /// Their requests.
    pub requests: u64,
    pub outcomes: Vec<MetricEstimate>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct MetricEstimate {
    pub metric: MetricName,
    /// Units with an outcome.
    pub units: u64,
    pub mean: f64,
    /// `None`: too few units, or all alike.
    pub interval: Option<Interval>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Interval {
    pub lower: f64,
    pub upper: f64,
}

/// A variant's mean less the baseline's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Comparison {
    pub metric: MetricName,
    pub variant: VariantName,
    pub difference: f64,
    /// `None`: too few units, or all alike.
    pub interval: Option<Interval>,
    /// Always valid: below α ever, at whatever time one looks, with a chance of at most α where there is no difference.
    /// Already multiplied by the number of comparisons of the metric.
    pub p_value: Option<f64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Leader {
    /// Better than each of the others.
    Ahead {
        variant: VariantName,
        metric: MetricName,
    },
    NobodyYet {
        why: String,
    },
}

/// Whether units came to the variants in the ratio of their shares. Where they did not, something sorts them by
/// variant (a variant that loses requests, a cache in front), and no comparison is to be believed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct SampleRatio {
    /// `None`: too few units to tell.
    pub mismatch: Option<bool>,
    pub p_value: Option<f64>,
    /// Units of a common sample of all variants, and how many of them were to be expected.
    pub counts: Vec<SampleCount>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct SampleCount {
    pub variant: VariantName,
    pub units: u64,
    pub expected: f64,
}
