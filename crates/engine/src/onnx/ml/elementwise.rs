//! Operators on elements, with NumPy's broadcasting.

use modelyard_protocol::TensorData;

use super::attributes::Attributes;
use super::limits;
use super::operators::{Inputs, Kernel, single};
use super::value::{Answer, Value, elements};

/// Where in an input the elements of the output come from.
enum Source {
    /// All from one.
    One,
    /// From the element of the same place, modulo the number of elements.
    Cycle(usize),
    Table(Vec<usize>),
}

impl Source {
    fn new(shape: &[usize], output: &[usize]) -> Self {
        let own: Vec<usize> = shape.iter().copied().skip_while(|d| *d == 1).collect();
        if own.is_empty() {
            return Self::One;
        }
        if output.ends_with(&own) {
            return Self::Cycle(own.iter().product::<usize>().max(1));
        }
        // Row-major strides of the input over the output's dimensions; 0 where it is repeated.
        let mut strides = vec![0; output.len()];
        let mut stride = 1;
        for (place, size) in shape.iter().enumerate().rev() {
            if *size != 1 {
                strides[output.len() - shape.len() + place] = stride;
            }
            stride *= size;
        }
        let mut table = vec![0];
        for (size, stride) in output.iter().zip(&strides) {
            table = table.iter().flat_map(|start| (0..*size).map(move |i| start + i * stride)).collect();
        }
        Self::Table(table)
    }

    fn at(&self, place: usize) -> usize {
        match self {
            Self::One => 0,
            Self::Cycle(length) => place % length,
            Self::Table(table) => table[place],
        }
    }
}

/// The shape to which `a` and `b` are broadcast, and its number of elements.
fn broadcast(a: &[usize], b: &[usize]) -> Answer<(Vec<usize>, usize)> {
    let rank = a.len().max(b.len());
    let size = |shape: &[usize], place: usize| (place + shape.len()).checked_sub(rank).map_or(1, |p| shape[p]);
    let dimension = |place: usize| match (size(a, place), size(b, place)) {
        (x, y) if x == y => Ok(x),
        (1, y) => Ok(y),
        (x, 1) => Ok(x),
        _ => Err(format!("shapes {a:?} and {b:?} do not fit")),
    };
    let shape = (0..rank).map(dimension).collect::<Answer<Vec<usize>>>()?;
    let count = elements(&shape)?;
    Ok((shape, count))
}

fn zip<T: Copy, R>(a: (&Value, &[T]), b: (&Value, &[T]), f: impl Fn(T, T) -> R) -> Answer<(Vec<usize>, Vec<R>)> {
    let (shape, count) = broadcast(&a.0.shape, &b.0.shape)?;
    if a.0.shape == b.0.shape {
        return Ok((shape, a.1.iter().zip(b.1).map(|(a, b)| f(*a, *b)).collect()));
    }
    let (from_a, from_b) = (Source::new(&a.0.shape, &shape), Source::new(&b.0.shape, &shape));
    let out = (0..count).map(|place| f(a.1[from_a.at(place)], b.1[from_b.at(place)])).collect();
    Ok((shape, out))
}

fn mixed(a: &Value, b: &Value) -> String {
    format!("it does not take {} and {} together", a.datatype(), b.datatype())
}

/// One function of two numbers for each kind.
#[derive(Clone, Copy)]
struct Arithmetic {
    single: fn(f32, f32) -> f32,
    double: fn(f64, f64) -> f64,
    int: fn(i32, i32) -> i32,
    long: fn(i64, i64) -> i64,
}

impl Arithmetic {
    fn apply(self, a: &Value, b: &Value) -> Answer<Value> {
        let (shape, data) = match (&a.data, &b.data) {
            (TensorData::Fp32(x), TensorData::Fp32(y)) => {
                let (shape, out) = zip((a, x), (b, y), self.single)?;
                (shape, TensorData::Fp32(out))
            }
            (TensorData::Fp64(x), TensorData::Fp64(y)) => {
                let (shape, out) = zip((a, x), (b, y), self.double)?;
                (shape, TensorData::Fp64(out))
            }
            (TensorData::Int32(x), TensorData::Int32(y)) => {
                let (shape, out) = zip((a, x), (b, y), self.int)?;
                (shape, TensorData::Int32(out))
            }
            (TensorData::Int64(x), TensorData::Int64(y)) => {
                let (shape, out) = zip((a, x), (b, y), self.long)?;
                (shape, TensorData::Int64(out))
            }
            _ => return Err(mixed(a, b)),
        };
        Value::new(shape, data)
    }
}

const ADD: Arithmetic =
    Arithmetic { single: |a, b| a + b, double: |a, b| a + b, int: i32::wrapping_add, long: i64::wrapping_add };
const SUB: Arithmetic =
    Arithmetic { single: |a, b| a - b, double: |a, b| a - b, int: i32::wrapping_sub, long: i64::wrapping_sub };
const MUL: Arithmetic =
    Arithmetic { single: |a, b| a * b, double: |a, b| a * b, int: i32::wrapping_mul, long: i64::wrapping_mul };
