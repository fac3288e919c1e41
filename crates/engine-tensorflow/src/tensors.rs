//! Tensors of the protocol to tract's, and back. Those of strings and of bfloat16 are none of them.

use half::f16;
use modelyard_core::{Datatype, TensorSpec};
use modelyard_engine::InferError;
use modelyard_protocol::{Tensor, TensorData};
use tract_tensorflow::prelude::{Datum, DatumType, IntoTValue as _, TValue, Tensor as Value, TractResult};
use tract_tensorflow::tract_hir::internal::format_err;

/// # Errors
/// If tract does not compute with its datatype.
pub(crate) fn datum_type(spec: &TensorSpec) -> TractResult<DatumType> {
    Ok(match spec.datatype {
        Datatype::Bool => bool::datum_type(),
        Datatype::Uint8 => u8::datum_type(),
        Datatype::Uint16 => u16::datum_type(),
        Datatype::Uint32 => u32::datum_type(),
        Datatype::Uint64 => u64::datum_type(),
        Datatype::Int8 => i8::datum_type(),
        Datatype::Int16 => i16::datum_type(),
        Datatype::Int32 => i32::datum_type(),
        Datatype::Int64 => i64::datum_type(),
        Datatype::Fp16 => f16::datum_type(),
        Datatype::Fp32 => f32::datum_type(),
        Datatype::Fp64 => f64::datum_type(),
        Datatype::Bf16 | Datatype::Bytes => {
            return Err(format_err!("it has no {}, which `{}` is", spec.datatype, spec.name));
        }
    })
}

/// # Errors
/// If the protocol has no such datatype.
pub(crate) fn datatype(name: &str, datum_type: DatumType) -> TractResult<Datatype> {
    Ok(match datum_type {
        DatumType::Bool => Datatype::Bool,
        DatumType::U8 => Datatype::Uint8,
        DatumType::U16 => Datatype::Uint16,
        DatumType::U32 => Datatype::Uint32,
        DatumType::U64 => Datatype::Uint64,
        DatumType::I8 => Datatype::Int8,
        DatumType::I16 => Datatype::Int16,
        DatumType::I32 => Datatype::Int32,
        // TDim: the size of a dimension.
        DatumType::I64 | DatumType::TDim => Datatype::Int64,
        DatumType::F16 => Datatype::Fp16,
        DatumType::F32 => Datatype::Fp32,
        DatumType::F64 => Datatype::Fp64,
        other => return Err(format_err!("output `{name}` is {other:?}, which has no datatype here")),
    })
}

pub(crate) fn to_tract(tensor: &Tensor) -> Result<TValue, InferError> {
    let shape = tensor.shape.as_slice();
    let value = match &tensor.data {
        TensorData::Bool(v) => Value::from_shape(shape, v),
        TensorData::Uint8(v) => Value::from_shape(shape, v),
        TensorData::Uint16(v) => Value::from_shape(shape, v),
        TensorData::Uint32(v) => Value::from_shape(shape, v),
        TensorData::Uint64(v) => Value::from_shape(shape, v),
        TensorData::Int8(v) => Value::from_shape(shape, v),
        TensorData::Int16(v) => Value::from_shape(shape, v),
        TensorData::Int32(v) => Value::from_shape(shape, v),
        TensorData::Int64(v) => Value::from_shape(shape, v),
        TensorData::Fp16(v) => Value::from_shape(shape, v),
        TensorData::Fp32(v) => Value::from_shape(shape, v),
        TensorData::Fp64(v) => Value::from_shape(shape, v),
        TensorData::Bf16(_) | TensorData::Bytes(_) => {
            return Err(InferError::Failed(format!("tract has no {}", tensor.datatype())));
        }
    };
    value.map(|value| value.into_tvalue()).map_err(|error| InferError::Failed(format!("{error:#}")))
}

pub(crate) fn from_tract(spec: &TensorSpec, value: &TValue) -> Result<Tensor, InferError> {
    fn elements<T: Datum + Copy>(value: &Value) -> TractResult<Vec<T>> {
        Ok(value.cast_to::<T>()?.try_as_plain_ram()?.as_slice::<T>()?.to_vec())
    }
    let data = match spec.datatype {
        Datatype::Bool => elements(value).map(TensorData::Bool),
        Datatype::Uint8 => elements(value).map(TensorData::Uint8),
        Datatype::Uint16 => elements(value).map(TensorData::Uint16),
        Datatype::Uint32 => elements(value).map(TensorData::Uint32),
        Datatype::Uint64 => elements(value).map(TensorData::Uint64),
        Datatype::Int8 => elements(value).map(TensorData::Int8),
        Datatype::Int16 => elements(value).map(TensorData::Int16),
        Datatype::Int32 => elements(value).map(TensorData::Int32),
        Datatype::Int64 => elements(value).map(TensorData::Int64),
        Datatype::Fp16 => elements(value).map(TensorData::Fp16),
        Datatype::Fp32 => elements(value).map(TensorData::Fp32),
        Datatype::Fp64 => elements(value).map(TensorData::Fp64),
        Datatype::Bf16 | Datatype::Bytes => Err(format_err!("tract has no {}", spec.datatype)),
    };
    let data = data.map_err(|error| InferError::Failed(format!("output `{}`: {error:#}", spec.name)))?;
    Ok(Tensor { name: spec.name.clone(), shape: value.shape().to_vec(), data })
}
