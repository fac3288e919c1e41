//! SVMClassifier and SVMRegressor, by support vectors (libsvm's) or by coefficients alone (liblinear's).
//!
//! Pairwise probabilities are those of Wu, Lin and Weng, "Probability estimates for multi-class classification by
//! pairwise coupling" (2004), as libsvm and ONNX Runtime compute them.

use modelyard_protocol::TensorData;

use super::attributes::Attributes;
use super::linear::dot;
use super::operators::{Kernel as Operator, Refusal, single};
use super::scores::{Labels, Transform, largest, logistic};
use super::value::{Answer, Value, elements};

/// What two vectors have to do with each other.
#[derive(Debug, Clone, Copy)]
enum Kernel {
    Linear,
    Poly { gamma: f64, coef0: f64, degree: f64 },
    Rbf { gamma: f64 },
    Sigmoid { gamma: f64, coef0: f64 },
}

impl Kernel {
    fn of(a: &Attributes) -> Result<Self, Refusal> {
        let (gamma, coef0, degree) = match *a.floats("kernel_params") {
            [] => (0.0, 0.0, 0.0),
            [gamma, coef0, degree, ..] => (f64::from(gamma), f64::from(coef0), f64::from(degree)),
            _ => return Err("its kernel_params are not gamma, coef0 and degree".into()),
        };
        match a.text("kernel_type").unwrap_or("LINEAR") {
            "LINEAR" => Ok(Self::Linear),
            "POLY" => Ok(Self::Poly { gamma, coef0, degree }),
            "RBF" => Ok(Self::Rbf { gamma }),
            "SIGMOID" => Ok(Self::Sigmoid { gamma, coef0 }),
            other => Err(format!("there is no kernel {other}").into()),
        }
    }

    fn of_two(self, a: &[f32], b: &[f32]) -> f64 {
        match self {
            Self::Linear => dot(a, b),
            Self::Poly { gamma, coef0, degree } => (gamma * dot(a, b) + coef0).powf(degree),
            Self::Rbf { gamma } => {
                let square = |(a, b): (&f32, &f32)| (f64::from(*a) - f64::from(*b)).powi(2);
                (-gamma * a.iter().zip(b).map(square).sum::<f64>()).exp()
            }
            Self::Sigmoid { gamma, coef0 } => (gamma * dot(a, b) + coef0).tanh(),
        }
    }
}

/// Vectors of one length.
struct Vectors {
    kernel: Kernel,
    elements: Vec<f32>,
    features: usize,
}

impl Vectors {
    fn new(kernel: Kernel, elements: &[f32], count: usize) -> Result<Self, Refusal> {
        if count == 0 || elements.is_empty() || !elements.len().is_multiple_of(count) {
            return Err(format!("{} numbers are no {count} vectors of one length", elements.len()).into());
        }
        Ok(Self { kernel, elements: elements.to_vec(), features: elements.len() / count })
    }

    /// The number of rows of `x`, and all of its elements.
    fn rows<'x>(&self, x: &'x Value) -> Answer<(usize, std::borrow::Cow<'x, [f32]>)> {
        let (rows, columns) = x.matrix()?;
        if columns != self.features {
            return Err(format!("it takes {} features, not {columns}", self.features));
        }
        Ok((rows, x.floats()?))
    }

    fn with(&self, row: &[f32]) -> Vec<f64> {
        self.elements.chunks_exact(self.features).map(|vector| self.kernel.of_two(row, vector)).collect()
    }
}

pub(super) fn regressor(a: &Attributes) -> Result<Operator, Refusal> {
    let coefficients = a.need_floats("coefficients")?.to_vec();
    let rho = f64::from(a.need_floats("rho")?[0]);
    let supports = usize::try_from(a.int("n_supports").unwrap_or(0)).map_err(|_| "n_supports is negative")?;
    let one_class = a.int("one_class").unwrap_or(0) != 0;
    let vectors = if supports > 0 {
        if coefficients.len() != supports {
            return Err(format!("it has {} coefficients for {supports} vectors", coefficients.len()).into());
        }
        Vectors::new(Kernel::of(a)?, a.need_floats("support_vectors")?, supports)?
    } else {
        Vectors::new(Kernel::Linear, &coefficients, 1)?
    };
    Ok(single(move |inputs| {
        let (rows, x) = vectors.rows(inputs.get(0)?)?;
        let one = |row: &[f32]| {
            let near = vectors.with(row);
            let sum = if supports > 0 {
                near.iter().zip(&coefficients).map(|(k, c)| k * f64::from(*c)).sum::<f64>()
            } else {
                near.iter().sum()
            };
            #[expect(clippy::cast_possible_truncation, reason = "the output is in single precision")]
            let score = (sum + rho) as f32;
            if one_class { if score > 0.0 { 1.0 } else { -1.0 } } else { score }
        };
        Value::new(vec![rows, 1], TensorData::Fp32(x.chunks_exact(vectors.features).map(one).collect()))
    }))
}

/// One against one: a score for each pair of classes.
struct Pairs {
    vectors: Vectors,
    /// `classes - 1` rows, with a column per support vector.
    coefficients: Vec<f32>,
    /// Where the support vectors of each class begin, and where the last's end.
    starts: Vec<usize>,
    rho: Vec<f32>,
}

impl Pairs {
    fn classes(&self) -> usize {
        self.starts.len() - 1
    }

