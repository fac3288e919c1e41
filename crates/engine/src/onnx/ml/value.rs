//! What flows between operators: a shape and its elements.

use std::borrow::Cow;

use modelyard_core::Datatype;
use modelyard_protocol::TensorData;

use super::limits::{self, MOST_ELEMENTS};

/// The most dimensions.
pub(super) const MOST_DIMENSIONS: usize = 16;

/// A tensor without a name. Its elements always match its shape.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Value {
    pub(super) shape: Vec<usize>,
    pub(super) data: TensorData,
}

/// What an operator says when it cannot answer.
pub(super) type Answer<T> = Result<T, String>;

impl Value {
    /// # Errors
    /// If the shape does not have as many elements as `data`.
    pub(super) fn new(shape: Vec<usize>, data: TensorData) -> Answer<Self> {
        if elements(&shape)? == data.len() {
            Ok(Self { shape, data })
        } else {
            Err(format!("{} elements are no tensor of shape {shape:?}", data.len()))
        }
    }

    /// The memory that its elements take.
    pub(super) fn bytes(&self) -> usize {
        limits::bytes(&self.data)
    }

    pub(super) fn datatype(&self) -> Datatype {
        self.data.datatype()
    }

    /// Rows and columns, as operators on features see them: a vector is one row.
    pub(super) fn matrix(&self) -> Answer<(usize, usize)> {
        match *self.shape.as_slice() {
            [columns] => Ok((1, columns)),
            [rows, columns] => Ok((rows, columns)),
            _ => Err(format!("it takes a vector or a matrix, not shape {:?}", self.shape)),
        }
    }

    /// Its elements in single precision, as ONNX Runtime casts what it computes in that.
    pub(super) fn floats(&self) -> Answer<Cow<'_, [f32]>> {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            reason = "rounding is what is asked for"
        )]
        match &self.data {
            TensorData::Fp32(v) => Ok(Cow::Borrowed(v)),
            TensorData::Fp64(v) => Ok(v.iter().map(|x| *x as f32).collect()),
            TensorData::Int32(v) => Ok(v.iter().map(|x| *x as f32).collect()),
            TensorData::Int64(v) => Ok(v.iter().map(|x| *x as f32).collect()),
            TensorData::Bool(v) => Ok(v.iter().map(|x| f32::from(u8::from(*x))).collect()),
            other => Err(format!("it takes numbers, not {}", other.datatype())),
        }
    }

    /// Its elements as indices or dimensions.
    pub(super) fn integers(&self) -> Answer<Cow<'_, [i64]>> {
        match &self.data {
            TensorData::Int64(v) => Ok(Cow::Borrowed(v)),
            TensorData::Int32(v) => Ok(v.iter().map(|x| i64::from(*x)).collect()),
            other => Err(format!("it takes integers, not {}", other.datatype())),
        }
    }
}

/// The number of elements of a shape.
///
/// # Errors
/// If there are more than are computed with, dimensions of zero aside: no loop over some of a shape's dimensions is long.
pub(super) fn elements(shape: &[usize]) -> Answer<usize> {
    if shape.len() > MOST_DIMENSIONS {
        return Err(format!("a tensor of {} dimensions is beyond the {MOST_DIMENSIONS} allowed", shape.len()));
    }
    let count = shape.iter().try_fold(1_usize, |n, d| n.checked_mul((*d).max(1))).filter(|n| *n <= MOST_ELEMENTS);
    let count = if shape.contains(&0) { count.map(|_| 0) } else { count };
    count.ok_or_else(|| format!("a tensor of shape {shape:?} is beyond the {MOST_ELEMENTS} elements allowed"))
}

/// The place of an axis, which counts from the end if it is negative.
pub(super) fn axis(axis: i64, rank: usize) -> Answer<usize> {
    let place = if axis < 0 {
        usize::try_from(axis.unsigned_abs()).ok().and_then(|back| rank.checked_sub(back))
    } else {
        usize::try_from(axis).ok()
    };
    place.filter(|place| *place < rank).ok_or_else(|| format!("there is no axis {axis} of {rank}"))
}

/// An index into `length` elements, which counts from the end if it is negative.
pub(super) fn index(index: i64, length: usize) -> Answer<usize> {
    axis(index, length).map_err(|_| format!("index {index} is out of range: there are {length}"))
}

/// Runs `$body` for the vector of any variant, and makes its result a variant of the same kind.
macro_rules! same_kind {
    ($data:expr, $vec:ident => $body:expr) => {
        match $data {
            TensorData::Bool($vec) => TensorData::Bool($body),
            TensorData::Uint8($vec) => TensorData::Uint8($body),
            TensorData::Uint16($vec) => TensorData::Uint16($body),
            TensorData::Uint32($vec) => TensorData::Uint32($body),
            TensorData::Uint64($vec) => TensorData::Uint64($body),
            TensorData::Int8($vec) => TensorData::Int8($body),
            TensorData::Int16($vec) => TensorData::Int16($body),
            TensorData::Int32($vec) => TensorData::Int32($body),
            TensorData::Int64($vec) => TensorData::Int64($body),
            TensorData::Fp16($vec) => TensorData::Fp16($body),
            TensorData::Fp32($vec) => TensorData::Fp32($body),
            TensorData::Fp64($vec) => TensorData::Fp64($body),
            TensorData::Bf16($vec) => TensorData::Bf16($body),
            TensorData::Bytes($vec) => TensorData::Bytes($body),
        }
    };
}
pub(super) use same_kind;

/// The elements of `data` at `places`, which must be within it.
///
/// # Errors
/// If they are strings that take more memory than there is for them.
pub(super) fn pick(data: &TensorData, places: &[usize]) -> Answer<TensorData> {
    fn at<T: Clone>(elements: &[T], places: &[usize]) -> Vec<T> {
        places.iter().map(|place| elements[*place].clone()).collect()
    }
    if let TensorData::Bytes(strings) = data {
        limits::check_strings(places.iter().map(|place| strings[*place].len()))?;
    }
    Ok(same_kind!(data, v => at(v, places)))
}