/// Integers divided by zero are 0: ONNX leaves it open, and a request must not end the process.
const DIV: Arithmetic = Arithmetic {
    single: |a, b| a / b,
    double: |a, b| a / b,
    int: |a, b| if b == 0 { 0 } else { a.wrapping_div(b) },
    long: |a, b| if b == 0 { 0 } else { a.wrapping_div(b) },
};
/// NaN is the larger and the smaller of any two.
const MAX: Arithmetic = Arithmetic {
    single: |a, b| if a > b || a.is_nan() { a } else { b },
    double: |a, b| if a > b || a.is_nan() { a } else { b },
    int: i32::max,
    long: i64::max,
};
const MIN: Arithmetic = Arithmetic {
    single: |a, b| if a < b || a.is_nan() { a } else { b },
    double: |a, b| if a < b || a.is_nan() { a } else { b },
    int: i32::min,
    long: i64::min,
};

pub(super) fn add(a: &Value, b: &Value) -> Answer<Value> {
    ADD.apply(a, b)
}

/// The operators that have no attributes.
pub(super) fn kernel(op: &str) -> Option<Kernel> {
    let two = |arithmetic: Arithmetic| Some(single(move |i| arithmetic.apply(i.get(0)?, i.get(1)?)));
    let any = |arithmetic: Arithmetic| {
        Some(single(move |inputs| {
            let all = inputs.all()?;
            all[1..].iter().try_fold(all[0].clone(), |sum, value| arithmetic.apply(&sum, value))
        }))
    };
    match op {
        "Add" => two(ADD),
        "Sub" => two(SUB),
        "Mul" => two(MUL),
        "Div" => two(DIV),
        "Sum" => any(ADD),
        "Max" => any(MAX),
        "Min" => any(MIN),
        "Pow" => Some(single(power)),
        "Equal" => Some(single(equal)),
        "Less" => compare(|a, b| a < b, |a, b| a < b),
        "LessOrEqual" => compare(|a, b| a <= b, |a, b| a <= b),
        "Greater" => compare(|a, b| a > b, |a, b| a > b),
        "GreaterOrEqual" => compare(|a, b| a >= b, |a, b| a >= b),
        "And" => logical(|a, b| a && b),
        "Or" => logical(|a, b| a || b),
        "Xor" => logical(|a, b| a != b),
        "Not" => Some(single(|inputs| {
            let x = inputs.get(0)?;
            let TensorData::Bool(v) = &x.data else { return Err(format!("it takes BOOL, not {}", x.datatype())) };
            Value::new(x.shape.clone(), TensorData::Bool(v.iter().map(|x| !x).collect()))
        })),
        _ => unary(op),
    }
}

/// A function in both precisions.
type Real = (fn(f32) -> f32, fn(f64) -> f64);

fn unary(op: &str) -> Option<Kernel> {
    let (single_f, double_f): Real = match op {
        "Abs" => (f32::abs, f64::abs),
        "Ceil" => (f32::ceil, f64::ceil),
        "Exp" => (f32::exp, f64::exp),
        "Floor" => (f32::floor, f64::floor),
        "Log" => (f32::ln, f64::ln),
        "Neg" => (|x| -x, |x| -x),
        "Reciprocal" => (f32::recip, f64::recip),
        // Not `max`, which makes 0 of NaN and so hides it.
        "Relu" => (|x| if x < 0.0 { 0.0 } else { x }, |x| if x < 0.0 { 0.0 } else { x }),
        "Sigmoid" => (super::scores::logistic, |x| 1.0 / (1.0 + (-x).exp())),
        "Sqrt" => (f32::sqrt, f64::sqrt),
        "Tanh" => (f32::tanh, f64::tanh),
        _ => return None,
    };
    let long: Option<fn(i64) -> i64> = match op {
        "Abs" => Some(i64::wrapping_abs),
        "Neg" => Some(i64::wrapping_neg),
        _ => None,
    };
    Some(single(move |inputs| {
        let x = inputs.get(0)?;
        let data = match (&x.data, long) {
            (TensorData::Fp32(v), _) => TensorData::Fp32(v.iter().map(|x| single_f(*x)).collect()),
            (TensorData::Fp64(v), _) => TensorData::Fp64(v.iter().map(|x| double_f(*x)).collect()),
            (TensorData::Int64(v), Some(long)) => TensorData::Int64(v.iter().map(|x| long(*x)).collect()),
            (other, _) => return Err(format!("it does not take {}", other.datatype())),
        };
        Value::new(x.shape.clone(), data)
    }))
}

/// The exponent may be of another kind than the base, whose kind the power is of.
fn power(inputs: &Inputs<'_>) -> Answer<Value> {
    let (a, b) = (inputs.get(0)?, inputs.get(1)?);
    match (&a.data, &b.data) {
        (TensorData::Fp64(x), TensorData::Fp64(y)) => {
            let (shape, out) = zip((a, x), (b, y), f64::powf)?;
            Value::new(shape, TensorData::Fp64(out))
        }
        (TensorData::Fp32(x), _) => {
            let (shape, out) = zip((a, x), (b, &b.floats()?), f32::powf)?;
            Value::new(shape, TensorData::Fp32(out))
        }
        _ => Err(mixed(a, b)),
    }
}

