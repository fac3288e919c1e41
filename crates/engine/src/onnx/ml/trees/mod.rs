//! TreeEnsembleClassifier and TreeEnsembleRegressor.
//!
//! Votes are summed in double precision, where ONNX Runtime has single for models in single: closer to scikit-learn,
//! which averages in double, and the same whatever the order.

mod forest;
mod number;
mod walk;

use modelyard_protocol::TensorData;

use self::forest::{Forest, Lists};
use self::number::Number;
use self::walk::{Aggregate, Tally};
use super::attributes::Attributes;
use super::operators::{Kernel, Refusal, single};
use super::scores::{Labels, Second, Transform, largest, probit};
use super::value::{Answer, Value, elements};

/// The most targets of a regressor, of which nothing but a number in the file says how many there are.
const MOST_TARGETS: usize = 1 << 16;

/// A forest whose thresholds and weights are in single precision, or in double (`…_as_tensor`, ai.onnx.ml 3).
enum Any {
    Single(Forest<f32>),
    Double(Forest<f64>),
}

impl Any {
    /// `votes`: what the names of the attributes of leaf weights begin with.
    fn new(a: &Attributes, votes: &str, targets: usize) -> Result<Self, Refusal> {
        let weights_name = format!("{votes}_weights");
        let lists = |name: &str| -> Result<Option<&TensorData>, Refusal> {
            match a.tensor(&format!("{name}_as_tensor")).map(|value| &value.data) {
                Some(TensorData::Fp32(_) | TensorData::Fp64(_)) if !a.floats(name).is_empty() => {
                    Err(format!("it has both {name} and {name}_as_tensor").into())
                }
                found @ (None | Some(TensorData::Fp32(_) | TensorData::Fp64(_))) => Ok(found),
                Some(other) => Err(format!("{name}_as_tensor is {}", other.datatype()).into()),
            }
        };
        let (thresholds, weights) = (lists("nodes_values")?, lists(&weights_name)?);
        if [thresholds, weights].iter().any(|list| matches!(list, Some(TensorData::Fp64(_)))) {
            let wide = |list: Option<&TensorData>, name: &str| match list {
                Some(TensorData::Fp64(v)) => v.clone(),
                Some(TensorData::Fp32(v)) => v.iter().map(|x| f64::from(*x)).collect(),
                _ => a.floats(name).iter().map(|x| f64::from(*x)).collect(),
            };
            let (thresholds, weights) = (wide(thresholds, "nodes_values"), wide(weights, &weights_name));
            return Ok(Self::Double(forest(a, votes, targets, &thresholds, &weights)?));
        }
        let narrow = |list: Option<&TensorData>, name: &str| match list {
            Some(TensorData::Fp32(v)) => v.clone(),
            _ => a.floats(name).to_vec(),
        };
        let (thresholds, weights) = (narrow(thresholds, "nodes_values"), narrow(weights, &weights_name));
        Ok(Self::Single(forest(a, votes, targets, &thresholds, &weights)?))
    }

    fn trees(&self) -> usize {
        match self {
            Self::Single(forest) => forest.roots.len(),
            Self::Double(forest) => forest.roots.len(),
        }
    }

    /// Tells `done` what each row is voted; returns the number of rows.
    fn run(&self, x: &Value, aggregate: Aggregate, done: &mut dyn FnMut(usize, &mut Tally)) -> Answer<usize> {
        let (rows, width) = x.matrix()?;
        let features = match self {
            Self::Single(forest) => forest.features,
            Self::Double(forest) => forest.features,
        };
        if width < features {
            return Err(format!("it looks at {features} features, but there are {width}"));
        }
        match (self, &x.data) {
            (Self::Single(forest), TensorData::Fp32(x)) => forest.run(x, width, aggregate, done),
            (Self::Single(forest), TensorData::Fp64(x)) => forest.run(x, width, aggregate, done),
            (Self::Single(forest), _) => forest.run(&x.floats()?, width, aggregate, done),
            (Self::Double(forest), TensorData::Fp32(x)) => forest.run(x, width, aggregate, done),
            (Self::Double(forest), TensorData::Fp64(x)) => forest.run(x, width, aggregate, done),
            #[expect(clippy::cast_precision_loss, reason = "ONNX Runtime compares them as doubles, too")]
            (Self::Double(forest), _) => {
                let x: Vec<f64> = x.integers()?.iter().map(|x| *x as f64).collect();
                forest.run(&x, width, aggregate, done);
            }
        }
        Ok(rows)
    }
}

