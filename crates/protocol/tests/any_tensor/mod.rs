//! Tensors of any datatype and shape, not-finite numbers and strings of any bytes among them.

use half::{bf16, f16};
use modelyard_core::{Datatype, TensorSpec};
use modelyard_protocol::{Tensor, TensorData, binary};
use proptest::prelude::*;

fn data(count: usize) -> impl Strategy<Value = TensorData> {
    fn of<T: Arbitrary + 'static>(count: usize, wrap: fn(Vec<T>) -> TensorData) -> BoxedStrategy<TensorData> {
        prop::collection::vec(any::<T>(), count).prop_map(wrap).boxed()
    }
    let single =
        prop_oneof![4 => any::<f32>(), 1 => prop::sample::select(vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY])];
    let double =
        prop_oneof![4 => any::<f64>(), 1 => prop::sample::select(vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY])];
    let half = |bits: Vec<u16>| TensorData::Fp16(bits.into_iter().map(f16::from_bits).collect());
    let brain = |bits: Vec<u16>| TensorData::Bf16(bits.into_iter().map(bf16::from_bits).collect());
    prop_oneof![
        of(count, TensorData::Bool),
        of(count, TensorData::Uint8),
        of(count, TensorData::Uint16),
        of(count, TensorData::Uint32),
        of(count, TensorData::Uint64),
        of(count, TensorData::Int8),
        of(count, TensorData::Int16),
        of(count, TensorData::Int32),
        of(count, TensorData::Int64),
        of(count, half),
        of(count, brain),
        prop::collection::vec(single, count).prop_map(TensorData::Fp32),
        prop::collection::vec(double, count).prop_map(TensorData::Fp64),
        prop::collection::vec(prop_oneof![any::<Vec<u8>>(), any::<String>().prop_map(String::into_bytes)], count)
            .prop_map(TensorData::Bytes),
    ]
}

fn of_shape(name: impl Strategy<Value = String>, shape: Vec<usize>) -> impl Strategy<Value = Tensor> {
    let count = shape.iter().product();
    (name, data(count)).prop_map(move |(name, data)| Tensor { name, shape: shape.clone(), data })
}

pub(crate) fn tensor() -> impl Strategy<Value = Tensor> {
    prop::collection::vec(0_usize..4, 0..4).prop_flat_map(|shape| of_shape("[a-z\"é]{1,8}", shape))
}

/// One to three tensors with as many rows, of other names.
pub(crate) fn tensors_by_row() -> impl Strategy<Value = Vec<Tensor>> {
    let rows = prop::collection::vec(1_usize..4, 0..3);
    (1_usize..4, prop::collection::vec(rows, 1..4)).prop_flat_map(|(count, rows)| {
        let tensors = rows.into_iter().enumerate().map(|(place, row)| {
            let shape = std::iter::once(count).chain(row).collect();
            of_shape(Just(format!("{place}\"é")), shape)
        });
        tensors.collect::<Vec<_>>()
    })
}

/// What a model says of it that leaves its rows open.
pub(crate) fn spec_of(tensor: &Tensor) -> TensorSpec {
    let mut shape: Vec<i64> = tensor.shape.iter().map(|d| i64::try_from(*d).unwrap()).collect();
    if let Some(rows) = shape.first_mut() {
        *rows = -1;
    }
    TensorSpec { name: tensor.name.clone(), datatype: tensor.datatype(), shape }
}

/// Whether both are the same to the bit, but for which NaN it is.
pub(crate) fn same(left: &[Tensor], right: &[Tensor]) -> bool {
    let bits = |tensor: &Tensor| {
        let mut bytes = Vec::new();
        match &tensor.data {
            TensorData::Fp32(v) => {
                v.iter().for_each(|v| bytes.extend(if v.is_nan() { f32::NAN } else { *v }.to_le_bytes()))
            }
            TensorData::Fp64(v) => {
                v.iter().for_each(|v| bytes.extend(if v.is_nan() { f64::NAN } else { *v }.to_le_bytes()))
            }
            TensorData::Fp16(v) => {
                v.iter().for_each(|v| bytes.extend(if v.is_nan() { f16::NAN } else { *v }.to_le_bytes()))
            }
            TensorData::Bf16(v) => {
                v.iter().for_each(|v| bytes.extend(if v.is_nan() { bf16::NAN } else { *v }.to_le_bytes()))
            }
            data => binary::write(data, &mut bytes),
        }
        (tensor.name.clone(), tensor.datatype() as Datatype, tensor.shape.clone(), bytes)
    };
    let sorted = |tensors: &[Tensor]| {
        let mut all: Vec<_> = tensors.iter().map(bits).collect();
        all.sort();
        all
    };
    sorted(left) == sorted(right)
}
