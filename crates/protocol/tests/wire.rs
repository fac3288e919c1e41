//! Requests and responses as they go over the wire.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use half::f16;
use modelyard_protocol::{InferRequest, InferResponse, Parameter, Parameters, RequestedOutput, Tensor, TensorData};
use proptest::prelude::*;

fn refused(body: &str) -> String {
    InferRequest::from_json(body.as_bytes()).unwrap_err().to_string()
}

#[test]
fn a_request_of_the_specification_is_read() {
    // The example of the Open Inference Protocol, fields in an order of its own.
    let body = r#"{
      "id" : "42", "parameters": {"priority": 3, "sequence_end": true, "note": "x"},
      "inputs" : [
        { "data" : [[1, 2], [3, 4]], "name" : "input0", "shape" : [ 2, 2 ], "datatype" : "UINT32", "extra": {} },
        { "name" : "input1", "shape" : [ 3 ], "datatype" : "BOOL", "data" : [ true, false, true ] }
      ],
      "outputs" : [ { "name" : "output0", "parameters": {"binary_data": false} } ]
    }"#;
    let expected = InferRequest {
        id: Some("42".into()),
        parameters: Parameters::from([
            ("note".into(), Parameter::String("x".into())),
            ("priority".into(), Parameter::Int(3)),
            ("sequence_end".into(), Parameter::Bool(true)),
        ]),
        inputs: vec![
            Tensor { name: "input0".into(), shape: vec![2, 2], data: TensorData::Uint32(vec![1, 2, 3, 4]) },
            Tensor { name: "input1".into(), shape: vec![3], data: TensorData::Bool(vec![true, false, true]) },
        ],
        outputs: vec![RequestedOutput {
            name: "output0".into(),
            parameters: Parameters::from([("binary_data".into(), Parameter::Bool(false))]),
        }],
    };
    assert_eq!(InferRequest::from_json(body.as_bytes()).unwrap(), expected);
}

#[test]
fn a_response_has_the_form_of_the_specification() {
    let response = InferResponse {
        model_name: "linear".into(),
        model_version: Some("2".into()),
        id: None,
        parameters: Parameters::new(),
        outputs: vec![
            Tensor::new("y", vec![2, 1], TensorData::Fp32(vec![3.0, f32::NAN])).unwrap(),
            Tensor::new("label", vec![1], TensorData::Bytes(vec![b"a\"b".to_vec()])).unwrap(),
        ],
    };
    let text = String::from_utf8(response.to_json().unwrap()).unwrap();
    assert_eq!(
        text,
        r#"{"model_name":"linear","model_version":"2","outputs":[{"name":"y","datatype":"FP32","shape":[2,1],"data":[3.0,"NaN"]},{"name":"label","datatype":"BYTES","shape":[1],"data":["a\"b"]}]}"#
    );
}

