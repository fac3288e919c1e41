//! Operators that fold dimensions: sums, extremes, ArgMax and Softmax. Sums are in double precision.

use modelyard_protocol::TensorData;

use super::attributes::Attributes;
use super::operators::{Kernel, Refusal, single};
use super::scores;
use super::value::{Answer, Value, axis, elements};

type Fold = fn(&mut dyn Iterator<Item = f64>) -> f64;

/// The operators that are named Reduce….
pub(super) fn kernel(op: &str, a: &Attributes) -> Option<Kernel> {
    let fold: Fold = match op {
        "ReduceL1" => |x| x.map(f64::abs).sum(),
        "ReduceL2" => |x| x.map(|x| x * x).sum::<f64>().sqrt(),
        "ReduceLogSumExp" => |x| {
            let x: Vec<f64> = x.collect();
            let largest = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            if !largest.is_finite() {
                return x.iter().map(|x| x.exp()).sum::<f64>().ln();
            }
            largest + x.iter().map(|x| (x - largest).exp()).sum::<f64>().ln()
        },
        "ReduceMax" => |x| x.fold(f64::NEG_INFINITY, |a, b| if b > a || b.is_nan() { b } else { a }),
        "ReduceMean" => |x| {
            let (mut sum, mut count) = (0.0, 0.0);
            x.for_each(|x| {
                sum += x;
                count += 1.0;
            });
            sum / count
        },
        "ReduceMin" => |x| x.fold(f64::INFINITY, |a, b| if b < a || b.is_nan() { b } else { a }),
        "ReduceProd" => |x| x.product(),
        "ReduceSum" => |x| x.sum(),
        "ReduceSumSquare" => |x| x.map(|x| x * x).sum(),
        _ => return None,
    };
    let keep = a.int("keepdims").unwrap_or(1) != 0;
    let nothing_if_empty = a.int("noop_with_empty_axes").unwrap_or(0) != 0;
    // Axes are an attribute up to opset 12 or 17, an input since.
    let listed = a.ints("axes").to_vec();
    Some(single(move |inputs| {
        let x = inputs.get(0)?;
        let axes = match inputs.optional(1) {
            Some(axes) => axes.integers()?.into_owned(),
            None => listed.clone(),
        };
        if axes.is_empty() && nothing_if_empty {
            return Ok(x.clone());
        }
        let folded = places(&axes, x.shape.len())?;
        let groups = Groups::new(&x.shape, &folded);
        let shape = rest(&x.shape, &folded, keep);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            reason = "results are of the kind of the input; integers beyond 2^53 are no counts of anything here"
        )]
        let data = match &x.data {
            TensorData::Fp32(v) => {
                TensorData::Fp32(groups.fold(|group| fold(&mut group.map(|i| f64::from(v[i]))) as f32))
            }
            TensorData::Fp64(v) => TensorData::Fp64(groups.fold(|group| fold(&mut group.map(|i| v[i])))),
            TensorData::Int32(v) => {
                TensorData::Int32(groups.fold(|group| fold(&mut group.map(|i| f64::from(v[i]))) as i32))
            }
            TensorData::Int64(v) => {
                TensorData::Int64(groups.fold(|group| fold(&mut group.map(|i| v[i] as f64)) as i64))
            }
            other => return Err(format!("it does not take {}", other.datatype())),
        };
        Value::new(shape, data)
    }))
}

/// Whether a dimension is one of `axes`; all are if there are none.
fn places(axes: &[i64], rank: usize) -> Answer<Vec<bool>> {
    let mut folded = vec![axes.is_empty(); rank];
    for one in axes {
        folded[axis(*one, rank)?] = true;
    }
    Ok(folded)
}

/// What is left of a shape.
fn rest(shape: &[usize], folded: &[bool], keep: bool) -> Vec<usize> {
    let kept = shape.iter().zip(folded).filter(|(_, folded)| keep || !**folded);
    kept.map(|(size, folded)| if *folded { 1 } else { *size }).collect()
}

/// Which elements are folded into one: those at `starts[i] + offsets[j]`, for each i.
struct Groups {
    starts: Vec<usize>,
    offsets: Vec<usize>,
}

