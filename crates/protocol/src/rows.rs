//! Tensors joined and split along their first dimension, which counts rows.

use crate::tensor::{Tensor, TensorData, elements};

/// One `match` for what is the same for every datatype: `$body` with `$vec` bound to the elements, wrapped again.
macro_rules! map {
    ($data:expr, $vec:ident => $body:expr; $($variant:ident),*) => {
        match $data { $(TensorData::$variant($vec) => TensorData::$variant($body),)* }
    };
    ($data:expr, $vec:ident => $body:expr) => {
        map!($data, $vec => $body; Bool, Uint8, Uint16, Uint32, Uint64, Int8, Int16, Int32, Int64, Fp16, Fp32, Fp64, Bf16, Bytes)
    };
}

/// Appends `$from` to `$to` if both are of one datatype; says whether they were.
macro_rules! append {
    ($to:expr, $from:expr; $($variant:ident),*) => {
        match ($to, $from) {
            $((TensorData::$variant(to), TensorData::$variant(from)) => { to.extend_from_slice(from); true })*
            _ => false,
        }
    };
}

impl TensorData {
    fn append(&mut self, from: &Self) -> bool {
        append!(self, from; Bool, Uint8, Uint16, Uint32, Uint64, Int8, Int16, Int32, Int64, Fp16, Fp32, Fp64, Bf16, Bytes)
    }
}

impl Tensor {
    /// Its first dimension; none of a scalar.
    pub fn rows(&self) -> Option<usize> {
        self.shape.first().copied()
    }

    /// The rows of all `parts`, in order, under the name of the first. `None` if there are no parts, or if they differ
    /// in datatype or in a dimension beyond the first.
    pub fn join<'a>(parts: impl IntoIterator<Item = &'a Self, IntoIter: Clone>) -> Option<Self> {
        let parts = parts.into_iter();
        let first = parts.clone().next()?;
        let (rows, row) = first.shape.split_first()?;
        let elements = parts.clone().map(|part| part.data.len()).sum();
        let mut data = map!(&first.data, v => {
            let mut all = Vec::with_capacity(elements);
            all.extend_from_slice(v);
            all
        });
        let mut rows = *rows;
        for part in parts.skip(1) {
            let (own, rest) = part.shape.split_first()?;
            if rest != row || !data.append(&part.data) {
                return None;
            }
            rows = rows.checked_add(*own)?;
        }
        let shape = std::iter::once(rows).chain(row.iter().copied()).collect();
        Some(Self { name: first.name.clone(), shape, data })
    }

    /// Parts of so many `rows` each, in order. `None` if these are not all of its rows.
    pub fn split(self, rows: &[usize]) -> Option<Vec<Self>> {
        let (total, row) = self.shape.split_first()?;
        let sum = rows.iter().try_fold(0_usize, |sum, n| sum.checked_add(*n))?;
        if sum != *total || elements(&self.shape).ok()? != self.data.len() {
            return None;
        }
        // Without elements rows have no width to speak of, and their other dimensions may be whatever they are.
        let width = if self.data.is_empty() { 0 } else { elements(row).ok()? };
        let mut begin = 0;
        let parts = rows.iter().map(|own| {
            let end = begin + own * width;
            let data = map!(&self.data, v => v[begin..end].to_vec());
            begin = end;
            let shape = std::iter::once(*own).chain(row.iter().copied()).collect();
            Self { name: self.name.clone(), shape, data }
        });
        Some(parts.collect())
    }
}
