//! Operators that change kinds and shapes, and none that computes: Cast, Concat, Gather, Reshape and their like.

use half::{bf16, f16};
use modelyard_protocol::TensorData;

use super::attributes::Attributes;
use super::limits;
use super::operators::{Kernel, Refusal, single};
use super::value::{Answer, Value, axis, elements, index, pick};

/// Cast, between numbers, and from strings to numbers and back.
pub(super) fn cast(a: &Attributes) -> Result<Kernel, Refusal> {
    let to = a.int("to").ok_or("it does not say to what")?;
    if !matches!(to, 1 | 6 | 7 | 8 | 9 | 10 | 11) {
        return Err(Refusal::Lacks(format!("it does not cast to ONNX datatype {to}")));
    }
    Ok(single(move |inputs| {
        let x = inputs.get(0)?;
        Value::new(x.shape.clone(), convert(&x.data, to)?)
    }))
}

/// Of digits and a sign.
const LONGEST_NUMBER: usize = 20;

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "that is what a cast is; what does not fit becomes the nearest that does"
)]
fn convert(data: &TensorData, to: i64) -> Answer<TensorData> {
    if let (TensorData::Int64(_), 7)
    | (TensorData::Fp32(_), 1)
    | (TensorData::Bytes(_), 8)
    | (TensorData::Fp64(_), 11) = (data, to)
    {
        return Ok(data.clone());
    }
    if let (TensorData::Int64(v), 8) = (data, to) {
        limits::check_strings(v.iter().map(|_| LONGEST_NUMBER))?;
        return Ok(TensorData::Bytes(v.iter().map(|x| x.to_string().into_bytes()).collect()));
    }
    if let (TensorData::Int64(v), 6) = (data, to) {
        return Ok(TensorData::Int32(v.iter().map(|x| *x as i32).collect()));
    }
    let wide: Vec<f64> = match data {
        TensorData::Bool(v) => v.iter().map(|x| f64::from(u8::from(*x))).collect(),
        TensorData::Uint8(v) => v.iter().map(|x| f64::from(*x)).collect(),
        TensorData::Uint16(v) => v.iter().map(|x| f64::from(*x)).collect(),
        TensorData::Uint32(v) => v.iter().map(|x| f64::from(*x)).collect(),
        TensorData::Uint64(v) => v.iter().map(|x| *x as f64).collect(),
        TensorData::Int8(v) => v.iter().map(|x| f64::from(*x)).collect(),
        TensorData::Int16(v) => v.iter().map(|x| f64::from(*x)).collect(),
        TensorData::Int32(v) => v.iter().map(|x| f64::from(*x)).collect(),
        TensorData::Int64(v) => v.iter().map(|x| *x as f64).collect(),
        TensorData::Fp16(v) => v.iter().map(|x| x.to_f64()).collect(),
        TensorData::Fp32(v) => v.iter().map(|x| f64::from(*x)).collect(),
        TensorData::Fp64(v) => v.clone(),
        TensorData::Bf16(v) => v.iter().copied().map(bf16::to_f64).collect(),
        TensorData::Bytes(v) => {
            let number = |s: &Vec<u8>| std::str::from_utf8(s).ok().and_then(|s| s.trim().parse::<f64>().ok());
            v.iter().map(number).collect::<Option<_>>().ok_or("a string is no number")?
        }
    };
    match to {
        1 => Ok(TensorData::Fp32(wide.iter().map(|x| *x as f32).collect())),
        6 => Ok(TensorData::Int32(wide.iter().map(|x| *x as i32).collect())),
        7 => Ok(TensorData::Int64(wide.iter().map(|x| *x as i64).collect())),
        9 => Ok(TensorData::Bool(wide.iter().map(|x| *x != 0.0).collect())),
        10 => Ok(TensorData::Fp16(wide.iter().map(|x| f16::from_f64(*x)).collect())),
        11 => Ok(TensorData::Fp64(wide)),
        _ => Err(format!("it does not cast {} to strings", data.datatype())),
    }
}

