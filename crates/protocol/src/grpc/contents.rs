//! Elements as typed contents: a field for each kind of number. FP16 and BF16 have none.

use modelyard_core::Datatype;

use super::messages::InferTensorContents;
use crate::tensor::{TensorData, TensorError, elements};

/// Which field the elements of a datatype are in.
fn field(datatype: Datatype) -> Option<&'static str> {
    Some(match datatype {
        Datatype::Bool => "bool_contents",
        Datatype::Int8 | Datatype::Int16 | Datatype::Int32 => "int_contents",
        Datatype::Int64 => "int64_contents",
        Datatype::Uint8 | Datatype::Uint16 | Datatype::Uint32 => "uint_contents",
        Datatype::Uint64 => "uint64_contents",
        Datatype::Fp32 => "fp32_contents",
        Datatype::Fp64 => "fp64_contents",
        Datatype::Bytes => "bytes_contents",
        Datatype::Fp16 | Datatype::Bf16 => return None,
    })
}

/// The fields that hold anything.
fn used(contents: &InferTensorContents) -> impl Iterator<Item = &'static str> {
    let fields = [
        ("bool_contents", contents.bool_contents.is_empty()),
        ("int_contents", contents.int_contents.is_empty()),
        ("int64_contents", contents.int64_contents.is_empty()),
        ("uint_contents", contents.uint_contents.is_empty()),
        ("uint64_contents", contents.uint64_contents.is_empty()),
        ("fp32_contents", contents.fp32_contents.is_empty()),
        ("fp64_contents", contents.fp64_contents.is_empty()),
        ("bytes_contents", contents.bytes_contents.is_empty()),
    ];
    fields.into_iter().filter(|(_, is_empty)| !is_empty).map(|(name, _)| name)
}

/// The elements of a tensor of `datatype` and `shape`.
pub(super) fn read(
    contents: InferTensorContents,
    datatype: Datatype,
    shape: &[usize],
) -> Result<TensorData, TensorError> {
    let expected = field(datatype).ok_or(TensorError::NoTypedForm(datatype))?;
    if let Some(found) = used(&contents).find(|found| *found != expected) {
        return Err(TensorError::Field { datatype, expected, found });
    }
    let data = match datatype {
        Datatype::Bool => TensorData::Bool(contents.bool_contents),
        Datatype::Int8 => TensorData::Int8(narrow(contents.int_contents, "an integer from -128 to 127")?),
        Datatype::Int16 => TensorData::Int16(narrow(contents.int_contents, "an integer from -32768 to 32767")?),
        Datatype::Int32 => TensorData::Int32(contents.int_contents),
        Datatype::Int64 => TensorData::Int64(contents.int64_contents),
        Datatype::Uint8 => TensorData::Uint8(narrow(contents.uint_contents, "an integer from 0 to 255")?),
        Datatype::Uint16 => TensorData::Uint16(narrow(contents.uint_contents, "an integer from 0 to 65535")?),
        Datatype::Uint32 => TensorData::Uint32(contents.uint_contents),
        Datatype::Uint64 => TensorData::Uint64(contents.uint64_contents),
        Datatype::Fp32 => TensorData::Fp32(contents.fp32_contents),
        Datatype::Fp64 => TensorData::Fp64(contents.fp64_contents),
        Datatype::Bytes => TensorData::Bytes(contents.bytes_contents.into_iter().map(Into::into).collect()),
        Datatype::Fp16 | Datatype::Bf16 => return Err(TensorError::NoTypedForm(datatype)),
    };
    let expected = elements(shape)?;
    if data.len() != expected {
        return Err(TensorError::Count { shape: shape.to_vec(), expected, found: data.len() });
    }
    Ok(data)
}

fn narrow<W: Copy + ToString, N: TryFrom<W>>(values: Vec<W>, expected: &'static str) -> Result<Vec<N>, TensorError> {
    let narrow = |(index, value): (usize, W)| {
        N::try_from(value).map_err(|_| TensorError::Element { index, expected, found: value.to_string() })
    };
    values.into_iter().enumerate().map(narrow).collect()
}

/// `Err` gives back what has no typed form.
pub(super) fn write(data: TensorData) -> Result<InferTensorContents, TensorData> {
    fn wide<N, W: From<N>>(values: Vec<N>) -> Vec<W> {
        values.into_iter().map(W::from).collect()
    }
    let mut contents = InferTensorContents::default();
    match data {
        TensorData::Bool(values) => contents.bool_contents = values,
        TensorData::Int8(values) => contents.int_contents = wide(values),
        TensorData::Int16(values) => contents.int_contents = wide(values),
        TensorData::Int32(values) => contents.int_contents = values,
        TensorData::Int64(values) => contents.int64_contents = values,
        TensorData::Uint8(values) => contents.uint_contents = wide(values),
        TensorData::Uint16(values) => contents.uint_contents = wide(values),
        TensorData::Uint32(values) => contents.uint_contents = values,
        TensorData::Uint64(values) => contents.uint64_contents = values,
        TensorData::Fp32(values) => contents.fp32_contents = values,
        TensorData::Fp64(values) => contents.fp64_contents = values,
        TensorData::Bytes(values) => contents.bytes_contents = wide(values),
        TensorData::Fp16(_) | TensorData::Bf16(_) => return Err(data),
    }
    Ok(contents)
}
