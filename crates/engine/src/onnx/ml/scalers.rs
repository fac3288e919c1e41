//! Scaler, Normalizer, Imputer, Binarizer.

use modelyard_protocol::TensorData;

use super::attributes::Attributes;
use super::operators::{Kernel, Refusal, single};
use super::value::{Answer, Value};

/// The factor or offset of a column: one for all, or one for each.
fn of_column(numbers: &[f32], columns: usize, absent: f32) -> Answer<impl Fn(usize) -> f32> {
    if numbers.len() > 1 && numbers.len() != columns {
        return Err(format!("it is for {} columns, but there are {columns}", numbers.len()));
    }
    Ok(move |place: usize| match numbers {
        [] => absent,
        [one] => *one,
        each => each[place % columns],
    })
}

/// Y = (X - offset) * scale, in the precision of X, given in single.
pub(super) fn scaler(a: &Attributes) -> Result<Kernel, Refusal> {
    let (offset, scale) = (a.floats("offset").to_vec(), a.floats("scale").to_vec());
    if !offset.is_empty() && !scale.is_empty() && offset.len() != scale.len() {
        return Err("offset and scale differ in length".into());
    }
    Ok(single(move |inputs| {
        let x = inputs.get(0)?;
        let (_, columns) = x.matrix()?;
        let (offset, scale) = (of_column(&offset, columns, 0.0)?, of_column(&scale, columns, 1.0)?);
        let y = match &x.data {
            #[expect(clippy::cast_possible_truncation, reason = "the output is in single precision")]
            TensorData::Fp64(v) => {
                let one = |(i, x): (usize, &f64)| ((x - f64::from(offset(i))) * f64::from(scale(i))) as f32;
                v.iter().enumerate().map(one).collect()
            }
            _ => x.floats()?.iter().enumerate().map(|(i, x)| (x - offset(i)) * scale(i)).collect(),
        };
        Value::new(x.shape.clone(), TensorData::Fp32(y))
    }))
}

pub(super) fn normalizer(a: &Attributes) -> Result<Kernel, Refusal> {
    // MAX is the largest, whatever its sign: that is the specification's, and not scikit-learn's, which takes
    // the largest magnitude.
    let normalize: fn(&mut [f32]) = match a.text("norm").unwrap_or("MAX") {
        "MAX" => |row| divide(row, row.iter().copied().fold(f32::MIN, f32::max)),
        "L1" => |row| divide(row, row.iter().map(|x| x.abs()).sum()),
        "L2" => |row| {
            let sum: f32 = row.iter().map(|x| x * x).sum();
            if sum != 0.0 {
                row.iter_mut().for_each(|x| *x = (*x * *x / sum).sqrt().copysign(*x));
            }
        },
        other => return Err(format!("there is no norm {other}").into()),
    };
    Ok(single(move |inputs| {
        let x = inputs.get(0)?;
        let (_, columns) = x.matrix()?;
        let mut y = x.floats()?.into_owned();
        y.chunks_exact_mut(columns.max(1)).for_each(normalize);
        Value::new(x.shape.clone(), TensorData::Fp32(y))
    }))
}

fn divide(row: &mut [f32], by: f32) {
    if by != 0.0 {
        row.iter_mut().for_each(|x| *x /= by);
    }
}

/// Puts other values in the place of the one that stands for a missing one, which may be NaN.
pub(super) fn imputer(a: &Attributes) -> Result<Kernel, Refusal> {
    let (floats, ints) = (a.floats("imputed_value_floats").to_vec(), a.ints("imputed_value_int64s").to_vec());
    if floats.is_empty() == ints.is_empty() {
        return Err("it must have imputed_value_floats or imputed_value_int64s".into());
    }
    let (missing, missing_int) =
        (a.float("replaced_value_float").unwrap_or(0.0), a.int("replaced_value_int64").unwrap_or(0));
    Ok(single(move |inputs| {
        let x = inputs.get(0)?;
        let (_, columns) = x.matrix()?;
        let data = match &x.data {
            TensorData::Fp32(v) if !floats.is_empty() => {
                let is = |x: f32| x == missing || (x.is_nan() && missing.is_nan());
                TensorData::Fp32(impute(v, columns, &floats, is))
            }
            TensorData::Fp64(v) if !floats.is_empty() => {
                let wide: Vec<f64> = floats.iter().map(|f| f64::from(*f)).collect();
                let is = |x: f64| x == f64::from(missing) || (x.is_nan() && missing.is_nan());
                TensorData::Fp64(impute(v, columns, &wide, is))
            }
            TensorData::Int64(v) if !ints.is_empty() => {
                TensorData::Int64(impute(v, columns, &ints, |x| x == missing_int))
            }
            other => return Err(format!("it has no values for {}", other.datatype())),
        };
        Value::new(x.shape.clone(), data)
    }))
}

fn impute<T: Copy>(x: &[T], columns: usize, values: &[T], is_missing: impl Fn(T) -> bool) -> Vec<T> {
    let value = |place: usize| if values.len() == columns { values[place % columns] } else { values[0] };
    x.iter().enumerate().map(|(place, x)| if is_missing(*x) { value(place) } else { *x }).collect()
}

/// 1 for what is above the threshold, 0 for the rest.
pub(super) fn binarizer(a: &Attributes) -> Kernel {
    let threshold = a.float("threshold").unwrap_or(0.0);
    single(move |inputs| {
        let x = inputs.get(0)?;
        let above = |x: f64| x > f64::from(threshold);
        #[expect(clippy::cast_precision_loss, reason = "beyond 2^53 the threshold is no nearer")]
        let data = match &x.data {
            TensorData::Fp32(v) => TensorData::Fp32(v.iter().map(|x| f32::from(u8::from(*x > threshold))).collect()),
            TensorData::Fp64(v) => TensorData::Fp64(v.iter().map(|x| f64::from(u8::from(above(*x)))).collect()),
            TensorData::Int32(v) => TensorData::Int32(v.iter().map(|x| i32::from(above(f64::from(*x)))).collect()),
            TensorData::Int64(v) => TensorData::Int64(v.iter().map(|x| i64::from(above(*x as f64))).collect()),
            other => return Err(format!("it takes numbers, not {}", other.datatype())),
        };
        Value::new(x.shape.clone(), data)
    })
}
