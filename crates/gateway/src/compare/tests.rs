use modelyard_core::{VariantName, Weight};
use proptest::prelude::*;

use super::*;

fn mirror() -> Mirror {
    Mirror::new(VariantName::canary(), Weight::FULL)
}

fn answer(outputs: Vec<Tensor>) -> InferResponse {
    InferResponse { model_name: "m".into(), model_version: None, id: None, parameters: [].into(), outputs }
}

fn scores(shape: &[usize], values: &[f32]) -> InferResponse {
    answer(vec![tensor("y", shape, TensorData::Fp32(values.to_vec()))])
}

fn tensor(name: &str, shape: &[usize], data: TensorData) -> Tensor {
    Tensor::new(name, shape.to_vec(), data).unwrap()
}

/// The counts of the one output, and what is said of it.
fn compared(mirror: &Mirror, reference: &InferResponse, candidate: &InferResponse) -> (OutputDisagreement, String) {
    let comparison = compare(mirror, reference, candidate);
    let said: Vec<_> = comparison.differences.iter().map(ToString::to_string).collect();
    let mut outputs = comparison.outputs.into_iter();
    (outputs.next().unwrap().1, said.join("; "))
}

fn any_rows() -> impl Strategy<Value = (usize, Vec<f32>)> {
    (2usize..6, 1usize..5)
        .prop_flat_map(|(classes, rows)| (Just(classes), prop::collection::vec(-10.0f32..10.0, classes * rows)))
}

proptest! {
    #[test]
    fn an_answer_agrees_with_itself((classes, values) in any_rows(), rule in prop::option::of(Just(OutputRule::Value))) {
        let mut mirror = mirror();
        mirror.outputs.extend(rule.map(|rule| ("y".to_owned(), rule)));
        let same = scores(&[values.len() / classes, classes], &values);
        let (counts, said) = compared(&mirror, &same, &same);
        prop_assert_eq!((counts.differing, counts.flips, counts.largest_absolute, said), (0, 0, Magnitude::ZERO, String::new()));
        prop_assert_eq!(counts.drift(), 0.0);
    }

    #[test]
    fn whatever_keeps_the_order_of_a_rows_scores_flips_no_label((classes, values) in any_rows(), factor in 1.0f32..8.0) {
        let shape = [values.len() / classes, classes];
        let scaled: Vec<_> = values.iter().map(|v| v * factor).collect();
        let (counts, _) = compared(&mirror(), &scores(&shape, &values), &scores(&shape, &scaled));
        prop_assert_eq!((counts.differing, counts.flips), (0, 0));
    }

    #[test]
    fn each_row_whose_largest_score_moves_is_a_flip((classes, values) in any_rows(), rows in prop::collection::vec(any::<bool>(), 5)) {
        let shape = [values.len() / classes, classes];
        let mut moved = values.clone();
        let mut expected = 0;
        for (row, scores) in moved.chunks_mut(classes).enumerate().filter(|(row, _)| rows[*row]) {
            let label = argmax(&scores.iter().map(|s| f64::from(*s)).collect::<Vec<_>>());
            scores[(label + 1) % classes] = 20.0;
            expected += 1;
            prop_assert!(row < 5);
        }
        let (counts, _) = compared(&mirror(), &scores(&shape, &values), &scores(&shape, &moved));
        prop_assert_eq!((counts.flips, counts.labels), (expected, shape[0] as u64));
        prop_assert_eq!(counts.differing, u64::from(expected > 0));
    }

    #[test]
    fn values_differ_exactly_beyond_the_tolerance(value in -100.0f64..100.0, by in -2.0f64..2.0) {
        let mut mirror = mirror();
        mirror.tolerance = Tolerance { absolute: Magnitude::of(0.5), relative: Magnitude::of(0.01) };
        let of = |v: f64| answer(vec![tensor("y", &[1, 1], TensorData::Fp64(vec![v]))]);
        let moved = value + by;
        let (counts, _) = compared(&mirror, &of(value), &of(moved));
        prop_assert_eq!(counts.differing == 1, (moved - value).abs() > 0.5 + 0.01 * value.abs());
        prop_assert_eq!(counts.largest_absolute, Magnitude::of(moved - value));
    }
}

#[test]
fn a_flipped_label_is_named_with_its_row() {
    let reference = scores(&[2, 3], &[0.1, 0.8, 0.1, 0.5, 0.3, 0.2]);
    let candidate = scores(&[2, 3], &[0.1, 0.7, 0.2, 0.3, 0.5, 0.2]);
    let (counts, said) = compared(&mirror(), &reference, &candidate);
    assert_eq!((counts.labels, counts.flips, counts.differing), (2, 1, 1));
    assert_eq!(said, "`y`: 1 of 2 labels differ (label 0 became 1 at 1)");
    assert!((counts.largest_absolute.get() - 0.2).abs() < 1e-6);
    assert!((counts.largest_relative.get() - 1.0).abs() < 1e-6, "0.1 became 0.2");
    assert_eq!((counts.reference.count(), counts.candidate.count()), (6, 6));
}

