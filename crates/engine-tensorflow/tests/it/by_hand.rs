//! Small graphs whose answers are known.

use modelyard_core::{Datatype, TensorSpec};
use modelyard_engine::{InferError, warm_up};
use modelyard_protocol::{Tensor, TensorData};

use crate::graph_writer::{Attribute, BOOL, FLOAT, Graph, INT32, INT64};
use crate::{floats, open};

fn spec(name: &str, datatype: Datatype, shape: &[i64]) -> TensorSpec {
    TensorSpec { name: name.into(), datatype, shape: shape.to_vec() }
}

/// TensorFlow Serving's first example: y = x / 2 + 2.
fn half_plus_two() -> Graph {
    Graph::default()
        .placeholder("x", FLOAT, Some(&[-1, 1]))
        .floats("a", &[], &[0.5])
        .floats("b", &[1], &[2.0])
        .op("half", "Mul", &["a", "x"])
        .op("y", "AddV2", &["half", "b"])
        .node("init", "NoOp", &["^y"], &[])
}

#[test]
fn half_plus_two_has_its_signature_and_its_numbers() {
    let model = open(&half_plus_two().write()).unwrap();
    assert_eq!(model.name(), "tensorflow");
    assert_eq!(model.signature().inputs, [spec("x", Datatype::Fp32, &[-1, 1])]);
    assert_eq!(model.signature().outputs, [spec("y", Datatype::Fp32, &[-1, 1])]);
    warm_up(&*model).unwrap();
    for rows in [vec![1.0], vec![2.0, -4.0, 0.5], vec![]] {
        let expected: Vec<f32> = rows.iter().map(|x| x / 2.0 + 2.0).collect();
        let found = model.infer(vec![floats("x", &[rows.len(), 1], &rows)], &[]).unwrap();
        assert_eq!(found, [floats("y", &[rows.len(), 1], &expected)]);
    }
    let error = model.infer(vec![floats("x", &[1, 2], &[1.0, 2.0])], &[]).unwrap_err();
    assert!(matches!(error, InferError::BadInput(_)), "{error}");
}

#[test]
fn outputs_are_what_nobody_takes_and_inputs_what_they_need() {
    let graph = half_plus_two()
        .placeholder("unused", FLOAT, Some(&[1]))
        .op("z", "Neg", &["half:0"])
        .floats("left_over", &[], &[1.0])
        .write();
    let model = open(&graph).unwrap();
    let names = |specs: &[TensorSpec]| specs.iter().map(|s| s.name.clone()).collect::<Vec<_>>();
    assert_eq!(
        (names(&model.signature().inputs), names(&model.signature().outputs)),
        (vec!["x".to_owned()], vec!["y".to_owned(), "z".to_owned()],)
    );
    let found = model.infer(vec![floats("x", &[1, 1], &[3.0])], &["z".into(), "y".into()]).unwrap();
    assert_eq!(found, [floats("z", &[1, 1], &[-1.5]), floats("y", &[1, 1], &[3.5])]);
}

#[test]
fn constants_may_leave_out_what_repeats() {
    // The last value stands for the rest, no value for zeros.
    let graph = Graph::default()
        .placeholder("x", FLOAT, Some(&[-1, 4]))
        .floats("repeating", &[4], &[1.0, 2.0])
        .floats("zeros", &[4], &[])
        .op("a", "AddV2", &["x", "repeating"])
        .op("y", "AddV2", &["a", "zeros"])
        .write();
    let found = open(&graph).unwrap().infer(vec![floats("x", &[1, 4], &[0.0; 4])], &[]).unwrap();
    assert_eq!(found, [floats("y", &[1, 4], &[1.0, 2.0, 2.0, 2.0])]);
}

#[test]
fn softmax_goes_by_the_last_axis() {
    let graph = Graph::default().placeholder("x", FLOAT, Some(&[-1, 2, 2])).op("y", "Softmax", &["x"]).write();
    let found = open(&graph).unwrap().infer(vec![floats("x", &[1, 2, 2], &[0.0, 0.0, 5.0, 5.0])], &[]).unwrap();
    assert_eq!(found, [floats("y", &[1, 2, 2], &[0.5; 4])]);
}