fn forest<T: Number>(
    a: &Attributes,
    votes: &str,
    targets: usize,
    thresholds: &[T],
    weights: &[T],
) -> Answer<Forest<T>> {
    let lists = Lists {
        tree_ids: a.ints("nodes_treeids"),
        node_ids: a.ints("nodes_nodeids"),
        features: a.ints("nodes_featureids"),
        modes: a.packed_strings("nodes_modes"),
        thresholds,
        true_ids: a.ints("nodes_truenodeids"),
        false_ids: a.ints("nodes_falsenodeids"),
        missing_is_true: a.ints("nodes_missing_value_tracks_true"),
        vote_trees: a.ints(&format!("{votes}_treeids")),
        vote_nodes: a.ints(&format!("{votes}_nodeids")),
        vote_targets: a.ints(&format!("{votes}_ids")),
        vote_weights: weights,
    };
    Forest::new(&lists, targets)
}

fn base_values(a: &Attributes) -> Result<Vec<f64>, Refusal> {
    match a.tensor("base_values_as_tensor").map(|value| &value.data) {
        None => Ok(a.floats("base_values").iter().map(|x| f64::from(*x)).collect()),
        Some(TensorData::Fp32(v)) => Ok(v.iter().map(|x| f64::from(*x)).collect()),
        Some(TensorData::Fp64(v)) => Ok(v.clone()),
        Some(other) => Err(format!("base_values_as_tensor is {}", other.datatype()).into()),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "outputs are in single precision")]
fn narrow(score: f64) -> f32 {
    score as f32
}

pub(super) fn regressor(a: &Attributes) -> Result<Kernel, Refusal> {
    let targets = usize::try_from(a.int("n_targets").unwrap_or(1)).ok().filter(|n| (1..=MOST_TARGETS).contains(n));
    let targets = targets.ok_or_else(|| format!("n_targets must be 1 to {MOST_TARGETS}"))?;
    let forest = Any::new(a, "target", targets)?;
    let transform = Transform::of(a)?;
    let (aggregate, divisor) = match a.text("aggregate_function").unwrap_or("SUM") {
        "SUM" => (Aggregate::Sum, 1.0),
        #[expect(clippy::cast_precision_loss, reason = "trees are fewer than 2^52")]
        "AVERAGE" => (Aggregate::Sum, forest.trees() as f64),
        "MIN" => (Aggregate::Min, 1.0),
        "MAX" => (Aggregate::Max, 1.0),
        other => return Err(format!("there is no aggregate_function {other}").into()),
    };
    // Base values that are not one for each target are not used, as in ONNX Runtime.
    let mut base = base_values(a)?;
    if base.len() != targets {
        base = vec![0.0; targets];
    }
    Ok(single(move |inputs| {
        let x = inputs.get(0)?;
        let mut scores = Vec::with_capacity(elements(&[x.matrix()?.0, targets])?);
        let rows = forest.run(x, aggregate, &mut |_, tally| {
            for (place, (score, has)) in tally.scores.iter().zip(&tally.has_score).enumerate() {
                scores.push(narrow(if *has { score / divisor } else { 0.0 } + base[place % targets]));
            }
        })?;
        if targets > 1 {
            scores.chunks_exact_mut(targets).for_each(|row| transform.apply(row));
        } else if transform == Transform::Probit {
            scores.iter_mut().for_each(|score| *score = probit(*score));
        }
        Value::new(vec![rows, targets], TensorData::Fp32(scores))
    }))
}

