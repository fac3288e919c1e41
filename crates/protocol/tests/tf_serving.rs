//! TF Serving's form, as its documentation has it (`g3doc/api_rest.md`), and as whatever body may come.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod any_tensor;

use modelyard_core::{Datatype, Signature, TensorSpec};
use modelyard_protocol::tf_serving::{ModelStatus, Reply, State, Verb, VersionStatus, metadata, read, read_answer};
use modelyard_protocol::{Tensor, TensorData};
use proptest::prelude::*;
use serde_json::json;

use any_tensor::{same, spec_of, tensor, tensors_by_row};

fn spec(name: &str, datatype: Datatype, shape: &[i64]) -> TensorSpec {
    TensorSpec { name: name.into(), datatype, shape: shape.to_vec() }
}

fn takes(inputs: &[TensorSpec]) -> Signature {
    Signature { inputs: inputs.to_vec(), outputs: Vec::new() }
}

fn gives(outputs: &[TensorSpec]) -> Signature {
    Signature { inputs: vec![spec("x", Datatype::Fp32, &[-1])], outputs: outputs.to_vec() }
}

fn predict(body: &str, inputs: &[TensorSpec]) -> (Vec<Tensor>, Reply) {
    let asked = read(Verb::Predict, body.as_bytes(), &takes(inputs)).unwrap_or_else(|e| panic!("{e}: {body}"));
    (asked.inputs, asked.reply)
}

fn refused(verb: Verb, body: &str, signature: &Signature) -> String {
    read(verb, body.as_bytes(), signature).unwrap_err().to_string()
}

fn written(reply: &Reply, outputs: &[Tensor]) -> String {
    String::from_utf8(reply.write(outputs).unwrap().0).unwrap()
}

fn fp32(name: &str, shape: &[usize], values: &[f32]) -> Tensor {
    Tensor::new(name, shape.to_vec(), TensorData::Fp32(values.to_vec())).unwrap()
}