#[test]
fn a_convolution_has_its_dilations() {
    let ints = |values: &'static [i64]| Attribute::Ints(values);
    let graph = Graph::default()
        .placeholder("x", FLOAT, Some(&[1, 1, 5, 1]))
        .floats("kernel", &[1, 2, 1, 1], &[1.0, 10.0])
        .node(
            "y",
            "Conv2D",
            &["x", "kernel"],
            &[
                ("T", Attribute::Type(FLOAT)),
                ("strides", ints(&[1, 1, 1, 1])),
                ("dilations", ints(&[1, 1, 3, 1])),
                ("padding", Attribute::Text("VALID")),
            ],
        )
        .write();
    let found = open(&graph).unwrap().infer(vec![floats("x", &[1, 1, 5, 1], &[1.0, 2.0, 3.0, 4.0, 5.0])], &[]).unwrap();
    assert_eq!(found, [floats("y", &[1, 1, 2, 1], &[41.0, 52.0])]);
}

#[test]
fn a_classifier_may_end_with_its_class() {
    let graph = Graph::default()
        .placeholder("x", FLOAT, Some(&[-1, 3]))
        .raw_int32s("axis", &[], &[1])
        .node(
            "class",
            "ArgMax",
            &["x", "axis"],
            &[("T", Attribute::Type(FLOAT)), ("Tidx", Attribute::Type(INT32)), ("output_type", Attribute::Type(INT64))],
        )
        .write();
    let model = open(&graph).unwrap();
    assert_eq!(model.signature().outputs, [spec("class", Datatype::Int64, &[-1])]);
    let found = model.infer(vec![floats("x", &[2, 3], &[0.1, 0.7, 0.2, 0.5, 0.1, 0.4])], &[]).unwrap();
    let class = Tensor { name: "class".into(), shape: vec![2], data: TensorData::Int64(vec![1, 0]) };
    assert_eq!(found, [class]);
}

#[test]
fn other_datatypes_go_in_and_out() {
    let graph = Graph::default()
        .placeholder("n", INT32, Some(&[-1]))
        .raw_int32s("limit", &[], &[3])
        .node("less", "Less", &["n", "limit"], &[("T", Attribute::Type(INT32))])
        .node("more", "LogicalNot", &["less"], &[])
        .write();
    let model = open(&graph).unwrap();
    assert_eq!(model.signature().outputs, [spec("more", Datatype::Bool, &[-1])]);
    let n = Tensor { name: "n".into(), shape: vec![3], data: TensorData::Int32(vec![2, 3, 4]) };
    let more = Tensor { name: "more".into(), shape: vec![3], data: TensorData::Bool(vec![false, true, true]) };
    assert_eq!(model.infer(vec![n], &[]), Ok(vec![more]));
    let truth = Graph::default().placeholder("b", BOOL, Some(&[-1])).constant("yes", BOOL, &[1], 11, vec![1]).node(
        "both",
        "LogicalAnd",
        &["b", "yes"],
        &[],
    );
    let b = Tensor { name: "b".into(), shape: vec![2], data: TensorData::Bool(vec![true, false]) };
    let both = Tensor { name: "both".into(), ..b.clone() };
    assert_eq!(open(&truth.write()).unwrap().infer(vec![b], &[]), Ok(vec![both]));
}

#[test]
fn many_threads_share_a_model() {
    let model = open(&half_plus_two().write()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4_u8 {
            let model = &model;
            scope.spawn(move || {
                for rows in 1..20_usize {
                    let x = vec![f32::from(thread); rows];
                    let y = vec![f32::from(thread) / 2.0 + 2.0; rows];
                    let found = model.infer(vec![floats("x", &[rows, 1], &x)], &[]).unwrap();
                    assert_eq!(found, [floats("y", &[rows, 1], &y)]);
                }
            });
        }
    });
}
