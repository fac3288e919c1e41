//! MatMul and Gemm, in single and double precision. Sums are in double.

use modelyard_protocol::TensorData;

use super::attributes::Attributes;
use super::elementwise;
use super::limits::MOST_PRODUCTS;
use super::operators::{Inputs, Kernel, single};
use super::value::{Answer, Value, elements};

/// Of a matrix (or a vector, or a stack of matrices) and a matrix.
pub(super) fn mat_mul(inputs: &Inputs<'_>) -> Answer<Value> {
    multiply(inputs.get(0)?, inputs.get(1)?)
}

fn multiply(a: &Value, b: &Value) -> Answer<Value> {
    let ([.., inner], [height, columns]) = (a.shape.as_slice(), b.shape.as_slice()) else {
        return Err(format!("it does not multiply shapes {:?} and {:?}", a.shape, b.shape));
    };
    if inner != height {
        return Err(format!("shapes {:?} and {:?} do not fit", a.shape, b.shape));
    }
    let mut shape = a.shape.clone();
    shape.pop();
    shape.push(*columns);
    elements(&shape)?;
    if a.data.len().checked_mul(*columns).is_none_or(|products| products > MOST_PRODUCTS) {
        return Err(format!("shapes {:?} and {:?} are beyond the {MOST_PRODUCTS} products allowed", a.shape, b.shape));
    }
    #[expect(clippy::cast_possible_truncation, reason = "the output is in single precision")]
    let data = match (&a.data, &b.data) {
        (TensorData::Fp32(a), TensorData::Fp32(b)) => {
            TensorData::Fp32(rows(a, b, *inner, *columns, f64::from, |sum| sum as f32))
        }
        (TensorData::Fp64(a), TensorData::Fp64(b)) => TensorData::Fp64(rows(a, b, *inner, *columns, |x| x, |sum| sum)),
        (a, b) => return Err(format!("it does not multiply {} and {}", a.datatype(), b.datatype())),
    };
    Value::new(shape, data)
}

fn rows<T: Copy>(a: &[T], b: &[T], inner: usize, columns: usize, wide: fn(T) -> f64, narrow: fn(f64) -> T) -> Vec<T> {
    if inner == 0 || columns == 0 {
        return Vec::new();
    }
    let mut out = Vec::with_capacity(a.len() / inner * columns);
    let mut sums = vec![0.0; columns];
    for row in a.chunks_exact(inner) {
        sums.fill(0.0);
        for (x, weights) in row.iter().zip(b.chunks_exact(columns)) {
            let x = wide(*x);
            sums.iter_mut().zip(weights).for_each(|(sum, weight)| *sum += x * wide(*weight));
        }
        out.extend(sums.iter().map(|sum| narrow(*sum)));
    }
    out
}

/// Y = alpha · A' · B' + beta · C
pub(super) fn gemm(attributes: &Attributes) -> Kernel {
    let flag = |name: &str| attributes.int(name).unwrap_or(0) != 0;
    let (transpose_a, transpose_b) = (flag("transA"), flag("transB"));
    let factor = |name: &str| attributes.float(name).unwrap_or(1.0);
    let (alpha, beta) = (factor("alpha"), factor("beta"));
    single(move |inputs| {
        let turned = |value: &Value, turn: bool| {
            if turn { super::shapes::transposed(value, &[1, 0]) } else { Ok(value.clone()) }
        };
        let (a, b) = (turned(inputs.get(0)?, transpose_a)?, turned(inputs.get(1)?, transpose_b)?);
        if a.shape.len() != 2 {
            return Err(format!("A is no matrix but of shape {:?}", a.shape));
        }
        let product = scaled(multiply(&a, &b)?, alpha);
        match inputs.optional(2) {
            None => Ok(product),
            Some(c) => {
                let sum = elementwise::add(&product, &scaled(c.clone(), beta))?;
                if sum.shape == product.shape { Ok(sum) } else { Err(format!("C has shape {:?}", c.shape)) }
            }
        }
    })
}

fn scaled(mut value: Value, factor: f32) -> Value {
    #[expect(clippy::float_cmp, reason = "exactly 1 changes nothing")]
    if factor != 1.0 {
        match &mut value.data {
            TensorData::Fp32(v) => v.iter_mut().for_each(|x| *x *= factor),
            TensorData::Fp64(v) => v.iter_mut().for_each(|x| *x *= f64::from(factor)),
            _ => {}
        }
    }
    value
}