pub(super) fn classifier(a: &Attributes) -> Result<Kernel, Refusal> {
    let labels = Labels::of(a, "classlabels_int64s")?;
    let classes = labels.len();
    if classes < 2 {
        return Err(Refusal::Lacks("it has one class only".into()));
    }
    let forest = Any::new(a, "class", classes)?;
    let base = base_values(a)?;
    if !(base.is_empty() || base.len() == classes || (classes == 2 && base.len() == 1)) {
        return Err(format!("it has {} base values for {classes} classes", base.len()).into());
    }
    let voted = a.ints("class_ids");
    let rules = Rules {
        transform: Transform::of(a)?,
        is_one_sided: voted.iter().all(|class| *class == voted[0]),
        is_probability: match &forest {
            Any::Single(forest) => forest.is_all_positive(),
            Any::Double(forest) => forest.is_all_positive(),
        },
        base,
    };
    Ok(Box::new(move |inputs| {
        let x = inputs.get(0)?;
        let rows = x.matrix()?.0;
        let mut scores: Vec<f32> = Vec::with_capacity(elements(&[rows, classes])?);
        let mut chosen = Vec::with_capacity(rows);
        forest.run(x, Aggregate::Sum, &mut |_, tally| {
            let rows = tally.scores.chunks_exact_mut(classes).zip(tally.has_score.chunks_exact(classes));
            for (row, has_score) in rows {
                if let ([first, second], [has_first, has_second]) = (&*row, has_score) {
                    let (class, both) = rules.two([*first, *second], [*has_first, *has_second]);
                    chosen.push(class);
                    scores.extend(both);
                } else {
                    chosen.push(rules.many(row, has_score));
                    let from = scores.len();
                    scores.extend(row.iter().map(|score| narrow(*score)));
                    rules.transform.apply(&mut scores[from..]);
                }
            }
        })?;
        let labels = Value::new(vec![rows], labels.pick(&chosen)?)?;
        Ok(vec![labels, Value::new(vec![rows, classes], TensorData::Fp32(scores))?])
    }))
}

/// From votes to class and scores, as ONNX Runtime decides (tree_ensemble_aggregator.h).
struct Rules {
    transform: Transform,
    /// Whether all votes are for the same class.
    is_one_sided: bool,
    /// Whether no vote is negative.
    is_probability: bool,
    base: Vec<f64>,
}

impl Rules {
    /// Of more than two classes: adds the base values.
    fn many(&self, scores: &mut [f64], has_score: &[bool]) -> usize {
        for (score, base) in scores.iter_mut().zip(&self.base) {
            *score += base;
        }
        let counts = |place: usize| has_score[place] || place < self.base.len();
        let mut best = None;
        for (place, score) in scores.iter().enumerate().filter(|(place, _)| counts(*place)) {
            if best.is_none_or(|best: usize| *score > scores[best]) {
                best = Some(place);
            }
        }
        best.unwrap_or(0)
    }

    /// Of two classes, which may be told by one score.
    fn two(&self, [first, second]: [f64; 2], [has_first, has_second]: [bool; 2]) -> (usize, [f32; 2]) {
        let (first, second, has_two) = match (self.base.as_slice(), has_second) {
            // The base value of the first class is not used then.
            ([_, base], true) => (-(base + first), base + first, true),
            ([base, _], false) => (first + base, 0.0, true),
            ([base], has_second) => (first + base, second, has_second),
            (_, has_second) => (first, second, has_second),
        };
        // A class without votes has no score, whatever its base value.
        let first = if has_first || !has_two { first } else { 0.0 };
        let decisive = if has_second { second } else { first };
        if self.is_one_sided {
            let (limit, other) = if self.is_probability { (0.5, Second::Complement) } else { (0.0, Second::Opposite) };
            let class = usize::from(decisive > limit);
            if !has_two {
                return (class, other.both(narrow(first), self.transform));
            }
            return (class, self.transformed(first, second));
        }
        if !has_two {
            return (usize::from(decisive > 0.0), Second::Opposite.both(narrow(first), self.transform));
        }
        // The top class, as the specification says. ONNX Runtime's label is 1 here if the second score is positive and
        // else 0, whatever the class labels are; no converter is known to write such votes.
        (largest(&[first, second]), self.transformed(first, second))
    }

    fn transformed(&self, first: f64, second: f64) -> [f32; 2] {
        let mut both = [narrow(first), narrow(second)];
        self.transform.apply(&mut both);
        both
    }
}
