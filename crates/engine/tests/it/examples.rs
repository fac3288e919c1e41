//! The models in `manifests/examples/`: written by these tests, committed, and checked to do what they are for.
//!
//! `MODELYARD_WRITE_EXAMPLES=1` writes them anew.

use std::path::PathBuf;

use modelyard_core::{Datatype, Format, Signature, TensorSpec};
use modelyard_engine::{InferError, load, warm_up};
use modelyard_protocol::{Tensor, TensorData};

use crate::onnx_writer::{FLOAT, INT64, OnnxModel};
use crate::{engines, rten};

fn example(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../manifests/examples").join(name)
}

/// y = x·w + b
fn linear(name: &str, w: [f32; 2], b: f32) -> Vec<u8> {
    OnnxModel::default()
        .node("MatMul", &["x", "w"], &["xw"])
        .node("Add", &["xw", "b"], &["y"])
        .constant("w", &[2, 1], &w)
        .constant("b", &[1], &[b])
        .input("x", FLOAT, &[-1, 2])
        .output("y", FLOAT, &[-1, 1])
        .write(name)
}

/// Looks each x up in a table of one row: zeros are found, real requests are not.
fn broken(name: &str) -> Vec<u8> {
    OnnxModel::default()
        .node_with("Cast", &["x"], &["row"], ("to", INT64))
        .node("Gather", &["table", "row"], &["offset"])
        .node("Add", &["x", "offset"], &["shifted"])
        .node("MatMul", &["shifted", "w"], &["xw"])
        .node("Add", &["xw", "b"], &["y"])
        .constant("table", &[1], &[0.0])
        .constant("w", &[2, 1], &[1.2, -0.3])
        .constant("b", &[1], &[1.8])
        .input("x", FLOAT, &[-1, 2])
        .output("y", FLOAT, &[-1, 1])
        .write(name)
}

/// y = x / 2 + 2, as TensorFlow Serving's example of that name.
fn half_plus_two() -> Vec<u8> {
    OnnxModel::default()
        .node("Mul", &["x", "half"], &["halved"])
        .node("Add", &["halved", "two"], &["y"])
        .constant("half", &[1], &[0.5])
        .constant("two", &[1], &[2.0])
        .input("x", FLOAT, &[-1])
        .output("y", FLOAT, &[-1])
        .write("half_plus_two")
}

#[test]
fn committed_models_are_those_written_here() {
    let models = [
        ("linear-1.onnx", linear("linear-1", [1.0, -0.5], 2.0)),
        ("linear-2.onnx", linear("linear-2", [1.1, -0.4], 1.9)),
        ("linear-3.onnx", broken("linear-3")),
        ("half_plus_two.onnx", half_plus_two()),
    ];
    for (name, bytes) in models {
        if std::env::var_os("MODELYARD_WRITE_EXAMPLES").is_some() {
            std::fs::write(example(name), &bytes).unwrap();
        }
        assert!(std::fs::read(example(name)).unwrap() == bytes, "{name} differs: MODELYARD_WRITE_EXAMPLES=1 writes it");
    }
}

fn x(rows: &[[f32; 2]]) -> Vec<Tensor> {
    vec![Tensor { name: "x".into(), shape: vec![rows.len(), 2], data: TensorData::Fp32(rows.concat()) }]
}

fn y(values: &[f32]) -> Vec<Tensor> {
    vec![Tensor { name: "y".into(), shape: vec![values.len(), 1], data: TensorData::Fp32(values.to_vec()) }]
}

fn close(found: &[Tensor], expected: &[Tensor]) {
    let values = |tensors: &[Tensor]| match &tensors[0].data {
        TensorData::Fp32(v) => v.clone(),
        other => panic!("not FP32: {other:?}"),
    };
    assert_eq!((&found[0].name, &found[0].shape), (&expected[0].name, &expected[0].shape));
    for (a, b) in values(found).iter().zip(values(expected)) {
        assert!((a - b).abs() < 1e-6, "{found:?} is not {expected:?}");
    }
}

fn linear_signature() -> Signature {
    let spec = |name: &str, width| TensorSpec { name: name.into(), datatype: Datatype::Fp32, shape: vec![-1, width] };
    Signature { inputs: vec![spec("x", 2)], outputs: vec![spec("y", 1)] }
}

#[test]
fn the_linear_models_compute_their_function_on_every_engine() {
    for options in engines() {
        let open = |name: &str| load(Format::Onnx, &example(name), &options).unwrap();
        let one = open("linear-1.onnx");
        assert_eq!(*one.signature(), linear_signature());
        close(&one.infer(x(&[[3.0, 4.0], [0.0, 0.0]]), &[]).unwrap(), &y(&[3.0, 2.0]));
        let two = open("linear-2.onnx");
        close(&two.infer(x(&[[3.0, 4.0]]), &["y".into()]).unwrap(), &y(&[3.6]));
    }
}

#[test]
fn the_third_linear_model_fails_on_real_requests_only_and_harms_nothing() {
    for options in engines() {
        let model = load(Format::Onnx, &example("linear-3.onnx"), &options).unwrap();
        assert_eq!(*model.signature(), linear_signature());
        warm_up(&*model).unwrap();
        for _ in 0..3 {
            let error = model.infer(x(&[[3.0, 4.0]]), &[]).unwrap_err();
            assert!(matches!(error, InferError::Failed(_)), "{}: {error:?}", model.name());
        }
        close(&model.infer(x(&[[0.0, 0.0]]), &[]).unwrap(), &y(&[1.8]));
    }
}

#[test]
fn the_dense_linear_model_is_the_onnx_one() {
    let dense = load(Format::Dense, &example("linear-dense.json"), &rten()).unwrap();
    let onnx = load(Format::Onnx, &example("linear-1.onnx"), &rten()).unwrap();
    assert_eq!(dense.signature(), onnx.signature());
    let rows = [[3.0, 4.0], [-1.5, 0.25], [0.0, 100.0]];
    close(&dense.infer(x(&rows), &[]).unwrap(), &onnx.infer(x(&rows), &[]).unwrap());
}

#[test]
fn the_small_network_gives_probabilities() {
    let model = load(Format::Dense, &example("mlp.json"), &rten()).unwrap();
    let input = vec![5.1, 3.5, 1.4, 0.2, 6.7, 3.0, 5.2, 2.3];
    let input = Tensor { name: "features".into(), shape: vec![2, 4], data: TensorData::Fp32(input) };
    let output = model.infer(vec![input], &[]).unwrap().remove(0);
    assert_eq!((output.name.as_str(), output.shape.as_slice()), ("probabilities", [2, 3].as_slice()));
    let TensorData::Fp32(p) = output.data else { panic!("not FP32") };
    for row in p.chunks(3) {
        assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-6 && row.iter().all(|p| *p > 0.0), "{row:?}");
    }
    assert!(p[0] > 0.5 && p[5] > 0.5, "a setosa and a virginica by their petals: {p:?}");
}
