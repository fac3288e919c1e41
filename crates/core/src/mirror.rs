//! Mirroring: copies of requests for a variant that no client gets an answer from, and how its answers are compared.

use std::collections::BTreeMap;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::magnitude::Magnitude;
use crate::names::{NameError, VariantName};
use crate::weight::Weight;

/// A share of the requests that other variants answered well is asked of `variant` too, once the client has its answer.
///
/// Only inferences whose body and answer the gateway holds whole. What does not fit the gateway's queue is dropped and
/// counted: mirroring never makes a client wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mirror {
    pub variant: VariantName,
    pub share: Weight,
    #[serde(default)]
    pub tolerance: Tolerance,
    /// Outputs that are compared otherwise than by their datatype and shape, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub outputs: BTreeMap<String, OutputRule>,
    /// How many examples of disagreement each gateway keeps, at most [`Mirror::MOST_EXAMPLES`]. 0 is none.
    #[serde(default)]
    pub keep_examples: u32,
    /// What examples leave out.
    #[serde(default)]
    pub redact: Redaction,
}

impl Mirror {
    /// Examples travel with every report of a gateway.
    pub const MOST_EXAMPLES: u32 = 64;

    /// Mirrors a share to a variant, with everything else as by default.
    pub fn new(variant: VariantName, share: Weight) -> Self {
        Self {
            variant,
            share,
            tolerance: Tolerance::default(),
            outputs: BTreeMap::new(),
            keep_examples: 0,
            redact: Redaction::default(),
        }
    }
}

/// Which floats count as the same: |candidate - reference| <= absolute + relative * |reference|.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Tolerance {
    pub absolute: Magnitude,
    pub relative: Magnitude,
}

impl Default for Tolerance {
    /// Above what other kernels or half precision make of the same weights (its rounding is 2^-11 of a number, 0.0005).
    fn default() -> Self {
        Self { absolute: Magnitude::of(1e-3), relative: Magnitude::of(1e-2) }
    }
}

impl Tolerance {
    /// Whether two floats count as the same. NaN is the same as NaN, an infinity as itself.
    pub fn holds(&self, candidate: f64, reference: f64) -> bool {
        #[expect(clippy::float_cmp, reason = "infinities, and the common case")]
        if candidate == reference || (candidate.is_nan() && reference.is_nan()) {
            return true;
        }
        let bound = self.absolute.get() + self.relative.get() * reference.abs();
        reference.is_finite() && (candidate - reference).abs() <= bound
    }
}

/// How an output is compared.
///
/// By default: floats with two or more elements in their last dimension and a batch dimension before it by label, other
/// floats by value, and whatever is no float by equality.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum OutputRule {
    /// By the largest element of each row, a row being the last dimension: scores of classes.
    Label,
    /// Element by element, with the tolerance: embeddings, boxes, regressions.
    Value,
    /// Not at all: states, sampled text.
    Ignore,
}

impl FromStr for OutputRule {
    type Err = NameError;
    fn from_str(s: &str) -> Result<Self, NameError> {
        match s {
            "label" => Ok(Self::Label),
            "value" => Ok(Self::Value),
            "ignore" => Ok(Self::Ignore),
            _ => Err(NameError::new("rule", s, "use label, value or ignore")),
        }
    }
}

/// What examples of disagreement leave out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum Redaction {
    /// All values: they say which outputs differed, in which way.
    Values,
    /// The inputs: they have the outputs.
    #[default]
    Inputs,
    /// Nothing: they have inputs and outputs.
    Nothing,
}

impl FromStr for Redaction {
    type Err = NameError;
    fn from_str(s: &str) -> Result<Self, NameError> {
        match s {
            "values" => Ok(Self::Values),
            "inputs" => Ok(Self::Inputs),
            "nothing" => Ok(Self::Nothing),
            _ => Err(NameError::new("redaction", s, "use values, inputs or nothing")),
        }
    }
}
