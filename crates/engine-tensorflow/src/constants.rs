//! Constants as TensorFlow encodes them (tensor.proto): as bytes, or as a list of values of which the last stands for
//! all that are left out. tract takes the whole list only, and fewer datatypes.

use half::f16;
use tract_tensorflow::tfpb::tensorflow::{DataType, TensorProto};
use tract_tensorflow::tract_hir::internal::*;

/// The most elements of a constant: a few bytes of a file may ask for any number of zeros.
const MOST_ELEMENTS: usize = 1 << 30;

pub(crate) fn tensor(proto: &TensorProto) -> TractResult<Tensor> {
    let shape = proto.tensor_shape.as_ref().context("a constant without a shape")?;
    ensure!(!shape.unknown_rank, "a constant of unknown rank");
    let dims = shape.dim.iter().map(|d| usize::try_from(d.size)).collect::<Result<Vec<_>, _>>();
    let dims = dims.context("a constant with a free dimension")?;
    let count = dims.iter().try_fold(1_usize, |n, d| n.checked_mul(*d)).filter(|n| *n <= MOST_ELEMENTS);
    let target = Target { dims, count: count.context("a constant of absurd size")?, bytes: &proto.tensor_content };
    let half = |bits: &i32| u16::try_from(*bits).map(f16::from_bits).context("a half that is none");
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small integers are kept as int32")]
    match DataType::try_from(proto.dtype).map_err(|_| format_err!("unknown datatype {}", proto.dtype))? {
        DataType::DtFloat => target.build(f32::from_le_bytes, proto.float_val.clone()),
        DataType::DtDouble => target.build(f64::from_le_bytes, proto.double_val.clone()),
        DataType::DtInt32 => target.build(i32::from_le_bytes, proto.int_val.clone()),
        DataType::DtInt64 => target.build(i64::from_le_bytes, proto.int64_val.clone()),
        DataType::DtUint32 => target.build(u32::from_le_bytes, proto.uint32_val.clone()),
        DataType::DtUint64 => target.build(u64::from_le_bytes, proto.uint64_val.clone()),
        DataType::DtInt8 => target.build(i8::from_le_bytes, proto.int_val.iter().map(|v| *v as i8).collect()),
        DataType::DtUint8 => target.build(u8::from_le_bytes, proto.int_val.iter().map(|v| *v as u8).collect()),
        DataType::DtInt16 => target.build(i16::from_le_bytes, proto.int_val.iter().map(|v| *v as i16).collect()),
        DataType::DtUint16 => target.build(u16::from_le_bytes, proto.int_val.iter().map(|v| *v as u16).collect()),
        DataType::DtHalf => {
            target.build(f16::from_le_bytes, proto.half_val.iter().map(half).collect::<TractResult<_>>()?)
        }
        DataType::DtBool => target.build(|[byte]: [u8; 1]| byte != 0, proto.bool_val.clone()),
        other => bail!("constants of {} are not known", other.as_str_name()),
    }
}

struct Target<'a> {
    dims: Vec<usize>,
    count: usize,
    bytes: &'a [u8],
}

impl Target<'_> {
    fn build<T: Datum + Copy + Default, const N: usize>(
        &self,
        read: impl Fn([u8; N]) -> T,
        mut values: Vec<T>,
    ) -> TractResult<Tensor> {
        let (count, shape) = (self.count, &self.dims);
        if self.bytes.is_empty() {
            ensure!(values.len() <= count, "a constant of shape {shape:?} with {} values", values.len());
            values.resize(count, values.last().copied().unwrap_or_default());
        } else {
            ensure!(self.bytes.len() == count * N, "a constant of shape {shape:?} with {} bytes", self.bytes.len());
            values = self.bytes.as_chunks::<N>().0.iter().map(|chunk| read(*chunk)).collect();
        }
        Tensor::from_shape(shape, &values)
    }
}
