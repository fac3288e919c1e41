//! What becomes of the scores of a classifier or regressor: post-transforms and labels, as ONNX Runtime has them
//! (onnxruntime/core/providers/cpu/ml/ml_common.h).

use modelyard_protocol::TensorData;

use super::attributes::Attributes;
use super::limits;
use super::operators::Refusal;
use super::value::Answer;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transform {
    None,
    Logistic,
    Softmax,
    SoftmaxZero,
    Probit,
}

impl Transform {
    pub(super) fn of(attributes: &Attributes) -> Result<Self, Refusal> {
        match attributes.text("post_transform").unwrap_or("NONE") {
            "NONE" => Ok(Self::None),
            "LOGISTIC" => Ok(Self::Logistic),
            "SOFTMAX" => Ok(Self::Softmax),
            "SOFTMAX_ZERO" => Ok(Self::SoftmaxZero),
            "PROBIT" => Ok(Self::Probit),
            other => Err(format!("there is no post_transform {other}").into()),
        }
    }

    /// On the scores of one row, of two classes or more.
    pub(super) fn apply(self, scores: &mut [f32]) {
        match self {
            Self::None => {}
            Self::Logistic => scores.iter_mut().for_each(|s| *s = logistic(*s)),
            Self::Softmax => softmax(scores),
            Self::SoftmaxZero => softmax_zero(scores),
            Self::Probit => scores.iter_mut().for_each(|s| *s = probit(*s)),
        }
    }
}

pub(super) fn logistic(x: f32) -> f32 {
    let v = 1.0 / (1.0 + (-x.abs()).exp());
    if x < 0.0 { 1.0 - v } else { v }
}

pub(super) fn softmax(scores: &mut [f32]) {
    // Less the largest, so that no exponential overflows.
    let largest = scores.iter().copied().fold(f32::MIN, f32::max);
    scores.iter_mut().for_each(|s| *s = (*s - largest).exp());
    let sum: f32 = scores.iter().sum();
    scores.iter_mut().for_each(|s| *s /= sum);
}

/// Leaves out scores of zero, whose exponential is not zero.
fn softmax_zero(scores: &mut [f32]) {
    let largest = scores.iter().copied().fold(f32::MIN, f32::max);
    let mut sum = 0.0;
    for score in scores.iter_mut() {
        if score.abs() > 1e-7 {
            *score = (*score - largest).exp();
            sum += *score;
        } else {
            *score *= (-largest).exp();
        }
    }
    scores.iter_mut().for_each(|s| *s /= sum);
}

/// The inverse of the normal distribution's function, by Winitzki's approximation of erf⁻¹, with ONNX Runtime's digits.
pub(super) fn probit(p: f32) -> f32 {
    #[expect(clippy::approx_constant, reason = "the digits of ONNX Runtime")]
    const PI: f32 = 3.14159;
    #[expect(clippy::excessive_precision, clippy::approx_constant, reason = "the digits of ONNX Runtime")]
    const SQRT_2: f32 = 1.41421356;
    let x = 2.0 * p - 1.0;
    let log = ((1.0 - x) * (1.0 + x)).ln();
    let v = 2.0 / (PI * 0.147) + 0.5 * log;
    let root = (-v + (v * v - log / 0.147).sqrt()).sqrt();
    SQRT_2 * if x < 0.0 { -root } else { root }
}

/// Both columns of a classifier with two classes and one score.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Second {
    /// The score is a probability, and the rest of it the other class's.
    Complement,
    /// The score may be of either sign.
    Opposite,
}

impl Second {
    pub(super) fn both(self, score: f32, transform: Transform) -> [f32; 2] {
        match (self, transform) {
            // There is no second score then, and ONNX Runtime leaves its place as it was.
            (_, Transform::Probit) => [probit(score), 0.0],
            (_, Transform::Logistic) => [logistic(-score), logistic(score)],
            (Self::Complement, _) => [1.0 - score, score],
            (Self::Opposite, _) => [-score, score],
        }
    }
}

/// The labels of classes.
#[derive(Debug, Clone)]
pub(super) enum Labels {
    Ints(Vec<i64>),
    Strings(Vec<Vec<u8>>),
}

impl Labels {
    /// `ints` is the name of the attribute of whole labels, which differs between operators. Strings are tried first.
    pub(super) fn of(attributes: &Attributes, ints: &str) -> Result<Self, Refusal> {
        let strings = attributes.strings("classlabels_strings")?;
        let labels =
            if strings.is_empty() { Self::Ints(attributes.ints(ints).to_vec()) } else { Self::Strings(strings) };
        if labels.len() == 0 { Err("it has no class labels".into()) } else { Ok(labels) }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Ints(labels) => labels.len(),
            Self::Strings(labels) => labels.len(),
        }
    }

    /// The labels of `classes`, which must be smaller than their number.
    ///
    /// # Errors
    /// If they take more memory than there is for them.
    pub(super) fn pick(&self, classes: &[usize]) -> Answer<TensorData> {
        match self {
            Self::Ints(labels) => Ok(TensorData::Int64(classes.iter().map(|c| labels[*c]).collect())),
            Self::Strings(labels) => {
                limits::check_strings(classes.iter().map(|c| labels[*c].len()))?;
                Ok(TensorData::Bytes(classes.iter().map(|c| labels[*c].clone()).collect()))
            }
        }
    }
}

/// The place of the first of the largest.
pub(super) fn largest<T: Copy + PartialOrd>(scores: &[T]) -> usize {
    let mut best = 0;
    for (place, score) in scores.iter().enumerate().skip(1) {
        if *score > scores[best] {
            best = place;
        }
    }
    best
}