impl Groups {
    fn new(shape: &[usize], folded: &[bool]) -> Self {
        let mut strides = vec![1; shape.len()];
        for place in (1..shape.len()).rev() {
            strides[place - 1] = strides[place] * shape[place].max(1);
        }
        let list = |wanted: bool| {
            let mut list = vec![0];
            let dimensions = shape.iter().zip(&strides).zip(folded);
            for ((size, stride), _) in dimensions.filter(|(_, folded)| **folded == wanted) {
                list = list.iter().flat_map(|start| (0..*size).map(move |i| start + i * stride)).collect();
            }
            list
        };
        Self { starts: list(false), offsets: list(true) }
    }

    fn fold<R>(&self, one: impl Fn(&mut dyn Iterator<Item = usize>) -> R) -> Vec<R> {
        self.starts.iter().map(|start| one(&mut self.offsets.iter().map(|offset| start + offset))).collect()
    }
}

pub(super) fn arg(largest: bool, a: &Attributes) -> Result<Kernel, Refusal> {
    let (along, keep) = (a.int("axis").unwrap_or(0), a.int("keepdims").unwrap_or(1) != 0);
    if a.int("select_last_index").unwrap_or(0) != 0 {
        return Err(Refusal::Lacks("it has no select_last_index".into()));
    }
    Ok(single(move |inputs| {
        let x = inputs.get(0)?;
        let mut folded = vec![false; x.shape.len()];
        let along = axis(along, x.shape.len())?;
        folded[along] = true;
        if x.shape[along] == 0 {
            return Err("there is nothing to choose from".into());
        }
        let groups = Groups::new(&x.shape, &folded);
        #[expect(clippy::cast_precision_loss, reason = "of integers beyond 2^53 the nearest is as good")]
        let value = |i: usize| match &x.data {
            TensorData::Fp32(v) => Ok(f64::from(v[i])),
            TensorData::Fp64(v) => Ok(v[i]),
            TensorData::Int32(v) => Ok(f64::from(v[i])),
            TensorData::Int64(v) => Ok(v[i] as f64),
            other => Err(format!("it does not take {}", other.datatype())),
        };
        let one = |group: &mut dyn Iterator<Item = usize>| {
            let group = group.map(value).collect::<Answer<Vec<f64>>>()?;
            let signed = if largest { group } else { group.iter().map(|x| -x).collect() };
            i64::try_from(scores::largest(&signed)).map_err(|e| e.to_string())
        };
        let found = groups.fold(one).into_iter().collect::<Answer<Vec<i64>>>()?;
        Value::new(rest(&x.shape, &folded, keep), TensorData::Int64(found))
    }))
}

/// Along the last dimension, or what comes to the same.
pub(super) fn softmax(a: &Attributes, opset: u64) -> Kernel {
    let along = a.int("axis").unwrap_or(if opset < 13 { 1 } else { -1 });
    single(move |inputs| {
        let x = inputs.get(0)?;
        let along = axis(along, x.shape.len())?;
        // Up to opset 12 all dimensions from the axis on count as one.
        let width = if opset < 13 { elements(&x.shape[along..])? } else { x.shape[along] };
        if opset >= 13 && along + 1 != x.shape.len() {
            return Err("it works along the last dimension only".into());
        }
        let data = match &x.data {
            TensorData::Fp32(v) => {
                let mut v = v.clone();
                v.chunks_exact_mut(width.max(1)).for_each(scores::softmax);
                TensorData::Fp32(v)
            }
            TensorData::Fp64(v) => {
                let mut v = v.clone();
                for row in v.chunks_exact_mut(width.max(1)) {
                    let largest = row.iter().copied().fold(f64::MIN, f64::max);
                    row.iter_mut().for_each(|s| *s = (*s - largest).exp());
                    let sum: f64 = row.iter().sum();
                    row.iter_mut().for_each(|s| *s /= sum);
                }
                TensorData::Fp64(v)
            }
            other => return Err(format!("it does not take {}", other.datatype())),
        };
        Value::new(x.shape.clone(), data)
    })
}
