//! Tensors: a name, a shape, and elements in row-major order.

use half::{bf16, f16};
use modelyard_core::Datatype;

/// The most dimensions that a tensor off the wire may have, as NumPy has it. Readers of nested data recurse once for
/// each, so a sender must not choose how deep.
pub(crate) const MAX_RANK: usize = 64;

/// A named tensor whose elements match its shape.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    pub name: String,
    /// The whole shape, batch included. Empty for a scalar.
    pub shape: Vec<usize>,
    pub data: TensorData,
}

/// Elements in row-major order, by datatype.
#[derive(Debug, Clone, PartialEq)]
pub enum TensorData {
    Bool(Vec<bool>),
    Uint8(Vec<u8>),
    Uint16(Vec<u16>),
    Uint32(Vec<u32>),
    Uint64(Vec<u64>),
    Int8(Vec<i8>),
    Int16(Vec<i16>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Fp16(Vec<f16>),
    Fp32(Vec<f32>),
    Fp64(Vec<f64>),
    Bf16(Vec<bf16>),
    Bytes(Vec<Vec<u8>>),
}

/// What is wrong with a tensor. The tensor's name is said by whoever reports it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TensorError {
    #[error("datatype `{0}` is unknown: use one of the Open Inference Protocol, such as FP32")]
    UnknownDatatype(String),
    #[error("{0} has no form in JSON: use FP32, or a binary protocol")]
    NoJsonForm(Datatype),
    #[error("its shape has {0} dimensions, and at most {MAX_RANK} are taken")]
    Rank(usize),
    #[error("its shape {0:?} must have no negative dimension")]
    NegativeDimension(Vec<i64>),
    #[error("its shape {0:?} is too large")]
    TooLarge(Vec<usize>),
    #[error("its shape {shape:?} needs {expected} elements, but its data has {found}")]
    Count { shape: Vec<usize>, expected: usize, found: usize },
    #[error("its data must be nested as its shape {shape:?} says, or be one flat array: {problem}")]
    Nesting { shape: Vec<usize>, problem: String },
    #[error("element {index} of its data must be {expected}, not {found}")]
    Element { index: usize, expected: &'static str, found: String },
    #[error("it has no `data`")]
    NoData,
    #[error(
        "its data is binary (`binary_data_size`), and the header Inference-Header-Content-Length does not say where it begins"
    )]
    NoBinary,
    #[error("its `binary_data_size` must be a number of bytes")]
    BinarySize,
    #[error("it has both `data` and `binary_data_size`")]
    TwoForms,
    #[error("its binary data needs {expected} bytes, and the body has {found} left for it")]
    BinaryEnds { expected: usize, found: usize },
    #[error("its shape {shape:?} of {datatype} needs {expected} bytes, but its data has {found}")]
    Bytes { shape: Vec<usize>, datatype: Datatype, expected: usize, found: usize },
    #[error("its contents are in {found}, and those of {datatype} belong in {expected}")]
    Field { datatype: Datatype, expected: &'static str, found: &'static str },
    #[error("{0} has no typed contents: use raw contents")]
    NoTypedForm(Datatype),
    #[error("it has typed contents, and there are raw contents too")]
    TypedAndRaw,
    #[error("element {0} of its data ends early")]
    Truncated(usize),
    #[error("its data has {0} bytes more than its elements")]
    Trailing(usize),
    #[error("a raw body is for a model of one input, and this one has {0}")]
    RawInputs(usize),
    #[error("a raw body is for an input of one free dimension beside the batch, and this one is {0:?}")]
    RawShape(Vec<i64>),
}

/// Runs `$body` with `$vec` bound to the vector of any variant.
macro_rules! each {
    ($data:expr, $vec:ident => $body:expr) => {
        match $data {
            TensorData::Bool($vec) => $body,
            TensorData::Uint8($vec) => $body,
            TensorData::Uint16($vec) => $body,
            TensorData::Uint32($vec) => $body,
            TensorData::Uint64($vec) => $body,
            TensorData::Int8($vec) => $body,
            TensorData::Int16($vec) => $body,
            TensorData::Int32($vec) => $body,
            TensorData::Int64($vec) => $body,
            TensorData::Fp16($vec) => $body,
            TensorData::Fp32($vec) => $body,
            TensorData::Fp64($vec) => $body,
            TensorData::Bf16($vec) => $body,
            TensorData::Bytes($vec) => $body,
        }
    };
}

