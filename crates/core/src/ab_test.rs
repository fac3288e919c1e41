//! The strategy `abTest`: several variants side by side for weeks, units (users, clients) that keep theirs, and what is
//! to be learnt from them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::assignment::StickyBy;
use crate::names::{MetricName, ModelName, NameError, Salt, VariantName, VersionName};
use crate::route::MatchRule;
use crate::version::ModelVersion;
use crate::weight::Weight;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AbTest {
    /// At least two, with names of their own and weights that sum to the whole. The others are compared with the first.
    pub variants: Vec<AbVariant>,
    pub sticky_by: StickyBy,
    /// What comes before assignment: requests that match get their rule's variant, and count for no comparison.
    #[serde(default, rename = "match", skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<MatchRule>,
    /// The share of units that stays out of the test. They get `spec.version`, under the name of
    /// [`VariantName::holdout`]; the variants' weights are of the rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holdout: Option<Weight>,
    /// By default one of the experiment's own: units are shuffled anew for each. The same for two experiments gives them
    /// the same shuffle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub salt: Option<Salt>,
    /// Without any, outcomes of all names are taken. The first one says who is ahead.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<Metric>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AbVariant {
    pub name: VariantName,
    /// By default that of the deployment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelName>,
    pub version: VersionName,
    pub weight: Weight,
}

/// A kind of outcome, and how it is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Metric {
    pub name: MetricName,
    #[serde(default)]
    pub goal: Goal,
    /// What becomes of several outcomes of one unit.
    #[serde(default)]
    pub per_unit: PerUnit,
}

impl Metric {
    /// One that was not declared.
    pub fn plain(name: MetricName) -> Self {
        Self { name, goal: Goal::default(), per_unit: PerUnit::default() }
    }
}

/// Which way is better.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum Goal {
    #[default]
    Increase,
    Decrease,
}

impl FromStr for Goal {
    type Err = NameError;
    fn from_str(s: &str) -> Result<Self, NameError> {
        match s {
            "increase" => Ok(Self::Increase),
            "decrease" => Ok(Self::Decrease),
            _ => Err(NameError::new("goal", s, "use increase or decrease")),
        }
    }
}

/// How a unit's outcomes become its one number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum PerUnit {
    /// Ratings, latencies, whether something was clicked.
    #[default]
    Mean,
    /// Revenue, numbers of things.
    Sum,
}

impl FromStr for PerUnit {
    type Err = NameError;
    fn from_str(s: &str) -> Result<Self, NameError> {
        match s {
            "mean" => Ok(Self::Mean),
            "sum" => Ok(Self::Sum),
            _ => Err(NameError::new("choice", s, "use mean or sum")),
        }
    }
}

impl AbTest {
    /// The share of units of each variant, the holdout among them: they sum to the whole.
    pub fn shares(&self) -> Vec<(VariantName, Weight)> {
        let holdout = self.holdout.filter(|weight| !weight.is_zero());
        let weights: Vec<_> = self.variants.iter().map(|variant| variant.weight).collect();
        let split = holdout.unwrap_or_default().rest().split(&weights);
        let names = self.variants.iter().map(|variant| variant.name.clone());
        names.zip(split).chain(holdout.map(|weight| (VariantName::holdout(), weight))).collect()
    }

    /// What each variant runs, in the order of [`AbTest::shares`]. `model` and `baseline` are the deployment's own.
    pub fn versions(&self, model: &ModelName, baseline: &VersionName) -> Vec<(ModelName, VersionName)> {
        let holdout = self.holdout.filter(|weight| !weight.is_zero()).map(|_| (model.clone(), baseline.clone()));
        let variants = self.variants.iter();
        variants.map(|v| (v.model.as_ref().unwrap_or(model).clone(), v.version.clone())).chain(holdout).collect()
    }

    /// How a metric is read: as declared, or by default.
    pub fn metric(&self, name: &MetricName) -> Metric {
        let declared = self.metrics.iter().find(|metric| metric.name == *name);
        declared.cloned().unwrap_or_else(|| Metric::plain(name.clone()))
    }

    /// Whether outcomes of that name are taken.
    pub fn takes(&self, name: &MetricName) -> bool {
        self.metrics.is_empty() || self.metrics.iter().any(|metric| metric.name == *name)
    }
}

/// A variant of a revision, with its version resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RevisionVariant {
    pub name: VariantName,
    pub version: ModelVersion,
    /// Its share of the revision's traffic. Those of a revision sum to the whole.
    pub weight: Weight,
}

/// `a header`, `the cookie c`: what units are told by, for people.
impl fmt::Display for StickyBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "header {name}"),
            Self::Cookie(name) => write!(f, "cookie {name}"),
            Self::ClientIp => f.write_str("client address"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test(weights: &[f64], holdout: Option<f64>) -> AbTest {
        let weight = |percent| Weight::from_percent(percent).unwrap();
        let variant = |(i, percent): (usize, &f64)| AbVariant {
            name: format!("v{i}").parse().unwrap(),
            model: None,
            version: i.to_string().parse().unwrap(),
            weight: weight(*percent),
        };
        AbTest {
            variants: weights.iter().enumerate().map(variant).collect(),
            sticky_by: StickyBy::ClientIp,
            rules: Vec::new(),
            holdout: holdout.map(weight),
            salt: None,
            metrics: Vec::new(),
        }
    }

    #[test]
    fn a_holdout_is_a_share_of_all_and_variants_share_the_rest() {
        let shares: Vec<_> =
            test(&[33.33, 33.33, 33.34], Some(5.0)).shares().iter().map(|(n, w)| format!("{n} {w}")).collect();
        assert_eq!(shares, ["v0 31.67 %", "v1 31.66 %", "v2 31.67 %", "holdout 5 %"]);
        let test = test(&[50.0, 50.0], None);
        assert_eq!(test.shares().len(), 2);
        let versions = test.versions(&"m".parse().unwrap(), &"9".parse().unwrap());
        assert_eq!(versions.iter().map(|(_, v)| v.as_str()).collect::<Vec<_>>(), ["0", "1"]);
    }
}