pub(super) fn concat(a: &Attributes) -> Result<Kernel, Refusal> {
    let along = a.int("axis").ok_or("it has no axis")?;
    Ok(single(move |inputs| {
        let values = inputs.all()?;
        let first = values[0];
        let along = axis(along, first.shape.len())?;
        let mut shape = first.shape.clone();
        for value in &values[1..] {
            let same = value.shape.len() == shape.len()
                && value.shape.iter().zip(&shape).enumerate().all(|(place, (a, b))| place == along || a == b);
            if !same {
                return Err(format!("shapes {:?} and {:?} do not fit", first.shape, value.shape));
            }
            shape[along] = shape[along].checked_add(value.shape[along]).ok_or("its shapes are absurd")?;
        }
        // Of nothing nothing is put together, however often.
        let outer = if elements(&shape)? == 0 { 0 } else { elements(&shape[..along])? };
        let strings = values.iter().filter_map(|value| match &value.data {
            TensorData::Bytes(strings) => Some(strings.iter().map(Vec::len)),
            _ => None,
        });
        limits::check_strings(strings.flatten())?;
        macro_rules! of {
            ($($kind:ident),*) => {
                match &first.data {
                    $(TensorData::$kind(_) => {
                        let mut parts = Vec::with_capacity(values.len());
                        for value in &values {
                            let TensorData::$kind(v) = &value.data else {
                                return Err(format!("{} and {} together", first.datatype(), value.datatype()));
                            };
                            parts.push((v.as_slice(), value.shape[along..].iter().product::<usize>()));
                        }
                        let row = |at: usize| parts.iter().flat_map(move |(v, width)| &v[at * width..(at + 1) * width]);
                        TensorData::$kind((0..outer).flat_map(row).cloned().collect())
                    })*
                    other => return Err(format!("it does not take {}", other.datatype())),
                }
            };
        }
        let data = of!(Fp32, Fp64, Int64, Int32, Bytes, Bool);
        Value::new(shape, data)
    }))
}

/// Constant: a tensor, or a number or list of them.
pub(super) fn constant(a: &Attributes) -> Result<Kernel, Refusal> {
    let list = |data: TensorData| Value { shape: vec![data.len()], data };
    let scalar = |data: TensorData| Value { shape: Vec::new(), data };
    let value = if let Some(tensor) = a.tensor("value") {
        tensor.clone()
    } else if let Some(x) = a.float("value_float") {
        scalar(TensorData::Fp32(vec![x]))
    } else if let Some(x) = a.int("value_int") {
        scalar(TensorData::Int64(vec![x]))
    } else if a.has("value_floats") {
        list(TensorData::Fp32(a.floats("value_floats").to_vec()))
    } else if a.has("value_ints") {
        list(TensorData::Int64(a.ints("value_ints").to_vec()))
    } else {
        return Err(Refusal::Lacks("it holds no tensor and no numbers".into()));
    };
    Ok(single(move |_| Ok(value.clone())))
}

pub(super) fn constant_of_shape(a: &Attributes) -> Result<Kernel, Refusal> {
    let value = a.tensor("value").map_or(TensorData::Fp32(vec![0.0]), |value| value.data.clone());
    if value.len() != 1 {
        return Err("its value is not one element".into());
    }
    Ok(single(move |inputs| {
        let shape = sizes(&inputs.get(0)?.integers()?)?;
        let places = vec![0; elements(&shape)?];
        Value::new(shape, pick(&value, &places)?)
    }))
}

fn sizes(dimensions: &[i64]) -> Answer<Vec<usize>> {
    dimensions.iter().map(|d| usize::try_from(*d).map_err(|_| format!("a dimension is {d}"))).collect()
}

/// Into a matrix: dimensions before the axis become rows, the others columns.
pub(super) fn flatten(a: &Attributes) -> Kernel {
    let at = a.int("axis").unwrap_or(1);
    single(move |inputs| {
        let x = inputs.get(0)?;
        let rank = x.shape.len();
        let at = if usize::try_from(at) == Ok(rank) { rank } else { axis(at, rank)? };
        let shape = vec![elements(&x.shape[..at])?, elements(&x.shape[at..])?];
        Value::new(shape, x.data.clone())
    })
}

pub(super) fn gather(a: &Attributes) -> Kernel {
    let along = a.int("axis").unwrap_or(0);
    single(move |inputs| {
        let (x, chosen) = (inputs.get(0)?, inputs.get(1)?);
        let along = axis(along, x.shape.len())?;
        let length = x.shape[along];
        let indices = chosen.integers()?.iter().map(|i| index(*i, length)).collect::<Answer<Vec<_>>>()?;
        let shape = [&x.shape[..along], &chosen.shape, &x.shape[along + 1..]].concat();
        let count = elements(&shape)?;
        let inner = elements(&x.shape[along + 1..])?;
        let mut places = Vec::with_capacity(count);
        if count > 0 {
            for outer in 0..elements(&x.shape[..along])? {
                for i in &indices {
                    let start = (outer * length + i) * inner;
                    places.extend(start..start + inner);
                }
            }
        }
        Value::new(shape, pick(&x.data, &places)?)
    })
}

