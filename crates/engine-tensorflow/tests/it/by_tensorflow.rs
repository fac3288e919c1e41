//! Graphs that TensorFlow 2.21 froze from Keras models, with its own answers (`tests/models/make.py`).

use std::path::PathBuf;

use modelyard_core::{Datatype, Signature, TensorSpec};
use modelyard_protocol::TensorData;
use serde_json::Value;

use crate::{floats, open_file};

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/models").join(name)
}

#[expect(clippy::cast_possible_truncation, reason = "they were FP32 before they were JSON")]
fn numbers(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
}

/// By how much the answers may differ: TensorFlow's own differ by as much from machine to machine.
const TOLERANCE: f32 = 2e-6;

fn compare(name: &str, row: &[usize]) -> Signature {
    let model = open_file(&file(&format!("{name}.pb"))).unwrap();
    let cases: Value = serde_json::from_slice(&std::fs::read(file(&format!("{name}.json"))).unwrap()).unwrap();
    for case in cases.as_array().unwrap() {
        let rows = usize::try_from(case["rows"].as_u64().unwrap()).unwrap();
        let shape = [&[rows], row].concat();
        let found = model.infer(vec![floats("x", &shape, &numbers(&case["x"]))], &[]).unwrap().remove(0);
        let expected_shape: Vec<usize> = serde_json::from_value(case["shape"].clone()).unwrap();
        assert_eq!(found.shape, expected_shape, "{name}");
        let TensorData::Fp32(values) = found.data else { panic!("not FP32") };
        let largest = values.iter().zip(numbers(&case["y"])).map(|(a, b)| (a - b).abs() / b.abs().max(1.0));
        let largest = largest.fold(0.0, f32::max);
        assert!(largest < TOLERANCE, "{name}, {rows} rows: differs by {largest}");
    }
    model.signature().clone()
}

fn signature(input: &[i64], output: &[i64]) -> Signature {
    let spec =
        |name: &str, shape: &[i64]| TensorSpec { name: name.into(), datatype: Datatype::Fp32, shape: shape.to_vec() };
    Signature { inputs: vec![spec("x", input)], outputs: vec![spec("Identity", output)] }
}

#[test]
fn a_perceptron_of_many_activations_answers_as_tensorflow_does() {
    assert_eq!(compare("mlp", &[16]), signature(&[-1, 16], &[-1, 4]));
}

#[test]
fn a_convolutional_network_answers_as_tensorflow_does() {
    assert_eq!(compare("cnn", &[16, 16, 3]), signature(&[-1, 16, 16, 3], &[-1, 10]));
}

#[test]
fn a_dilated_convolution_answers_as_tensorflow_does() {
    assert_eq!(compare("dilated", &[9, 9, 2]), signature(&[-1, 9, 9, 2], &[-1, 5, 5, 3]));
}

#[test]
fn the_example_tells_the_moons_apart() {
    let example = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../manifests/examples/moons.pb");
    let model = open_file(&example).unwrap();
    assert_eq!(*model.signature(), signature(&[-1, 2], &[-1, 2]));
    // The tip of the upper moon, and that of the lower.
    let found = model.infer(vec![floats("x", &[2, 2], &[0.0, 1.0, 1.0, -0.5])], &[]).unwrap().remove(0);
    let TensorData::Fp32(p) = found.data else { panic!("not FP32") };
    assert!(p[0] > 0.9 && p[3] > 0.9, "{p:?}");
}
