//! TorchServe's form: which body becomes which tensors, and what is answered.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod any_tensor;

use modelyard_core::{Datatype, Signature, TensorSpec};
use modelyard_protocol::torch_serve::{Part, Reply, TorchError, read, read_answer};
use modelyard_protocol::{Tensor, TensorData};
use proptest::prelude::*;

use any_tensor::{same, spec_of, tensor, tensors_by_row};

fn spec(name: &str, datatype: Datatype, shape: &[i64]) -> TensorSpec {
    TensorSpec { name: name.into(), datatype, shape: shape.to_vec() }
}

fn takes(inputs: &[TensorSpec]) -> Signature {
    Signature { inputs: inputs.to_vec(), outputs: Vec::new() }
}

fn part<'a>(name: Option<&'a str>, content_type: Option<&'a str>, data: &'a [u8]) -> Part<'a> {
    Part { name, content_type, data }
}

fn json<'a>(text: &'a str) -> Part<'a> {
    part(None, Some("application/json; charset=utf-8"), text.as_bytes())
}

fn ask(parts: &[Part<'_>], inputs: &[TensorSpec]) -> (Vec<Tensor>, Reply) {
    let asked = read(parts, &takes(inputs)).unwrap_or_else(|e| panic!("{e}: {parts:?}"));
    (asked.inputs, asked.reply)
}

fn fp32(name: &str, shape: &[usize], values: &[f32]) -> Tensor {
    Tensor::new(name, shape.to_vec(), TensorData::Fp32(values.to_vec())).unwrap()
}

fn written(reply: Reply, outputs: &[Tensor]) -> String {
    String::from_utf8(reply.write(outputs).unwrap().0).unwrap()
}

#[test]
fn json_is_a_tensor_or_a_row_by_its_depth() {
    let x = [spec("x", Datatype::Fp32, &[-1, 2])];
    let (row, rows) = (vec![fp32("x", &[1, 2], &[3.0, 4.0])], vec![fp32("x", &[2, 2], &[3.0, 4.0, 5.0, 6.0])]);
    assert_eq!(ask(&[json("[3, 4]")], &x), (row.clone(), Reply::Row));
    assert_eq!(ask(&[json("[[3, 4]]")], &x), (row.clone(), Reply::Whole));
    assert_eq!(ask(&[json("[[3, 4], [5, 6]]")], &x), (rows.clone(), Reply::Whole));
    assert_eq!(ask(&[json(r#"{"data": [3, 4]}"#)], &x), (row.clone(), Reply::Row));
    assert_eq!(ask(&[json(r#"{"x": [3, 4]}"#)], &x), (row.clone(), Reply::Row));
    assert_eq!(ask(&[json(r#"[{"x": [3, 4]}, {"x": [5, 6]}]"#)], &x), (rows.clone(), Reply::Rows));
    assert_eq!(ask(&[json(r#"{"instances": [[3, 4], [5, 6]]}"#)], &x), (rows.clone(), Reply::Predictions));
    // As curl sends what it is given: its word counts for nothing, and a file has none.
    let form = Some("application/x-www-form-urlencoded");
    assert_eq!(ask(&[part(None, form, b"[3, 4]")], &x), (row.clone(), Reply::Row));
    assert_eq!(ask(&[part(None, None, b" [[3, 4]]\n")], &x), (row, Reply::Whole));

    assert_eq!(written(Reply::Row, &[fp32("y", &[1, 1], &[3.0])]), "[3.0]");
    assert_eq!(written(Reply::Row, &[fp32("y", &[1], &[3.0])]), "3.0");
    assert_eq!(written(Reply::Whole, &[fp32("y", &[1, 1], &[3.0])]), "[[3.0]]");
    assert_eq!(written(Reply::Predictions, &[fp32("y", &[2], &[3.0, f32::NAN])]), r#"{"predictions":[3.0,NaN]}"#);
    let two = [fp32("a", &[1, 1], &[3.0]), fp32("b", &[1], &[4.0])];
    assert_eq!(written(Reply::Row, &two), r#"{"a":[3.0],"b":4.0}"#);
    assert_eq!(written(Reply::Rows, &two), r#"[{"a":[3.0],"b":4.0}]"#);
}

#[test]
fn other_bytes_are_those_of_the_one_input() {
    let text = [spec("text", Datatype::Bytes, &[-1])];
    let (inputs, reply) = ask(&[part(None, Some("text/plain"), b"[a text]")], &text);
    assert_eq!((inputs[0].data.clone(), reply), (TensorData::Bytes(vec![b"[a text]".to_vec()]), Reply::Row));
    let image = [spec("image", Datatype::Uint8, &[-1, 2, 2])];
    let (inputs, _) = ask(&[part(None, None, b"1234")], &image);
    assert_eq!((inputs[0].shape.clone(), inputs[0].data.clone()), (vec![1, 2, 2], TensorData::Uint8(b"1234".to_vec())));
    let x = [spec("x", Datatype::Fp32, &[-1, 2])];
    let raw: Vec<u8> = [3.0_f32, 4.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    for content in [None, Some("application/octet-stream")] {
        assert_eq!(ask(&[part(None, content, &raw)], &x), (vec![fp32("x", &[1, 2], &[3.0, 4.0])], Reply::Row));
    }
}

#[test]
fn a_form_has_instances_or_inputs() {
    let x = [spec("x", Datatype::Fp32, &[-1, 2])];
    let data = |text: &'static str| part(Some("data"), None, text.as_bytes());
    assert_eq!(ask(&[data("[3, 4]")], &x), (vec![fp32("x", &[1, 2], &[3.0, 4.0])], Reply::Row));
    // What curl says of every file.
    let file = part(Some("data"), Some("application/octet-stream"), b"[3, 4]\n");
    assert_eq!(ask(&[file], &x), (vec![fp32("x", &[1, 2], &[3.0, 4.0])], Reply::Row));
    let several = ask(&[data("[3, 4]"), data("[[5, 6]]")], &x);
    assert_eq!(several, (vec![fp32("x", &[2, 2], &[3.0, 4.0, 5.0, 6.0])], Reply::Rows));
    let inputs = [spec("a", Datatype::Fp32, &[-1]), spec("b", Datatype::Bytes, &[-1])];
    let (read, reply) = ask(&[part(Some("a"), None, b"7"), part(Some("b"), None, b"7")], &inputs);
    assert_eq!((read[0].clone(), reply), (fp32("a", &[1], &[7.0]), Reply::Row));
    assert_eq!(read[1].data, TensorData::Bytes(vec![b"7".to_vec()]));
}

#[test]
fn what_is_wrong_is_said() {
    let (x, two) =
        ([spec("x", Datatype::Fp32, &[-1, 2])], [spec("a", Datatype::Fp32, &[-1]), spec("b", Datatype::Fp32, &[-1])]);
    let data = |text: &'static str| part(Some("data"), None, text.as_bytes());
    for (parts, inputs, message) in [
        (vec![], &x[..], "the form has no part `data`"),
        (vec![part(Some("z"), None, b"1")], &x, "there is no input `z`: the model takes x FP32 [-1, 2]"),
        (vec![json(r#"{"z": 1}"#)], &x, "there is no input `z`: the model takes x FP32 [-1, 2]"),
        (
            vec![json("[1]")],
            &two,
            "the model takes a FP32 [-1], b FP32 [-1]: the body must be an object that names them",
        ),
        (vec![data("[1, 2]"), data("[1]")], &x, "`x` must be in each part, and its rows of the same shape"),
        (
            vec![data("[1, 2]"), data("[1, 2]"), part(Some("x"), None, b"[1, 2]")],
            &x,
            "a form has parts that are named after inputs, or any number of parts named `data`; not both",
        ),
        (
            vec![json(r#"{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1]}]}"#)],
            &x,
            "this is a request of the Open Inference Protocol: POST it to /v2/models/{name}/infer",
        ),
        (
            vec![part(None, Some("application/octet-stream"), b"[1, 2]")],
            &x,
            "`x`: its shape [1, 2] of FP32 needs 8 bytes, but its data has 6",
        ),
    ] {
        assert_eq!(read(&parts, &takes(inputs)).unwrap_err().to_string(), message, "{parts:?}");
    }
    assert!(read(&[json("{")], &takes(&x)).unwrap_err().to_string().starts_with("the body is not valid JSON: "));
    let error = serde_json::to_value(TorchError::new(404, "there is no m")).unwrap();
    assert_eq!(error, serde_json::json!({"code": 404, "type": "ModelNotFoundException", "message": "there is no m"}));
}

proptest! {
    #[test]
    fn whole_tensors_come_back_as_they_were(tensor in tensor()) {
        let (answer, described) = Reply::Whole.write(std::slice::from_ref(&tensor)).unwrap();
        let again = read_answer(&answer, &described).unwrap();
        prop_assert!(same(&again, std::slice::from_ref(&tensor)), "{again:?}");
        if !tensor.shape.contains(&0) {
            let body = format!("{{{:?}: {}}}", tensor.name, String::from_utf8(answer).unwrap());
            let asked = read(&[json(&body)], &takes(&[spec_of(&tensor)])).unwrap();
            prop_assert!(same(&asked.inputs, std::slice::from_ref(&tensor)), "{asked:?}");
        }
    }

    #[test]
    fn rows_come_back_as_they_were(tensors in tensors_by_row()) {
        for reply in [Reply::Row, Reply::Rows, Reply::Predictions] {
            let (answer, described) = reply.write(&tensors).unwrap();
            let again = read_answer(&answer, &described).unwrap();
            prop_assert!(same(&again, &tensors), "{reply:?} {again:?}");
        }
    }

    #[test]
    fn no_body_makes_the_reader_panic(
        body in prop_oneof![any::<Vec<u8>>(), "[\\[\\]{},:\"0-9xaIN.é-]{0,40}".prop_map(String::into_bytes)],
        content in prop::sample::select(vec![None, Some("application/json"), Some("application/octet-stream"), Some("text/plain")]),
        name in prop::sample::select(vec![None, Some("data"), Some("x")]),
        datatype in prop::sample::select(Datatype::ALL.to_vec()),
        shape in prop::collection::vec(-1_i64..3, 0..4),
    ) {
        let one = part(name, content, &body);
        let specs = [spec("x", datatype, &shape)];
        read(&[one], &takes(&specs)).ok();
        read(&[one, one], &takes(&specs)).ok();
        read_answer(&body, &specs).ok();
    }
}