impl TensorData {
    pub fn datatype(&self) -> Datatype {
        match self {
            Self::Bool(_) => Datatype::Bool,
            Self::Uint8(_) => Datatype::Uint8,
            Self::Uint16(_) => Datatype::Uint16,
            Self::Uint32(_) => Datatype::Uint32,
            Self::Uint64(_) => Datatype::Uint64,
            Self::Int8(_) => Datatype::Int8,
            Self::Int16(_) => Datatype::Int16,
            Self::Int32(_) => Datatype::Int32,
            Self::Int64(_) => Datatype::Int64,
            Self::Fp16(_) => Datatype::Fp16,
            Self::Fp32(_) => Datatype::Fp32,
            Self::Fp64(_) => Datatype::Fp64,
            Self::Bf16(_) => Datatype::Bf16,
            Self::Bytes(_) => Datatype::Bytes,
        }
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        each!(self, v => v.len())
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// `count` zeros; empty strings for BYTES.
    pub fn zeros(datatype: Datatype, count: usize) -> Self {
        match datatype {
            Datatype::Bool => Self::Bool(vec![false; count]),
            Datatype::Uint8 => Self::Uint8(vec![0; count]),
            Datatype::Uint16 => Self::Uint16(vec![0; count]),
            Datatype::Uint32 => Self::Uint32(vec![0; count]),
            Datatype::Uint64 => Self::Uint64(vec![0; count]),
            Datatype::Int8 => Self::Int8(vec![0; count]),
            Datatype::Int16 => Self::Int16(vec![0; count]),
            Datatype::Int32 => Self::Int32(vec![0; count]),
            Datatype::Int64 => Self::Int64(vec![0; count]),
            Datatype::Fp16 => Self::Fp16(vec![f16::ZERO; count]),
            Datatype::Fp32 => Self::Fp32(vec![0.0; count]),
            Datatype::Fp64 => Self::Fp64(vec![0.0; count]),
            Datatype::Bf16 => Self::Bf16(vec![bf16::ZERO; count]),
            Datatype::Bytes => Self::Bytes(vec![Vec::new(); count]),
        }
    }
}

impl Tensor {
    /// A tensor of `data`.
    ///
    /// # Errors
    /// If the number of elements is not the product of `shape`.
    pub fn new(name: impl Into<String>, shape: Vec<usize>, data: TensorData) -> Result<Self, TensorError> {
        let expected = elements(&shape)?;
        if data.len() != expected {
            return Err(TensorError::Count { shape, expected, found: data.len() });
        }
        Ok(Self { name: name.into(), shape, data })
    }

    pub fn datatype(&self) -> Datatype {
        self.data.datatype()
    }
}

/// What is said of a tensor's elements, checked before all that recurses over the shape or repeats it in a message.
pub(crate) fn checked(datatype: &str, shape: &[i64]) -> Result<(Datatype, Vec<usize>), TensorError> {
    let unknown = |_| TensorError::UnknownDatatype(datatype.chars().take(40).collect());
    let datatype = datatype.parse().map_err(unknown)?;
    if shape.len() > MAX_RANK {
        return Err(TensorError::Rank(shape.len()));
    }
    let dimensions = shape.iter().map(|d| usize::try_from(*d)).collect::<Result<Vec<_>, _>>();
    Ok((datatype, dimensions.map_err(|_| TensorError::NegativeDimension(shape.to_vec()))?))
}

/// A shape as messages have it.
#[expect(clippy::cast_possible_wrap, reason = "a tensor's dimensions are at most isize::MAX")]
pub(crate) fn signed(shape: &[usize]) -> Vec<i64> {
    shape.iter().map(|d| *d as i64).collect()
}

/// The number of elements of a shape.
pub(crate) fn elements(shape: &[usize]) -> Result<usize, TensorError> {
    // A zero anywhere makes the tensor empty, whatever the other dimensions are.
    if shape.contains(&0) {
        return Ok(0);
    }
    shape
        .iter()
        .try_fold(1_usize, |n, d| n.checked_mul(*d))
        .filter(|n| *n <= isize::MAX as usize)
        .ok_or_else(|| TensorError::TooLarge(shape.to_vec()))
}
