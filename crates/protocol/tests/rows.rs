//! Tensors joined and split along their first dimension.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use modelyard_protocol::{Tensor, TensorData};
use proptest::prelude::*;

fn tensor(shape: &[usize], data: TensorData) -> Tensor {
    Tensor::new("x", shape.to_vec(), data).unwrap()
}

proptest! {
    #[test]
    fn what_is_joined_and_split_is_what_it_was(rows in prop::collection::vec(0_usize..5, 1..8), width in 0_usize..4) {
        let mut next = 0_i64;
        let mut number = || { next += 1; next };
        let numbers: Vec<Tensor> = rows
            .iter()
            .map(|n| tensor(&[*n, width], TensorData::Int64((0..n * width).map(|_| number()).collect())))
            .collect();
        let words: Vec<Tensor> = rows
            .iter()
            .map(|n| tensor(&[*n], TensorData::Bytes((0..*n).map(|_| number().to_string().into_bytes()).collect())))
            .collect();
        for parts in [numbers, words] {
            let joined = Tensor::join(&parts).unwrap();
            prop_assert_eq!(joined.rows(), Some(rows.iter().sum()));
            prop_assert_eq!(joined.split(&rows), Some(parts));
        }
    }
}

#[test]
fn rows_are_in_order() {
    let (one, two) =
        (tensor(&[1, 2], TensorData::Fp32(vec![1., 2.])), tensor(&[2, 2], TensorData::Fp32(vec![3., 4., 5., 6.])));
    let joined = Tensor::join([&one, &two]).unwrap();
    assert_eq!(joined, tensor(&[3, 2], TensorData::Fp32(vec![1., 2., 3., 4., 5., 6.])));
}

#[test]
fn what_does_not_fit_is_not_joined() {
    let x = tensor(&[1, 2], TensorData::Fp32(vec![1., 2.]));
    let scalar = tensor(&[], TensorData::Fp32(vec![1.]));
    for other in
        [tensor(&[1, 3], TensorData::Fp32(vec![0.; 3])), tensor(&[1, 2], TensorData::Fp64(vec![0.; 2])), scalar.clone()]
    {
        assert_eq!(Tensor::join([&x, &other]), None);
    }
    assert_eq!(Tensor::join([&scalar]), None);
    assert_eq!(Tensor::join(&[]), None);
}

#[test]
fn a_tensor_of_other_rows_is_not_split() {
    let x = tensor(&[2, 1], TensorData::Fp32(vec![1., 2.]));
    assert_eq!(x.clone().split(&[1, 2]), None);
    assert_eq!(x.split(&[usize::MAX, 3]), None);
    assert_eq!(tensor(&[], TensorData::Fp32(vec![1.])).split(&[1]), None);
}

/// Found by fuzzing: the width of no rows went beyond what is counted.
#[test]
fn no_rows_are_split_whatever_else_their_shape_says() {
    let none = tensor(&[0, 1 << 40, 1 << 40], TensorData::Int8(vec![]));
    let joined = Tensor::join([&none, &none]).unwrap();
    assert_eq!(joined.split(&[0, 0]), Some(vec![none.clone(), none]));
}
