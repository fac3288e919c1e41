//! Tensor data as bytes, as Triton's binary tensor extension has it (extension_binary_data.md): elements in row-major
//! order, little-endian; BOOL takes a byte; an element of BYTES is its length, four bytes, and then itself.

use half::{bf16, f16};
use modelyard_core::{Datatype, TensorSpec};

use crate::tensor::{Tensor, TensorData, TensorError, elements};

/// The bytes of one element. `None` for BYTES, whose elements have lengths of their own.
pub fn element_size(datatype: Datatype) -> Option<usize> {
    match datatype {
        Datatype::Bool | Datatype::Uint8 | Datatype::Int8 => Some(1),
        Datatype::Uint16 | Datatype::Int16 | Datatype::Fp16 | Datatype::Bf16 => Some(2),
        Datatype::Uint32 | Datatype::Int32 | Datatype::Fp32 => Some(4),
        Datatype::Uint64 | Datatype::Int64 | Datatype::Fp64 => Some(8),
        Datatype::Bytes => None,
    }
}

/// Reads all of `bytes` as the elements of a tensor.
///
/// # Errors
/// If they are more or fewer than `shape` × `datatype` needs.
pub fn from_bytes(bytes: &[u8], datatype: Datatype, shape: &[usize]) -> Result<TensorData, TensorError> {
    let count = elements(shape)?;
    if let Some(size) = element_size(datatype) {
        let expected = count.checked_mul(size).ok_or_else(|| TensorError::TooLarge(shape.to_vec()))?;
        if bytes.len() != expected {
            return Err(TensorError::Bytes { shape: shape.to_vec(), datatype, expected, found: bytes.len() });
        }
    }
    macro_rules! numbers {
        ($kind:ident, $t:ident) => {
            TensorData::$kind(bytes.as_chunks().0.iter().map(|chunk| $t::from_le_bytes(*chunk)).collect())
        };
    }
    Ok(match datatype {
        Datatype::Bool => TensorData::Bool(bytes.iter().map(|byte| *byte != 0).collect()),
        Datatype::Uint8 => TensorData::Uint8(bytes.to_vec()),
        Datatype::Uint16 => numbers!(Uint16, u16),
        Datatype::Uint32 => numbers!(Uint32, u32),
        Datatype::Uint64 => numbers!(Uint64, u64),
        Datatype::Int8 => TensorData::Int8(bytes.iter().map(|byte| byte.cast_signed()).collect()),
        Datatype::Int16 => numbers!(Int16, i16),
        Datatype::Int32 => numbers!(Int32, i32),
        Datatype::Int64 => numbers!(Int64, i64),
        Datatype::Fp16 => numbers!(Fp16, f16),
        Datatype::Fp32 => numbers!(Fp32, f32),
        Datatype::Fp64 => numbers!(Fp64, f64),
        Datatype::Bf16 => numbers!(Bf16, bf16),
        Datatype::Bytes => TensorData::Bytes(strings(bytes, count)?),
    })
}

fn strings(mut bytes: &[u8], count: usize) -> Result<Vec<Vec<u8>>, TensorError> {
    // The shape is the sender's word; each element takes four bytes at least.
    let mut strings = Vec::with_capacity(count.min(bytes.len() / 4));
    for index in 0..count {
        let (length, rest) = bytes.split_first_chunk().ok_or(TensorError::Truncated(index))?;
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let (string, rest) = rest.split_at_checked(length).ok_or(TensorError::Truncated(index))?;
        strings.push(string.to_vec());
        bytes = rest;
    }
    if bytes.is_empty() { Ok(strings) } else { Err(TensorError::Trailing(bytes.len())) }
}

/// How many bytes [`write`] appends.
pub fn byte_len(data: &TensorData) -> usize {
    match data {
        TensorData::Bytes(strings) => strings.iter().map(|string| 4 + string.len()).sum(),
        other => other.len() * element_size(other.datatype()).unwrap_or_default(),
    }
}

/// Appends the elements. Strings are at most 4 GiB each: what is longer is cut, as no body holds it.
pub fn write(data: &TensorData, out: &mut Vec<u8>) {
    out.reserve(byte_len(data));
    macro_rules! numbers {
        ($values:expr) => {
            out.extend($values.iter().flat_map(|value| value.to_le_bytes()))
        };
    }
    match data {
        TensorData::Bool(values) => out.extend(values.iter().map(|value| u8::from(*value))),
        TensorData::Uint8(values) => out.extend_from_slice(values),
        TensorData::Uint16(values) => numbers!(values),
        TensorData::Uint32(values) => numbers!(values),
        TensorData::Uint64(values) => numbers!(values),
        TensorData::Int8(values) => out.extend(values.iter().map(|value| value.cast_unsigned())),
        TensorData::Int16(values) => numbers!(values),
        TensorData::Int32(values) => numbers!(values),
        TensorData::Int64(values) => numbers!(values),
        TensorData::Fp16(values) => numbers!(values),
        TensorData::Fp32(values) => numbers!(values),
        TensorData::Fp64(values) => numbers!(values),
        TensorData::Bf16(values) => numbers!(values),
        TensorData::Bytes(strings) => {
            for string in strings {
                let length = u32::try_from(string.len()).unwrap_or(u32::MAX);
                out.extend_from_slice(&length.to_le_bytes());
                out.extend_from_slice(&string[..length as usize]);
            }
        }
    }
}

/// A body that is nothing but the elements of the model's one input (`Inference-Header-Content-Length: 0`): a batch of
/// one, with at most one more free dimension, which the length tells. BYTES are one element, the body itself.
///
/// # Errors
/// If the model takes another number of inputs or has more free dimensions, or the length does not fit.
pub fn raw_input(body: &[u8], inputs: &[TensorSpec]) -> Result<Tensor, TensorError> {
    let [input] = inputs else { return Err(TensorError::RawInputs(inputs.len())) };
    if input.datatype == Datatype::Bytes {
        let shape = vec![1; input.shape.len().max(1)];
        return Ok(Tensor { name: input.name.clone(), shape, data: TensorData::Bytes(vec![body.to_vec()]) });
    }
    let mut shape: Vec<Option<usize>> = input.shape.iter().map(|d| usize::try_from(*d).ok()).collect();
    let free = |shape: &[Option<usize>]| shape.iter().filter(|d| d.is_none()).count();
    // The first free dimension is the batch's, if there is another one, or it leads.
    if free(&shape) > 1 || (shape.len() > 1 && shape.first() == Some(&None)) {
        shape.iter_mut().find(|d| d.is_none()).map(|d| d.replace(1));
    }
    if free(&shape) > 1 {
        return Err(TensorError::RawShape(input.shape.clone()));
    }
    let known: Vec<usize> = shape.iter().flatten().copied().collect();
    let size = element_size(input.datatype).unwrap_or(1).max(1);
    let step = elements(&known)?.saturating_mul(size);
    let fill = body.len().checked_div(step).unwrap_or_default();
    let shape: Vec<usize> = shape.into_iter().map(|d| d.unwrap_or(fill)).collect();
    let data = from_bytes(body, input.datatype, &shape)?;
    Ok(Tensor { name: input.name.clone(), shape, data })
}