    /// The scores of the pairs, and how often each class won.
    fn scores(&self, row: &[f32]) -> (Vec<f32>, Vec<u32>) {
        let near = self.vectors.with(row);
        let classes = self.classes();
        let (mut scores, mut votes) = (Vec::with_capacity(self.rho.len()), vec![0; classes]);
        let part = |coefficients: usize, of: usize| {
            let range = self.starts[of]..self.starts[of + 1];
            let row = &self.coefficients[coefficients * near.len()..][range.clone()];
            row.iter().zip(&near[range]).map(|(c, k)| f64::from(*c) * k).sum::<f64>()
        };
        for i in 0..classes {
            for j in i + 1..classes {
                let score = part(j - 1, i) + part(i, j) + f64::from(self.rho[scores.len()]);
                votes[if score > 0.0 { i } else { j }] += 1;
                #[expect(clippy::cast_possible_truncation, reason = "scores are in single precision")]
                scores.push(score as f32);
            }
        }
        (scores, votes)
    }
}

pub(super) fn classifier(a: &Attributes) -> Result<Operator, Refusal> {
    let labels = Labels::of(a, "classlabels_ints")?;
    let transform = Transform::of(a)?;
    let classes = labels.len();
    let per_class = a.ints("vectors_per_class");
    if per_class.is_empty() || classes < 2 {
        return Err(Refusal::Lacks("it is linear, without support vectors, or of one class".into()));
    }
    if per_class.len() != classes {
        return Err(format!("it has {classes} labels, but support vectors of {} classes", per_class.len()).into());
    }
    let mut starts = vec![0_usize];
    for count in per_class {
        let end = usize::try_from(*count).ok().and_then(|c| c.checked_add(starts[starts.len() - 1]));
        starts.push(end.ok_or("vectors_per_class are absurd")?);
    }
    let supports = starts[classes];
    let vectors = Vectors::new(Kernel::of(a)?, a.need_floats("support_vectors")?, supports)?;
    let coefficients = a.need_floats("coefficients")?.to_vec();
    if Some(coefficients.len()) != supports.checked_mul(classes - 1) {
        return Err(format!("{} coefficients do not fit {supports} support vectors", coefficients.len()).into());
    }
    let pair_count = classes * (classes - 1) / 2;
    let rho = a.need_floats("rho")?.to_vec();
    let (prob_a, prob_b) = (a.floats("prob_a").to_vec(), a.floats("prob_b").to_vec());
    let has_probabilities = !prob_a.is_empty();
    if rho.len() != pair_count || prob_a.len() != prob_b.len() || (has_probabilities && prob_a.len() != pair_count) {
        return Err(format!("rho, prob_a or prob_b are not one for each of {pair_count} pairs").into());
    }
    let columns = if has_probabilities {
        classes
    } else if classes == 2 {
        2
    } else {
        pair_count
    };
    // ONNX Runtime takes the label of two classes from the votes, unless the coefficients are of one sign.
    let pairs = Pairs { vectors, coefficients, starts, rho };
    Ok(Box::new(move |inputs| {
        let (rows, x) = pairs.vectors.rows(inputs.get(0)?)?;
        let mut scores = Vec::with_capacity(elements(&[rows, columns])?);
        let mut chosen = Vec::with_capacity(rows);
        for row in x.chunks_exact(pairs.vectors.features) {
            let (found, votes) = pairs.scores(row);
            chosen.push(largest(&votes));
            let from = scores.len();
            if has_probabilities {
                scores.extend(coupled(&pairwise(&found, &prob_a, &prob_b, classes), classes));
                transform.apply(&mut scores[from..]);
            } else if let [score] = *found.as_slice() {
                scores.extend(match transform {
                    Transform::None => [-score, score],
                    _ => [1.0 - score, score],
                });
            } else {
                scores.extend(found);
                transform.apply(&mut scores[from..]);
            }
        }
        let labels = Value::new(vec![rows], labels.pick(&chosen)?)?;
        Ok(vec![labels, Value::new(vec![rows, columns], TensorData::Fp32(scores))?])
    }))
}

/// For each pair of classes the probability of the first, as a matrix.
fn pairwise(scores: &[f32], prob_a: &[f32], prob_b: &[f32], classes: usize) -> Vec<f32> {
    let mut r = vec![0.0; classes * classes];
    let mut pair = 0;
    for i in 0..classes {
        for j in i + 1..classes {
            let p = 1.0 - logistic(scores[pair] * prob_a[pair] + prob_b[pair]);
            let p = p.clamp(1e-7, 1.0 - 1e-7);
            (r[i * classes + j], r[j * classes + i]) = (p, 1.0 - p);
            pair += 1;
        }
    }
    r
}

#[expect(clippy::cast_precision_loss, reason = "classes are few")]
fn coupled(r: &[f32], classes: usize) -> Vec<f32> {
    let at = |i: usize, j: usize| r[i * classes + j];
    let mut q = vec![0.0; classes * classes];
    for i in 0..classes {
        for j in (0..classes).filter(|j| *j != i) {
            q[i * classes + i] += at(j, i) * at(j, i);
            q[i * classes + j] = -at(j, i) * at(i, j);
        }
    }
    let mut p = vec![1.0 / classes as f32; classes];
    for _ in 0..100 {
        let mut qp: Vec<f32> = q.chunks_exact(classes).map(|q| q.iter().zip(&p).map(|(q, p)| q * p).sum()).collect();
        let mut pqp: f32 = p.iter().zip(&qp).map(|(p, qp)| p * qp).sum();
        let error = qp.iter().map(|qp| (qp - pqp).abs()).fold(0.0, f32::max);
        if error < 0.005 / classes as f32 {
            break;
        }
        for i in 0..classes {
            let own = q[i * classes + i];
            let step = (pqp - qp[i]) / own;
            p[i] += step;
            pqp = (pqp + step * (step * own + 2.0 * qp[i])) / (1.0 + step) / (1.0 + step);
            for j in 0..classes {
                qp[j] = (qp[j] + step * q[i * classes + j]) / (1.0 + step);
                p[j] /= 1.0 + step;
            }
        }
    }
    p
}