fn equal(inputs: &Inputs<'_>) -> Answer<Value> {
    let (a, b) = (inputs.get(0)?, inputs.get(1)?);
    let (shape, out) = match (&a.data, &b.data) {
        (TensorData::Bool(x), TensorData::Bool(y)) => zip((a, x), (b, y), |a, b| a == b)?,
        (TensorData::Bytes(x), TensorData::Bytes(y)) => {
            let (x, y): (Vec<&[u8]>, Vec<&[u8]>) =
                (x.iter().map(Vec::as_slice).collect(), y.iter().map(Vec::as_slice).collect());
            zip((a, &x), (b, &y), |a, b| a == b)?
        }
        _ => return comparison(a, b, |a, b| a == b, |a, b| a == b),
    };
    Value::new(shape, TensorData::Bool(out))
}

fn compare(float: fn(f64, f64) -> bool, long: fn(i64, i64) -> bool) -> Option<Kernel> {
    Some(single(move |inputs| comparison(inputs.get(0)?, inputs.get(1)?, float, long)))
}

fn comparison(a: &Value, b: &Value, float: fn(f64, f64) -> bool, long: fn(i64, i64) -> bool) -> Answer<Value> {
    let (shape, out) = match (&a.data, &b.data) {
        (TensorData::Fp32(x), TensorData::Fp32(y)) => zip((a, x), (b, y), |a, b| float(a.into(), b.into()))?,
        (TensorData::Fp64(x), TensorData::Fp64(y)) => zip((a, x), (b, y), float)?,
        (TensorData::Int32(x), TensorData::Int32(y)) => zip((a, x), (b, y), |a, b| long(a.into(), b.into()))?,
        (TensorData::Int64(x), TensorData::Int64(y)) => zip((a, x), (b, y), long)?,
        _ => return Err(mixed(a, b)),
    };
    Value::new(shape, TensorData::Bool(out))
}

fn logical(f: fn(bool, bool) -> bool) -> Option<Kernel> {
    Some(single(move |inputs| {
        let (a, b) = (inputs.get(0)?, inputs.get(1)?);
        let (TensorData::Bool(x), TensorData::Bool(y)) = (&a.data, &b.data) else { return Err(mixed(a, b)) };
        let (shape, out) = zip((a, x), (b, y), f)?;
        Value::new(shape, TensorData::Bool(out))
    }))
}

/// Clip: the bounds are attributes up to opset 10, inputs since.
pub(super) fn clip(a: &Attributes) -> Kernel {
    let bound = |name: &str| a.float(name).map(|x| Value { shape: Vec::new(), data: TensorData::Fp32(vec![x]) });
    let (low, high) = (bound("min"), bound("max"));
    single(move |inputs| {
        let mut x = inputs.get(0)?.clone();
        if let Some(low) = inputs.optional(1).or(low.as_ref()) {
            x = MAX.apply(&x, low)?;
        }
        if let Some(high) = inputs.optional(2).or(high.as_ref()) {
            x = MIN.apply(&x, high)?;
        }
        Ok(x)
    })
}

/// Where: of the second input where the first is true, of the third elsewhere.
pub(super) fn select(inputs: &Inputs<'_>) -> Answer<Value> {
    let (condition, a, b) = (inputs.get(0)?, inputs.get(1)?, inputs.get(2)?);
    let TensorData::Bool(chosen) = &condition.data else {
        return Err(format!("its condition is {}, not BOOL", condition.datatype()));
    };
    let (shape, _) = broadcast(&a.shape, &b.shape)?;
    let (shape, count) = broadcast(&condition.shape, &shape)?;
    let from = |value: &Value| Source::new(&value.shape, &shape);
    let (from_condition, from_a, from_b) = (from(condition), from(a), from(b));
    let places: Vec<(bool, usize)> = (0..count)
        .map(|place| match chosen[from_condition.at(place)] {
            true => (true, from_a.at(place)),
            false => (false, from_b.at(place)),
        })
        .collect();
    if let (TensorData::Bytes(x), TensorData::Bytes(y)) = (&a.data, &b.data) {
        limits::check_strings(
            places.iter().map(|(is_a, place)| if *is_a { x[*place].len() } else { y[*place].len() }),
        )?;
    }
    fn at<T: Clone>(a: &[T], b: &[T], places: &[(bool, usize)]) -> Vec<T> {
        places.iter().map(|(is_a, place)| if *is_a { a[*place].clone() } else { b[*place].clone() }).collect()
    }
    macro_rules! of {
        ($($kind:ident),*) => {
            match (&a.data, &b.data) {
                $((TensorData::$kind(x), TensorData::$kind(y)) => TensorData::$kind(at(x, y, &places)),)*
                _ => return Err(mixed(a, b)),
            }
        };
    }
    let data = of!(Fp32, Fp64, Int32, Int64, Bool, Bytes);
    Value::new(shape, data)
}
