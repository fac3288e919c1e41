//! Messages as they come: what is written is read back, and what is wrong is said in words.

use half::{bf16, f16};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use prost::Message as _;
use sha2::Digest as _;

use super::messages::model_infer_request::InferInputTensor;
use super::messages::{InferTensorContents, ModelInferRequest, ModelInferResponse};
use super::*;
use crate::{InferRequest, InferResponse, Parameter, RequestedOutput, Tensor, TensorData};

fn data() -> impl Strategy<Value = TensorData> {
    const MOST: usize = 6;
    prop_oneof![
        vec(any::<bool>(), 0..MOST).prop_map(TensorData::Bool),
        vec(any::<u8>(), 0..MOST).prop_map(TensorData::Uint8),
        vec(any::<u16>(), 0..MOST).prop_map(TensorData::Uint16),
        vec(any::<u32>(), 0..MOST).prop_map(TensorData::Uint32),
        vec(any::<u64>(), 0..MOST).prop_map(TensorData::Uint64),
        vec(any::<i8>(), 0..MOST).prop_map(TensorData::Int8),
        vec(any::<i16>(), 0..MOST).prop_map(TensorData::Int16),
        vec(any::<i32>(), 0..MOST).prop_map(TensorData::Int32),
        vec(any::<i64>(), 0..MOST).prop_map(TensorData::Int64),
        vec(any::<i16>().prop_map(|x| f16::from_f32(x.into())), 0..MOST).prop_map(TensorData::Fp16),
        vec(any::<i16>().prop_map(|x| bf16::from_f32(x.into())), 0..MOST).prop_map(TensorData::Bf16),
        vec(any::<f32>(), 0..MOST).prop_map(TensorData::Fp32),
        vec(any::<f64>(), 0..MOST).prop_map(TensorData::Fp64),
        vec(vec(any::<u8>(), 0..5), 0..MOST).prop_map(TensorData::Bytes),
    ]
}

fn tensors() -> impl Strategy<Value = Vec<Tensor>> {
    btree_map("[a-z]{1,4}", data(), 0..4).prop_map(|tensors| {
        let tensor = |(name, data): (String, TensorData)| Tensor { name, shape: vec![1, data.len()], data };
        tensors.into_iter().map(tensor).collect()
    })
}

fn parameters() -> impl Strategy<Value = crate::Parameters> {
    let parameter = prop_oneof![
        any::<bool>().prop_map(Parameter::Bool),
        any::<i64>().prop_map(Parameter::Int),
        any::<u64>().prop_map(Parameter::Uint),
        (-1e9..1e9).prop_map(Parameter::Float),
        ".{0,5}".prop_map(Parameter::String),
    ];
    btree_map("[a-z]{1,4}", parameter, 0..3)
}

prop_compose! {
    fn request()(
        id in proptest::option::of("[a-z]{1,4}"),
        parameters in parameters(),
        inputs in tensors(),
        outputs in vec(("[a-z]{1,4}", parameters()), 0..3),
    ) -> InferRequest {
        let outputs = outputs.into_iter().map(|(name, parameters)| RequestedOutput { name, parameters }).collect();
        InferRequest { id, parameters, inputs, outputs }
    }
}

prop_compose! {
    fn response()(
        model_version in proptest::option::of("[0-9]{1,4}"),
        id in proptest::option::of("[a-z]{1,4}"),
        parameters in parameters(),
        outputs in tensors(),
    ) -> InferResponse {
        InferResponse { model_name: "m".into(), model_version, id, parameters, outputs }
    }
}

/// A field that a message may have or lack.
fn any_contents() -> impl Strategy<Value = InferTensorContents> {
    (vec(any::<i32>(), 0..3), vec(any::<u32>(), 0..3), vec(any::<f32>(), 0..3), vec(vec(any::<u8>(), 0..3), 0..2))
        .prop_map(|(int_contents, uint_contents, fp32_contents, bytes)| InferTensorContents {
            int_contents,
            uint_contents,
            fp32_contents,
            bytes_contents: bytes.into_iter().map(Into::into).collect(),
            ..InferTensorContents::default()
        })
}

prop_compose! {
    fn any_input()(
        name in "[ab]",
        datatype in prop_oneof![
            Just("FP32"), Just("INT8"), Just("UINT16"), Just("BYTES"), Just("FP16"), Just("BOOL"), Just("FP99"), Just(""),
        ],
        shape in vec(prop_oneof![-1..4_i64, any::<i64>()], 0..3),
        contents in proptest::option::of(any_contents()),
    ) -> InferInputTensor {
        InferInputTensor { name, datatype: datatype.into(), shape, contents, ..InferInputTensor::default() }
    }
}