#[test]
fn a_probability_without_classes_is_compared_by_value() {
    let (counts, said) = compared(&mirror(), &scores(&[1, 1], &[0.5]), &scores(&[1, 1], &[0.25]));
    assert_eq!((counts.labels, counts.differing), (0, 1));
    assert_eq!(said, "`y`: 1 of 1 values differ (0.5 became 0.25 at 0)");
}

#[test]
fn a_rule_says_otherwise_than_the_shape() {
    let (reference, candidate) = (scores(&[1, 2], &[0.5, 0.1]), scores(&[1, 2], &[0.9, 0.1]));
    assert_eq!(compared(&mirror(), &reference, &candidate).0.differing, 0, "the label is the same");
    let with = |rule| Mirror { outputs: [("y".to_owned(), rule)].into(), ..mirror() };
    assert_eq!(compared(&with(OutputRule::Value), &reference, &candidate).0.differing, 1);
    assert_eq!(compare(&with(OutputRule::Ignore), &reference, &candidate), Comparison::default());
    let flat = [scores(&[2], &[0.5, 0.1]), scores(&[2], &[0.5, 0.9])];
    assert_eq!(compared(&mirror(), &flat[0], &flat[1]).0.flips, 0, "one row by itself is no batch of rows");
    assert_eq!(compared(&with(OutputRule::Label), &flat[0], &flat[1]).0.flips, 1);
}

#[test]
fn what_is_no_float_is_compared_by_equality() {
    let of = |data: TensorData| answer(vec![tensor("label", &[data.len()], data)]);
    let said = |old, new| compared(&mirror(), &of(old), &of(new)).1;
    let (old, new) = (TensorData::Int64(vec![3, 7, 1]), TensorData::Int64(vec![3, 8, 2]));
    assert_eq!(said(old, new), "`label`: 2 of 3 values differ (value 7 became 8 at 1)");
    let (old, new) = (TensorData::Bool(vec![true]), TensorData::Bool(vec![false]));
    assert_eq!(said(old, new), "`label`: 1 of 1 values differ (value true became false at 0)");
    let (old, new) = (TensorData::Bytes(vec![b"pdf".to_vec()]), TensorData::Bytes(vec![b"zip".to_vec()]));
    assert_eq!(said(old.clone(), new), r#"`label`: 1 of 1 values differ (value "pdf" became "zip" at 0)"#);
    assert_eq!(said(old.clone(), old), "");
}

#[test]
fn outputs_that_do_not_match_differ() {
    let y = |shape: &[usize], data| answer(vec![tensor("y", shape, data)]);
    let reference = y(&[1, 2], TensorData::Fp32(vec![0.0, 1.0]));
    let said = |candidate: InferResponse| compared(&mirror(), &reference, &candidate);
    assert_eq!(said(y(&[2, 1], TensorData::Fp32(vec![0.0, 1.0]))).1, "`y`: the shape [1, 2] became [2, 1]");
    assert_eq!(said(y(&[1, 2], TensorData::Fp64(vec![0.0, 1.0]))).1, "`y`: FP32 became FP64");
    assert_eq!(said(answer(vec![tensor("z", &[0], TensorData::Fp32(vec![]))])).1, "`y`: it is missing; `z`: it is new");
    let (counts, _) = said(answer(vec![]));
    assert_eq!((counts.compared, counts.differing, counts.mismatched), (1, 1, 1));
}

#[test]
fn numbers_that_are_none_are_near_no_number_and_found_where_numpy_finds_them() {
    let of = |value| scores(&[1, 1], &[value]);
    let differing = |old, new| compared(&mirror(), &of(old), &of(new)).0.differing;
    assert_eq!((differing(f32::NAN, f32::NAN), differing(f32::INFINITY, f32::INFINITY)), (0, 0));
    for (old, new) in [(1.0, f32::NAN), (f32::NAN, 1.0), (f32::INFINITY, f32::NEG_INFINITY), (1.0, f32::INFINITY)] {
        let (counts, _) = compared(&mirror(), &of(old), &of(new));
        assert_eq!((counts.differing, counts.largest_absolute), (1, Magnitude::LARGEST), "{old} became {new}");
    }
    assert_eq!(argmax(&[0.1, f64::NAN, 0.9]), 1);
    assert_eq!(argmax(&[0.3, 0.9, 0.9]), 1);
}

#[test]
fn empty_outputs_agree() {
    let empty = scores(&[0, 3], &[]);
    assert_eq!(compared(&mirror(), &empty, &empty).1, "");
    let empty = scores(&[3, 0], &[]);
    assert_eq!(compared(&mirror(), &empty, &empty).1, "");
}