/// A dimension of -1 is what the others leave, one of 0 that of the input.
pub(super) fn reshape(a: &Attributes) -> Kernel {
    let listed = a.ints("shape").to_vec();
    let zero_is_zero = a.int("allowzero").unwrap_or(0) != 0;
    single(move |inputs| {
        let x = inputs.get(0)?;
        let wanted = match inputs.optional(1) {
            Some(shape) => shape.integers()?.into_owned(),
            None => listed.clone(),
        };
        let size = |(place, d): (usize, &i64)| match *d {
            -1 => Ok(1),
            0 if !zero_is_zero => x.shape.get(place).copied().ok_or_else(|| "it keeps a dimension there is not".into()),
            d => usize::try_from(d).map_err(|_| format!("a dimension is {d}")),
        };
        let mut shape = wanted.iter().enumerate().map(size).collect::<Answer<Vec<usize>>>()?;
        let mut free = wanted.iter().enumerate().filter(|(_, d)| **d == -1);
        if let Some((place, _)) = free.next() {
            shape[place] = x.data.len().checked_div(elements(&shape)?).unwrap_or(0);
        }
        if free.next().is_some() {
            return Err(format!("{wanted:?} leaves two dimensions open"));
        }
        Value::new(shape, x.data.clone())
    })
}

pub(super) fn shape(a: &Attributes) -> Result<Kernel, Refusal> {
    if a.has("start") || a.has("end") {
        return Err(Refusal::Lacks("it has no start and end".into()));
    }
    Ok(single(|inputs| {
        let sizes = inputs.get(0)?.shape.iter().map(|d| i64::try_from(*d)).collect::<Result<Vec<_>, _>>();
        let sizes = sizes.map_err(|e| e.to_string())?;
        Value::new(vec![sizes.len()], TensorData::Int64(sizes))
    }))
}

/// Drops dimensions of 1: those listed, or all.
pub(super) fn squeeze(a: &Attributes) -> Kernel {
    let listed = a.ints("axes").to_vec();
    single(move |inputs| {
        let x = inputs.get(0)?;
        let axes = match inputs.optional(1) {
            Some(axes) => axes.integers()?.into_owned(),
            None => listed.clone(),
        };
        let mut dropped: Vec<bool> = x.shape.iter().map(|d| axes.is_empty() && *d == 1).collect();
        for one in axes {
            let place = axis(one, x.shape.len())?;
            if x.shape[place] != 1 {
                return Err(format!("dimension {place} of {:?} is not 1", x.shape));
            }
            dropped[place] = true;
        }
        let kept = x.shape.iter().zip(&dropped).filter(|(_, dropped)| !**dropped);
        Value::new(kept.map(|(d, _)| *d).collect(), x.data.clone())
    })
}

pub(super) fn unsqueeze(a: &Attributes) -> Kernel {
    let listed = a.ints("axes").to_vec();
    single(move |inputs| {
        let x = inputs.get(0)?;
        let axes = match inputs.optional(1) {
            Some(axes) => axes.integers()?.into_owned(),
            None => listed.clone(),
        };
        let mut added = vec![false; x.shape.len() + axes.len()];
        elements(&vec![1; added.len()])?;
        for one in axes {
            let place = axis(one, added.len())?;
            if std::mem::replace(&mut added[place], true) {
                return Err(format!("axis {place} is added twice"));
            }
        }
        let mut sizes = x.shape.iter();
        let shape = added.iter().map(|added| if *added { 1 } else { sizes.next().copied().unwrap_or(1) }).collect();
        Value::new(shape, x.data.clone())
    })
}

pub(super) fn transpose(a: &Attributes) -> Kernel {
    let order = a.ints("perm").to_vec();
    single(move |inputs| {
        let x = inputs.get(0)?;
        let rank = x.shape.len();
        let order = if order.is_empty() {
            (0..rank).rev().collect()
        } else {
            order.iter().map(|place| axis(*place, rank)).collect::<Answer<Vec<usize>>>()?
        };
        transposed(x, &order)
    })
}

/// With its dimensions in another order.
pub(super) fn transposed(x: &Value, order: &[usize]) -> Answer<Value> {
    let rank = x.shape.len();
    let mut sorted = order.to_vec();
    sorted.sort_unstable();
    if !sorted.into_iter().eq(0..rank) {
        return Err(format!("{order:?} is no order of {rank} dimensions"));
    }
    let mut strides = vec![1_usize; rank];
    for place in (1..rank).rev() {
        strides[place - 1] = strides[place].saturating_mul(x.shape[place]);
    }
    let shape: Vec<usize> = order.iter().map(|place| x.shape[*place]).collect();
    let mut places = vec![0];
    for place in order {
        let (size, stride) = (x.shape[*place], strides[*place]);
        places = places.iter().flat_map(|start| (0..size).map(move |i| start + i * stride)).collect();
    }
    Value::new(shape, pick(&x.data, &places)?)
}