proptest! {
    #[test]
    fn a_request_comes_back_as_it_was(request in request(), raw: bool) {
        let message = write_request(request.clone(), "m", Some("2"), raw);
        let message = ModelInferRequest::decode(&*message.encode_to_vec()).unwrap();
        prop_assert!(!raw || is_raw(&message) || request.inputs.is_empty());
        prop_assert_eq!((message.model_name.as_str(), message.model_version.as_str()), ("m", "2"));
        prop_assert_eq!(read_request(message).unwrap(), request);
    }

    #[test]
    fn a_response_comes_back_as_it_was(response in response(), raw: bool) {
        let message = write_response(response.clone(), raw);
        let message = ModelInferResponse::decode(&*message.encode_to_vec()).unwrap();
        prop_assert_eq!(read_response(message).unwrap(), response);
    }

    /// What the gateway does with a request on its way to a worker.
    #[test]
    fn a_request_is_the_same_as_bytes_behind_json(request in request()) {
        let encoded = request.to_binary().unwrap();
        let read = InferRequest::decode(&encoded.body, encoded.json_length).unwrap();
        prop_assert_eq!(read.inputs, request.inputs);
        prop_assert_eq!(read.id, request.id);
    }

    #[test]
    fn no_message_is_more_than_wrong(
        inputs in vec(any_input(), 0..3),
        raw in vec(vec(any::<u8>(), 0..9), 0..3),
    ) {
        let raw_input_contents = raw.into_iter().map(Into::into).collect();
        let message = ModelInferRequest { inputs, raw_input_contents, ..ModelInferRequest::default() };
        if let Ok(request) = read_request(message) {
            for input in request.inputs {
                prop_assert!(Tensor::new(input.name, input.shape, input.data).is_ok());
            }
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in vec(any::<u8>(), 0..200)) {
        if let Ok(message) = ModelInferRequest::decode(&*bytes) {
            read_request(message).ok();
        }
    }
}

fn wrong(datatype: &str, shape: &[i64], contents: Option<InferTensorContents>, raw: &[&'static [u8]]) -> String {
    let input = InferInputTensor {
        name: "x".into(),
        datatype: datatype.into(),
        shape: shape.to_vec(),
        contents,
        ..InferInputTensor::default()
    };
    let raw_input_contents = raw.iter().copied().map(Into::into).collect();
    let message = ModelInferRequest { inputs: vec![input], raw_input_contents, ..ModelInferRequest::default() };
    read_request(message).unwrap_err().to_string()
}

#[test]
fn what_is_wrong_is_said() {
    let floats = |values: &[f32]| Some(InferTensorContents { fp32_contents: values.to_vec(), ..Default::default() });
    let ints = |values: &[i32]| Some(InferTensorContents { int_contents: values.to_vec(), ..Default::default() });
    for (said, expected) in [
        (wrong("FP32", &[1, 2], floats(&[1.0]), &[]), "its shape [1, 2] needs 2 elements, but its data has 1"),
        (wrong("FP32", &[2], None, &[]), "its shape [2] needs 2 elements, but its data has 0"),
        (wrong("FP32", &[1], floats(&[1.0]), &[b"abcd"]), "it has typed contents, and there are raw contents too"),
        (wrong("FP32", &[1], None, &[b"abc"]), "its shape [1] of FP32 needs 4 bytes, but its data has 3"),
        (
            wrong("INT32", &[1], floats(&[1.0]), &[]),
            "its contents are in fp32_contents, and those of INT32 belong in int_contents",
        ),
        (
            wrong("INT8", &[2], ints(&[7, 300]), &[]),
            "element 1 of its data must be an integer from -128 to 127, not 300",
        ),
        (wrong("FP16", &[1], floats(&[1.0]), &[]), "FP16 has no typed contents: use raw contents"),
        (wrong("BYTES", &[1], None, &[b"\x05\0\0\0ab"]), "element 0 of its data ends early"),
        (wrong("FP32", &[-1], floats(&[1.0]), &[]), "its shape [-1] must have no negative dimension"),
        (
            wrong("FP99", &[1], floats(&[1.0]), &[]),
            "datatype `FP99` is unknown: use one of the Open Inference Protocol, such as FP32",
        ),
        (wrong("FP32", &[i64::MAX, 2], floats(&[1.0]), &[]), "its shape [9223372036854775807, 2] is too large"),
    ] {
        assert_eq!(said, format!("tensor `x`: {expected}"));
    }
    assert_eq!(
        wrong("FP32", &[1], None, &[b"abcd", b"abcd"]),
        "there are 1 tensors, and 2 raw contents: there must be one for each, or none"
    );
}

#[test]
fn the_generated_code_is_of_the_proto_that_is_here() {
    let digest = sha2::Sha256::digest(include_bytes!("../../proto/open_inference_grpc.proto"));
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let head = include_str!("messages.rs").lines().next().unwrap();
    assert!(head.contains(&digest), "run proto/generate: {head}");
}
