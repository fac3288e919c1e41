//! LinearClassifier and LinearRegressor.

use modelyard_protocol::TensorData;

use super::attributes::Attributes;
use super::operators::{Kernel, Refusal, single};
use super::scores::{Labels, Second, Transform, largest, probit};
use super::value::{Answer, Value, elements};

/// scores = X · coefficientsᵀ + intercepts
struct Linear {
    /// Row by row: a row is a target, a column a feature.
    coefficients: Vec<f32>,
    /// One per target.
    intercepts: Vec<f32>,
    features: usize,
}

impl Linear {
    fn new(coefficients: &[f32], intercepts: &[f32], targets: usize) -> Result<Self, Refusal> {
        if targets == 0 || coefficients.is_empty() || !coefficients.len().is_multiple_of(targets) {
            return Err(format!("{} coefficients are no matrix of {targets} targets", coefficients.len()).into());
        }
        let mut intercepts = intercepts.to_vec();
        intercepts.resize(targets, 0.0);
        Ok(Self { coefficients: coefficients.to_vec(), intercepts, features: coefficients.len() / targets })
    }

    /// The number of rows, and the scores, row by row.
    fn scores(&self, x: &Value) -> Answer<(usize, Vec<f32>)> {
        let (rows, columns) = x.matrix()?;
        if columns != self.features {
            return Err(format!("it takes {} features, not {columns}", self.features));
        }
        let mut scores = Vec::with_capacity(elements(&[rows, self.intercepts.len()])?);
        for x in x.floats()?.chunks_exact(columns) {
            for (weights, intercept) in self.coefficients.chunks_exact(columns).zip(&self.intercepts) {
                #[expect(clippy::cast_possible_truncation, reason = "scores are in single precision")]
                scores.push((dot(weights, x) + f64::from(*intercept)) as f32);
            }
        }
        Ok((rows, scores))
    }
}

/// In double precision, so that the order of the sum does not matter to the result in single.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f64 {
    let mut sums = [0.0_f64; 4];
    let (a_parts, b_parts) = (a.as_chunks::<4>(), b.as_chunks::<4>());
    for (a, b) in a_parts.0.iter().zip(b_parts.0) {
        for lane in 0..4 {
            sums[lane] += f64::from(a[lane]) * f64::from(b[lane]);
        }
    }
    let rest: f64 = a_parts.1.iter().zip(b_parts.1).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
    sums.iter().sum::<f64>() + rest
}

pub(super) fn classifier(a: &Attributes) -> Result<Kernel, Refusal> {
    let labels = Labels::of(a, "classlabels_ints")?;
    let transform = Transform::of(a)?;
    let intercepts = a.floats("intercepts");
    let targets = if intercepts.is_empty() { labels.len() } else { intercepts.len() };
    let linear = Linear::new(a.need_floats("coefficients")?, intercepts, targets)?;
    if targets == 1 && labels.len() != 2 {
        return Err(Refusal::Lacks("it has one score, but not two classes".into()));
    }
    if targets > 1 && targets != labels.len() {
        return Err(format!("it has {targets} scores, but {} classes", labels.len()).into());
    }
    Ok(Box::new(move |inputs| {
        let (rows, mut scores) = linear.scores(inputs.get(0)?)?;
        let classes: Vec<usize> = if targets == 1 {
            scores.iter().map(|score| usize::from(*score > 0.0)).collect()
        } else {
            scores.chunks_exact(targets).map(largest).collect()
        };
        let columns = if targets == 1 {
            // One score becomes two, and no other transform is applied, as in ONNX Runtime.
            scores = scores.iter().flat_map(|score| Second::Complement.both(*score, transform)).collect();
            2
        } else {
            scores.chunks_exact_mut(targets).for_each(|row| transform.apply(row));
            targets
        };
        let labels = Value::new(vec![rows], labels.pick(&classes)?)?;
        Ok(vec![labels, Value::new(vec![rows, columns], TensorData::Fp32(scores))?])
    }))
}

pub(super) fn regressor(a: &Attributes) -> Result<Kernel, Refusal> {
    let transform = Transform::of(a)?;
    let targets = usize::try_from(a.int("targets").unwrap_or(1)).map_err(|_| "its number of targets is negative")?;
    // Intercepts that are not one for each target are not used, as in ONNX Runtime.
    let intercepts = Some(a.floats("intercepts")).filter(|i| i.len() == targets).unwrap_or_default();
    let linear = Linear::new(a.need_floats("coefficients")?, intercepts, targets)?;
    Ok(single(move |inputs| {
        let (rows, mut scores) = linear.scores(inputs.get(0)?)?;
        if targets > 1 {
            scores.chunks_exact_mut(targets).for_each(|row| transform.apply(row));
        } else if transform == Transform::Probit {
            scores.iter_mut().for_each(|score| *score = probit(*score));
        }
        Value::new(vec![rows, targets], TensorData::Fp32(scores))
    }))
}
