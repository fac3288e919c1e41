//! Disagreement: how a variant's answers to mirrored requests differ from those that clients got. Adds up over gateways.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::magnitude::Magnitude;
use crate::names::{RevisionNumber, VariantName};
use crate::scores::ScoreHistogram;
use crate::timestamp::Timestamp;

/// Counts of mirrored requests. `candidate` is the variant that they were mirrored to, `reference` what clients got.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Disagreement {
    /// Requests that were asked of the candidate after a client had an answer. Part of the evidence's requests.
    pub mirrored: u64,
    /// Requests that should have been, but the queue was full or the candidate had no backend.
    pub dropped: u64,
    /// Mirrored requests whose two answers were compared. Those that the candidate failed are among its errors instead.
    pub compared: u64,
    /// Of those, the ones in which an output differed. One per request, however many rows it has: what a gate tests.
    pub differing: u64,
    /// Mirrored requests of which an answer was none of the protocol's that could be read, such as binary tensors.
    pub unreadable: u64,
    /// By name; at most [`Disagreement::MOST_OUTPUTS`]. What further ones do is in the counts above only.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub outputs: BTreeMap<String, OutputDisagreement>,
}

impl Disagreement {
    /// A model that makes up a name for each answer must not fill the memory.
    pub const MOST_OUTPUTS: usize = 32;

    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub fn merge(&mut self, other: &Self) {
        self.mirrored = self.mirrored.saturating_add(other.mirrored);
        self.dropped = self.dropped.saturating_add(other.dropped);
        self.compared = self.compared.saturating_add(other.compared);
        self.differing = self.differing.saturating_add(other.differing);
        self.unreadable = self.unreadable.saturating_add(other.unreadable);
        for (name, output) in &other.outputs {
            if let Some(ours) = self.output(name) {
                ours.merge(output);
            }
        }
    }

    /// The counts of an output. `None` if there are too many others.
    pub fn output(&mut self, name: &str) -> Option<&mut OutputDisagreement> {
        if !self.outputs.contains_key(name) {
            if self.outputs.len() >= Self::MOST_OUTPUTS {
                return None;
            }
            self.outputs.insert(name.to_owned(), OutputDisagreement::default());
        }
        self.outputs.get_mut(name)
    }
}

/// Counts of one output over compared answers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OutputDisagreement {
    /// Answers in which it was compared, or could not be since they do not match.
    pub compared: u64,
    /// Of those, the ones in which it differed.
    pub differing: u64,
    /// Of those, the ones in which one answer lacked it, or had another datatype or shape.
    pub mismatched: u64,
    /// Labels that were compared: rows of scores, or elements that are no floats.
    pub labels: u64,
    /// Labels that differed: the largest score is that of another class, or the element is another one.
    pub flips: u64,
    /// The largest |candidate - reference| of its numbers.
    pub largest_absolute: Magnitude,
    /// The largest |candidate - reference| / |reference| where |reference| is above the absolute tolerance: a share of
    /// nearly nothing says nothing.
    pub largest_relative: Magnitude,
    /// The distribution of its floats in the answers that clients got.
    #[serde(skip_serializing_if = "ScoreHistogram::is_empty")]
    pub reference: ScoreHistogram,
    /// The same in the candidate's.
    #[serde(skip_serializing_if = "ScoreHistogram::is_empty")]
    pub candidate: ScoreHistogram,
}

impl OutputDisagreement {
    pub fn merge(&mut self, other: &Self) {
        self.compared = self.compared.saturating_add(other.compared);
        self.differing = self.differing.saturating_add(other.differing);
        self.mismatched = self.mismatched.saturating_add(other.mismatched);
        self.labels = self.labels.saturating_add(other.labels);
        self.flips = self.flips.saturating_add(other.flips);
        self.largest_absolute = self.largest_absolute.max(other.largest_absolute);
        self.largest_relative = self.largest_relative.max(other.largest_relative);
        self.reference.merge(&other.reference);
        self.candidate.merge(&other.candidate);
    }

    /// How far the distribution of the output moved, from 0 to 1. See [`ScoreHistogram::distance`].
    pub fn drift(&self) -> f64 {
        self.reference.distance(&self.candidate)
    }
}

/// A mirrored request that the candidate answered otherwise. Bodies are as on the wire, cut at
/// [`DisagreementExample::LONGEST_BODY`] bytes, and only there if the mirror does not redact them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct DisagreementExample {
    pub at: Timestamp,
    pub request_id: String,
    /// Whose answer the client got.
    pub reference: VariantName,
    pub reference_revision: RevisionNumber,
    pub candidate: VariantName,
    /// What differs, an output each: "`y`: label 3 became 5 in row 0".
    pub differences: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference_answer: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate_answer: Option<String>,
}

impl DisagreementExample {
    pub const LONGEST_BODY: usize = 2_000;
}