#[test]
fn rows_of_one_input_are_values_or_lists() {
    let x = [spec("x", Datatype::Fp32, &[-1])];
    let (inputs, reply) = predict(r#"{"instances": [1.0, 2.0, 5]}"#, &x);
    assert_eq!((inputs, &reply), (vec![fp32("x", &[3], &[1.0, 2.0, 5.0])], &Reply::Predictions));
    assert_eq!(written(&reply, &[fp32("y", &[3], &[2.5, 3.0, 4.5])]), r#"{"predictions":[2.5,3.0,4.5]}"#);

    let x = [spec("x", Datatype::Int64, &[-1, 2, 2])];
    let (inputs, _) =
        predict(r#"{"signature_name": "serving_default", "instances": [[[1,2],[3,4]],[[5,6],[7,8]]]}"#, &x);
    let data = TensorData::Int64((1..=8).collect());
    assert_eq!(inputs, [Tensor { name: "x".into(), shape: vec![2, 2, 2], data }]);
}

#[test]
fn rows_of_several_inputs_are_objects() {
    let inputs = [
        spec("tag", Datatype::Bytes, &[-1]),
        spec("signal", Datatype::Fp32, &[-1, 5]),
        spec("sensor", Datatype::Uint8, &[-1, 2, 2]),
    ];
    // The documentation's example.
    let body = r#"{"instances": [
        {"tag": "foo", "signal": [1, 2, 3, 4, 5], "sensor": [[1, 2], [3, 4]]},
        {"tag": "bar", "signal": [3, 4, 1, 2, 5], "sensor": [[4, 5], [6, 8]]}
    ]}"#;
    let (mut read, reply) = predict(body, &inputs);
    read.sort_by_key(|tensor| std::cmp::Reverse(tensor.name.clone()));
    let expected = [
        Tensor { name: "tag".into(), shape: vec![2], data: TensorData::Bytes(vec!["foo".into(), "bar".into()]) },
        fp32("signal", &[2, 5], &[1.0, 2.0, 3.0, 4.0, 5.0, 3.0, 4.0, 1.0, 2.0, 5.0]),
        Tensor { name: "sensor".into(), shape: vec![2, 2, 2], data: TensorData::Uint8(vec![1, 2, 3, 4, 4, 5, 6, 8]) },
    ];
    assert_eq!(read, expected);
    let again = r#"{"predictions":[{"tag":"foo","signal":[1.0,2.0,3.0,4.0,5.0],"sensor":[[1,2],[3,4]]},{"tag":"bar","signal":[3.0,4.0,1.0,2.0,5.0],"sensor":[[4,5],[6,8]]}]}"#;
    assert_eq!(written(&reply, &read), again);
}

#[test]
fn columns_are_a_tensor_or_an_object_of_them() {
    let inputs = [
        spec("tag", Datatype::Bytes, &[-1]),
        spec("signal", Datatype::Fp32, &[-1, 2]),
        spec("k", Datatype::Int32, &[]),
    ];
    let (read, reply) = predict(r#"{"inputs": {"tag": ["foo", "bar"], "signal": [[1, 2], [3, 4]], "k": 7}}"#, &inputs);
    let k = Tensor { name: "k".into(), shape: vec![], data: TensorData::Int32(vec![7]) };
    assert_eq!(read[0], k);
    assert_eq!(reply, Reply::Outputs);
    assert_eq!(written(&reply, &read[..2]), r#"{"outputs":{"k":7,"signal":[[1.0,2.0],[3.0,4.0]]}}"#);
    let (bare, reply) = predict(r#"{"inputs": [[1, 2], [3, 4]]}"#, &inputs[1..2]);
    assert_eq!(bare, [fp32("signal", &[2, 2], &[1.0, 2.0, 3.0, 4.0])]);
    assert_eq!(written(&reply, &bare), r#"{"outputs":[[1.0,2.0],[3.0,4.0]]}"#);
    assert_eq!(predict(r#"{"inputs": []}"#, &inputs[1..2]).0, [fp32("signal", &[0, 2], &[])]);
}

#[test]
fn bytes_are_strings_or_base64() {
    let x = [spec("x", Datatype::Bytes, &[-1])];
    let expected = TensorData::Bytes(vec![b"\x00\xff".to_vec(), b"b64".to_vec()]);
    let (inputs, _) = predict(r#"{"instances": [{"b64": "AP8="}, "b64"]}"#, &x);
    assert_eq!((&inputs[0].shape, &inputs[0].data), (&vec![2], &expected));
    let (inputs, _) = predict(r#"{"instances": [{"x": {"b64": "AP8="}}, {"x": "b64"}]}"#, &x);
    assert_eq!(inputs[0].data, expected);
    let (inputs, _) = predict(r#"{"inputs": {"b64": "AP8="}}"#, &[spec("x", Datatype::Bytes, &[])]);
    assert_eq!(inputs[0].data, TensorData::Bytes(vec![b"\x00\xff".to_vec()]));
    // By the output's name, or because there is no other form.
    let strings = |name: &str| Tensor {
        name: name.into(),
        shape: vec![2],
        data: TensorData::Bytes(vec![b"\xff".to_vec(), b"a".to_vec()]),
    };
    assert_eq!(
        written(&Reply::Predictions, &[strings("image_bytes")]),
        r#"{"predictions":[{"b64":"/w=="},{"b64":"YQ=="}]}"#
    );
    assert_eq!(written(&Reply::Predictions, &[strings("text")]), r#"{"predictions":[{"b64":"/w=="},"a"]}"#);
}

#[test]
fn numbers_that_json_has_none_for_are_taken_and_given() {
    let x = [spec("x", Datatype::Fp32, &[-1]), spec("NaN", Datatype::Bytes, &[-1])];
    let body = r#"{"inputs": {"x": [NaN, Infinity, -Infinity, -Inf, 1], "NaN": ["NaN \" NaN", "-Infinity"]}}"#;
    let (inputs, _) = predict(body, &x);
    let TensorData::Fp32(values) = &inputs[1].data else { panic!("{inputs:?}") };
    assert!(
        values[0].is_nan() && values[1..] == [f32::INFINITY, f32::NEG_INFINITY, f32::NEG_INFINITY, 1.0],
        "{values:?}"
    );
    assert_eq!(inputs[0].data, TensorData::Bytes(vec![b"NaN \" NaN".to_vec(), b"-Infinity".to_vec()]));
    let answer = written(&Reply::Predictions, &[fp32("y", &[3], &[f32::NAN, f32::INFINITY, f32::NEG_INFINITY])]);
    assert_eq!(answer, r#"{"predictions":[NaN,Infinity,-Infinity]}"#);
}

#[test]
fn half_precision_has_a_form_here() {
    let (inputs, reply) = predict(r#"{"instances": [1.5, -2]}"#, &[spec("x", Datatype::Fp16, &[-1])]);
    assert_eq!(written(&reply, &inputs), r#"{"predictions":[1.5,-2.0]}"#);
    let message = refused(Verb::Predict, r#"{"instances": [65520]}"#, &takes(&[spec("x", Datatype::Fp16, &[-1])]));
    assert_eq!(message, "`x`: element 0 of its data must be a number that fits the datatype, not 65520");
}

#[test]
fn what_is_wrong_is_said() {
    let (x, two) =
        ([spec("x", Datatype::Fp32, &[-1, 2])], [spec("a", Datatype::Fp32, &[-1]), spec("b", Datatype::Int64, &[-1])]);
    for (body, inputs, message) in [
        ("{}", &x[..], "the body needs `instances` (a list of rows) or `inputs` (a tensor, or an object of tensors)"),
        (
            r#"{"instances":[[1,2]],"inputs":[[1,2]]}"#,
            &x,
            "the body has both `instances` (rows) and `inputs` (columns): use one of them",
        ),
        (r#"{"instances":[]}"#, &x, "instances is empty"),
        (r#"{"instances":7}"#, &x, "instances must be a list"),
        (
            r#"{"instances":[[1,2],[3]]}"#,
            &x,
            "`x`: its rows must be alike, as the first one is: an array at depth 1 has length 1, not 2",
        ),
        (
            r#"{"instances":[[1,2],3]}"#,
            &x,
            "`x`: its rows must be alike, as the first one is: an array at depth 0 holds elements",
        ),
        (r#"{"instances":[["1",2]]}"#, &x, "`x`: element 0 of its data must be a number that fits FP32, not \"1\""),
        (r#"{"instances":[{"z":1}]}"#, &x, "there is no input `z`: the model takes x FP32 [-1, 2]"),
        (r#"{"inputs":{"z":1}}"#, &x, "there is no input `z`: the model takes x FP32 [-1, 2]"),
        (
            r#"{"instances":[1]}"#,
            &two,
            "the model takes a FP32 [-1], b INT64 [-1]: each of instances must be an object that names them",
        ),
        (
            r#"{"inputs":[1]}"#,
            &two,
            "the model takes a FP32 [-1], b INT64 [-1]: what it is asked must be an object that names them",
        ),
        (r#"{"instances":[{"a":1,"b":2},{"a":1}]}"#, &two, "instances[1] lacks `b`, which the first one has"),
        (r#"{"instances":[{"a":1},{"a":1,"b":2}]}"#, &two, "instances[1] has `b`, which the first one lacks"),
        (r#"{"instances":[{"a":1},7]}"#, &two, "instances[1] must be an object that names inputs, as the first one is"),
        (
            r#"{"instances":[{"a":1,"b":2.5}]}"#,
            &two,
            "`b`: element 0 of its data must be an integer that fits INT64, not 2.5",
        ),
        (
            r#"{"signature_name":"other","instances":[[1,2]]}"#,
            &x,
            "there is no signature `other`: the model has `serving_default`",
        ),
    ] {
        assert_eq!(refused(Verb::Predict, body, &takes(inputs)), message, "{body}");
    }
    assert!(refused(Verb::Predict, "{", &takes(&x)).starts_with("the body is not valid JSON: "));
    let image = [spec("x", Datatype::Bytes, &[-1])];
    assert!(refused(Verb::Predict, r#"{"instances":[{"b64":"?"}]}"#, &takes(&image)).contains("{\"b64\": \"…\"}"));
    let uneven = [fp32("y", &[2], &[1.0, 2.0]), fp32("z", &[1], &[1.0])];
    let message = Reply::Predictions.write(&uneven).unwrap_err().to_string();
    assert_eq!(message, "output `z` of shape [1] is not by row as the others are");
}

#[test]
fn examples_are_given_the_shape_that_the_model_takes() {
    let inputs = [
        spec("age", Datatype::Fp32, &[-1, 1]),
        spec("words", Datatype::Bytes, &[-1, -1]),
        spec("sex", Datatype::Int64, &[-1]),
    ];
    let signature = Signature { inputs: inputs.to_vec(), outputs: vec![spec("y", Datatype::Fp32, &[-1, 1])] };
    let body = r#"{"context": {"sex": 1}, "examples": [{"age": 3, "words": ["a", "b"]}, {"age": [4.5], "words": [ "c", "d" ]}]}"#;
    let asked = read(Verb::Regress, body.as_bytes(), &signature).unwrap();
    let strings = ["a", "b", "c", "d"].iter().map(|s| s.as_bytes().to_vec()).collect();
    let expected = [
        fp32("age", &[2, 1], &[3.0, 4.5]),
        Tensor { name: "sex".into(), shape: vec![2], data: TensorData::Int64(vec![1, 1]) },
        Tensor { name: "words".into(), shape: vec![2, 2], data: TensorData::Bytes(strings) },
    ];
    assert_eq!(asked.inputs, expected);
    assert_eq!(asked.reply.outputs(), ["y"]);
    assert_eq!(written(&asked.reply, &[fp32("y", &[2, 1], &[0.5, 1.5])]), r#"{"results":[0.5,1.5]}"#);
    let refused = |body: &str| refused(Verb::Regress, body, &signature);
    assert_eq!(
        refused(r#"{"examples":[{"age":[1,2]}]}"#),
        "`age` has 2 values an example, and the model takes age FP32 [-1, 1]"
    );
    assert_eq!(
        refused(r#"{"context":{"age":1},"examples":[{"age":1}]}"#),
        "`age` is in `context` and in `examples`: leave one of them out"
    );
    assert_eq!(refused("{}"), "the body needs `examples`, a list of objects");
}

#[test]
fn classes_are_labels_with_scores() {
    let body = br#"{"examples": [{"x": 1}]}"#;
    let scores = fp32("probabilities", &[2, 2], &[0.25, 0.75, 0.875, 0.125]);
    let plain = read(Verb::Classify, body, &gives(&[spec("probabilities", Datatype::Fp32, &[-1, 2])])).unwrap().reply;
    assert_eq!(
        written(&plain, std::slice::from_ref(&scores)),
        r#"{"results":[[["0",0.25],["1",0.75]],[["0",0.875],["1",0.125]]]}"#
    );
    // As scikit-learn's classifiers are converted: the label of each row, and the scores of all classes.
    let outputs = [spec("label", Datatype::Bytes, &[-1]), spec("probabilities", Datatype::Fp32, &[-1, 2])];
    let reply = read(Verb::Classify, body, &gives(&outputs)).unwrap().reply;
    assert_eq!(reply.outputs(), ["label", "probabilities"]);
    let label =
        Tensor { name: "label".into(), shape: vec![2], data: TensorData::Bytes(vec!["dog".into(), "cat".into()]) };
    assert_eq!(written(&reply, &[label, scores.clone()]), r#"{"results":[[["dog",0.75]],[["cat",0.875]]]}"#);
    // As TensorFlow's own: a label for each score.
    let labels = TensorData::Bytes(["a", "b", "a", "b"].iter().map(|s| s.as_bytes().to_vec()).collect());
    let labels = Tensor { name: "label".into(), shape: vec![2, 2], data: labels };
    let expected = r#"{"results":[[["a",0.25],["b",0.75]],[["a",0.875],["b",0.125]]]}"#;
    assert_eq!(written(&reply, &[labels.clone(), scores.clone()]), expected);
    let (answer, described) = reply.write(&[labels.clone(), scores]).unwrap();
    let again = read_answer(&answer, &described).unwrap();
    assert_eq!((&again[0].data, &again[0].shape), (&labels.data, &labels.shape));
    assert_eq!(again[1].data, TensorData::Fp64(vec![0.25, 0.75, 0.875, 0.125]));

    let none = gives(&[spec("y", Datatype::Int64, &[-1])]);
    assert!(refused(Verb::Classify, "{}", &none).starts_with("the model is no classifier: it gives y INT64 [-1]; "));
    assert!(refused(Verb::Regress, "{}", &none).starts_with("the model is no regressor: "));
}

#[test]
fn a_model_is_told_of_as_tf_serving_does() {
    let status =
        ModelStatus::new("m", vec![VersionStatus::new("2", State::Available), VersionStatus::new("1", State::Start)]);
    let expected = json!({"name": "m", "ready": true, "model_version_status": [
        {"version": "2", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}},
        {"version": "1", "state": "START", "status": {"error_code": "OK", "error_message": ""}},
    ]});
    assert_eq!(serde_json::to_value(&status).unwrap(), expected);
    let signature =
        Signature { inputs: vec![spec("x", Datatype::Fp32, &[-1, 2])], outputs: vec![spec("y", Datatype::Bytes, &[])] };
    let tensor = |name: &str, dtype: &str, dims: &[&str]| {
        let dims: Vec<_> = dims.iter().map(|size| json!({"size": size, "name": ""})).collect();
        json!({"name": name, "dtype": dtype, "tensor_shape": {"dim": dims, "unknown_rank": false}})
    };
    let expected = json!({
        "model_spec": {"name": "m", "signature_name": "", "version": "2"},
        "metadata": {"signature_def": {"signature_def": {"serving_default": {
            "inputs": {"x": tensor("x", "DT_FLOAT", &["-1", "2"])},
            "outputs": {"y": tensor("y", "DT_STRING", &[])},
            "method_name": "tensorflow/serving/predict",
        }}}},
    });
    assert_eq!(metadata("m", "2", &signature), expected);
}

proptest! {
    #[test]
    fn what_is_asked_by_columns_comes_back_as_it_was(tensor in tensor()) {
        let (answer, described) = Reply::Outputs.write(std::slice::from_ref(&tensor)).unwrap();
        let again = read_answer(&answer, &described).unwrap();
        prop_assert!(same(&again, std::slice::from_ref(&tensor)), "{again:?}");
        let request = String::from_utf8(answer).unwrap().replacen("outputs", "inputs", 1);
        let asked = read(Verb::Predict, request.as_bytes(), &takes(&[spec_of(&tensor)])).unwrap();
        prop_assert!(same(&asked.inputs, std::slice::from_ref(&tensor)), "{asked:?}");
    }

    #[test]
    fn what_is_asked_by_rows_comes_back_as_it_was(tensors in tensors_by_row()) {
        let (answer, described) = Reply::Predictions.write(&tensors).unwrap();
        let again = read_answer(&answer, &described).unwrap();
        prop_assert!(same(&again, &tensors), "{again:?}");
        let request = String::from_utf8(answer).unwrap().replacen("predictions", "instances", 1);
        let specs: Vec<_> = tensors.iter().map(spec_of).collect();
        let asked = read(Verb::Predict, request.as_bytes(), &takes(&specs)).unwrap();
        prop_assert!(same(&asked.inputs, &tensors), "{asked:?}");
    }

    #[test]
    fn no_body_makes_the_reader_panic(
        body in prop_oneof![
            any::<Vec<u8>>(),
            "[\\[\\]{},:\"0-9aINn. é-]{0,40}".prop_map(String::into_bytes),
            "\\{\"(instances|inputs|examples)\":[\\[\\]{},:\"0-9xINn.-]{0,30}\\}".prop_map(String::into_bytes),
        ],
        datatype in prop::sample::select(Datatype::ALL.to_vec()),
    ) {
        let signature = Signature { inputs: vec![spec("x", datatype, &[-1, 2])], outputs: vec![spec("y", Datatype::Fp32, &[-1, 1])] };
        for verb in [Verb::Predict, Verb::Classify, Verb::Regress] {
            read(verb, &body, &signature).ok();
        }
        read_answer(&body, &signature.outputs).ok();
    }
}