#[test]
fn errors_name_the_tensor_and_what_was_expected() {
    let input = |rest: &str| refused(&format!(r#"{{"inputs":[{{"name":"x",{rest}}}]}}"#));
    assert_eq!(
        input(r#""datatype":"FP32","shape":[1,2],"data":[1,2,3]"#),
        "tensor `x`: its shape [1, 2] needs 2 elements, but its data has 3"
    );
    assert_eq!(
        input(r#""datatype":"FP32","shape":[-1,2],"data":[1,2]"#),
        "tensor `x`: its shape [-1, 2] must have no negative dimension"
    );
    assert_eq!(
        input(r#""datatype":"FLOAT","shape":[1],"data":[1]"#),
        "tensor `x`: datatype `FLOAT` is unknown: use one of the Open Inference Protocol, such as FP32"
    );
    assert_eq!(
        input(r#""datatype":"FP16","shape":[1],"data":[1]"#),
        "tensor `x`: FP16 has no form in JSON: use FP32, or a binary protocol"
    );
    assert_eq!(input(r#""datatype":"FP32","shape":[1]"#), "tensor `x`: it has no `data`");
    assert_eq!(
        input(r#""datatype":"FP32","shape":[1],"parameters":{"binary_data_size":4}"#),
        "tensor `x`: its data is binary (`binary_data_size`), and the header Inference-Header-Content-Length does not say \
         where it begins"
    );
    let twice = r#"{"name":"x","datatype":"FP32","shape":[1],"data":[1]}"#;
    assert_eq!(refused(&format!(r#"{{"inputs":[{twice},{twice}]}}"#)), "tensor `x` is given twice");
    assert!(refused("[[3,4").starts_with("the body is not a valid request: "));
    assert!(refused(r#"{"instances":[[3,4]]}"#).contains("missing field `inputs`"));
}

/// Recursion as deep as a sender likes would end the process, for all who use it.
#[test]
fn dimensions_without_end_are_refused_before_any_is_followed() {
    let nested = |rank: usize| {
        let (shape, open, close) = (vec!["1"; rank].join(","), "[".repeat(rank), "]".repeat(rank));
        format!(r#"{{"inputs":[{{"name":"x","datatype":"FP32","shape":[{shape}],"data":{open}7{close}}}]}}"#)
    };
    let deepest = InferRequest::from_json(nested(64).as_bytes()).unwrap();
    assert_eq!(deepest.inputs[0].data, TensorData::Fp32(vec![7.0]));
    assert_eq!(refused(&nested(65)), "tensor `x`: its shape has 65 dimensions, and at most 64 are taken");
    assert_eq!(refused(&nested(1_000_000)), "tensor `x`: its shape has 1000000 dimensions, and at most 64 are taken");
}

/// With a comparison of each tensor with all, this takes minutes.
#[test]
fn the_time_to_read_grows_with_the_body_only() {
    let tensor = |i| format!(r#"{{"name":"{i:08}","datatype":"FP32","shape":[0],"data":[]}}"#);
    let mut tensors: Vec<String> = (0..200_000).map(tensor).collect();
    let begun = std::time::Instant::now();
    let request = InferRequest::from_json(format!(r#"{{"inputs":[{}]}}"#, tensors.join(",")).as_bytes()).unwrap();
    assert_eq!(request.inputs.len(), 200_000);
    tensors.push(tensor(199_999));
    assert_eq!(refused(&format!(r#"{{"inputs":[{}]}}"#, tensors.join(","))), "tensor `00199999` is given twice");
    assert!(begun.elapsed() < std::time::Duration::from_secs(30), "{:?}", begun.elapsed());
}

#[test]
fn what_has_no_json_form_is_refused_by_name() {
    let response = |data| InferResponse {
        model_name: "m".into(),
        model_version: None,
        id: None,
        parameters: Parameters::new(),
        outputs: vec![Tensor { name: "y".into(), shape: vec![1], data }],
    };
    assert_eq!(
        response(TensorData::Fp16(vec![f16::ONE])).to_json().unwrap_err().to_string(),
        "tensor `y`: FP16 has no form in JSON: use FP32, or a binary protocol"
    );
    assert_eq!(
        response(TensorData::Bytes(vec![vec![0xff]])).to_json().unwrap_err().to_string(),
        "tensor `y` holds BYTES that are not UTF-8, which have no form in JSON"
    );
}

/// Tensors of every datatype that JSON has a form for, with NaN left out: it equals nothing.
fn data(count: usize) -> impl Strategy<Value = TensorData> {
    use prop::collection::vec;
    let f32s = prop::num::f32::POSITIVE
        | prop::num::f32::NEGATIVE
        | prop::num::f32::NORMAL
        | prop::num::f32::SUBNORMAL
        | prop::num::f32::ZERO
        | prop::num::f32::INFINITE;
    let f64s = prop::num::f64::POSITIVE
        | prop::num::f64::NEGATIVE
        | prop::num::f64::NORMAL
        | prop::num::f64::SUBNORMAL
        | prop::num::f64::ZERO
        | prop::num::f64::INFINITE;
    prop_oneof![
        vec(any::<bool>(), count).prop_map(TensorData::Bool),
        vec(any::<u8>(), count).prop_map(TensorData::Uint8),
        vec(any::<u16>(), count).prop_map(TensorData::Uint16),
        vec(any::<u32>(), count).prop_map(TensorData::Uint32),
        vec(any::<u64>(), count).prop_map(TensorData::Uint64),
        vec(any::<i8>(), count).prop_map(TensorData::Int8),
        vec(any::<i16>(), count).prop_map(TensorData::Int16),
        vec(any::<i32>(), count).prop_map(TensorData::Int32),
        vec(any::<i64>(), count).prop_map(TensorData::Int64),
        vec(f32s, count).prop_map(TensorData::Fp32),
        vec(f64s, count).prop_map(TensorData::Fp64),
        vec(any::<String>().prop_map(String::into_bytes), count).prop_map(TensorData::Bytes),
    ]
}

fn tensor() -> impl Strategy<Value = Tensor> {
    let shape = prop::collection::vec(0_usize..4, 0..4);
    (any::<String>(), shape).prop_flat_map(|(name, shape)| {
        let count = shape.iter().product();
        data(count).prop_map(move |data| Tensor { name: name.clone(), shape: shape.clone(), data })
    })
}

proptest! {
    #[test]
    fn requests_survive_the_wire(id in any::<Option<String>>(), tensor in tensor(), output in any::<String>()) {
        let request = InferRequest {
            id,
            parameters: Parameters::new(),
            inputs: vec![tensor],
            outputs: vec![RequestedOutput { name: output, parameters: Parameters::new() }],
        };
        prop_assert_eq!(InferRequest::from_json(&request.to_json().unwrap()).unwrap(), request);
    }

    #[test]
    fn responses_survive_the_wire(id in any::<Option<String>>(), version in any::<Option<String>>(), tensor in tensor()) {
        let response = InferResponse {
            model_name: "m".into(),
            model_version: version,
            id,
            parameters: Parameters::new(),
            outputs: vec![tensor],
        };
        prop_assert_eq!(InferResponse::from_json(&response.to_json().unwrap()).unwrap(), response);
    }

    #[test]
    fn no_bytes_make_the_reader_panic(body in any::<Vec<u8>>(), text in "[\\[\\]{},:\"0-9a-z. -]{0,40}") {
        InferRequest::from_json(&body).ok();
        let body = format!(r#"{{"inputs":[{{"name":"x","datatype":"FP32","shape":[2,2],"data":{text}}}]}}"#);
        InferRequest::from_json(body.as_bytes()).ok();
    }
}
