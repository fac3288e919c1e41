//! Tensors as bytes: what is written is read, and nothing that a sender can say makes a reader fail otherwise than by an
//! error.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use half::{bf16, f16};
use modelyard_core::{Datatype, TensorSpec};
use modelyard_protocol::{InferRequest, InferResponse, Parameters, Tensor, TensorData, binary};
use proptest::prelude::*;

fn data() -> impl Strategy<Value = TensorData> {
    let length = 0..20_usize;
    macro_rules! of {
        ($kind:ident, $t:ty) => {
            prop::collection::vec(any::<$t>(), length.clone()).prop_map(TensorData::$kind).boxed()
        };
    }
    prop_oneof![
        of!(Bool, bool),
        of!(Uint8, u8),
        of!(Uint16, u16),
        of!(Uint32, u32),
        of!(Uint64, u64),
        of!(Int8, i8),
        of!(Int16, i16),
        of!(Int32, i32),
        of!(Int64, i64),
        prop::collection::vec(any::<i8>(), length.clone())
            .prop_map(|v| TensorData::Fp16(v.into_iter().map(|x| f16::from_f32(x.into())).collect())),
        prop::collection::vec(any::<i8>(), length.clone())
            .prop_map(|v| TensorData::Bf16(v.into_iter().map(|x| bf16::from_f32(x.into())).collect())),
        of!(Fp32, f32),
        of!(Fp64, f64),
        prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), length).prop_map(TensorData::Bytes),
    ]
}

fn response() -> impl Strategy<Value = InferResponse> {
    prop::collection::vec(data(), 0..5).prop_map(|all| InferResponse {
        model_name: "m".into(),
        model_version: Some("1".into()),
        id: None,
        parameters: Parameters::new(),
        outputs: all
            .into_iter()
            .enumerate()
            .map(|(i, data)| Tensor::new(format!("out{i}"), vec![data.len()], data).unwrap())
            .collect(),
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read(response in response()) {
        let encoded = response.encode(|_| true).unwrap();
        prop_assert_eq!(encoded.json_length.is_some(), !response.outputs.is_empty());
        let read = InferResponse::decode(&encoded.body, encoded.json_length).unwrap();
        prop_assert_eq!(&read, &response);
        let size: usize = response.outputs.iter().map(|tensor| binary::byte_len(&tensor.data)).sum();
        prop_assert_eq!(encoded.body.len(), encoded.json_length.unwrap_or(encoded.body.len()) + size);
    }

    #[test]
    fn a_message_of_both_forms_is_read(response in response()) {
        let has_form = |t: &Tensor| !matches!(t.data, TensorData::Fp16(_) | TensorData::Bf16(_) | TensorData::Bytes(_));
        let even = |name: &str| name.ends_with(['0', '2', '4']);
        prop_assume!(response.outputs.iter().all(|t| has_form(t) || even(&t.name)));
        let encoded = response.encode(even).unwrap();
        prop_assert_eq!(InferResponse::decode(&encoded.body, encoded.json_length).unwrap(), response);
    }

    #[test]
    fn no_body_makes_a_reader_panic(response in response(), at in any::<prop::sample::Index>(), byte: u8, length in 0..2000_usize) {
        let encoded = response.encode(|_| true).unwrap();
        let mut body = encoded.body.clone();
        if !body.is_empty() {
            let at = at.index(body.len());
            body[at] = byte;
        }
        let _ = InferResponse::decode(&body, encoded.json_length);
        let _ = InferResponse::decode(&encoded.body, Some(length));
        let _ = InferRequest::decode(&body, Some(length));
    }
}

fn request(json: &str, behind: &[u8]) -> Result<InferRequest, String> {
    let body = [json.as_bytes(), behind].concat();
    InferRequest::decode(&body, Some(json.len())).map_err(|error| error.to_string())
}

fn input(shape: &str, size: usize) -> String {
    format!(
        r#"{{"inputs":[{{"name":"x","datatype":"FP32","shape":{shape},"parameters":{{"binary_data_size":{size}}}}}]}}"#
    )
}

#[test]
fn what_does_not_fit_is_refused_in_words() {
    let two = [3_f32, 4.0].map(f32::to_le_bytes).concat();
    assert_eq!(request(&input("[1,2]", 8), &two).unwrap().inputs[0].data, TensorData::Fp32(vec![3.0, 4.0]));
    for (json, behind, words) in [
        (input("[1,2]", 8), &two[..7], "tensor `x`: its binary data needs 8 bytes, and the body has 7 left for it"),
        (input("[1,2]", 4), &two[..4], "tensor `x`: its shape [1, 2] of FP32 needs 8 bytes, but its data has 4"),
        (input("[1,1]", 4), &two[..], "the body has 4 bytes more than its tensors"),
        (
            input("[1,2]", 8).replace("8}", "\"8\"}"),
            &two[..],
            "tensor `x`: its `binary_data_size` must be a number of bytes",
        ),
        (
            input("[1,2]", 8).replace("}]}", ",\"data\":[3,4]}]}"),
            &two[..],
            "tensor `x`: it has both `data` and `binary_data_size`",
        ),
        (input("[4611686018427387904,4]", 8), &two[..], "tensor `x`: its shape [4611686018427387904, 4] is too large"),
        (
            input("[1]", 8).replace("FP32", "BYTES"),
            &[1, 0, 0, 0, b'a', 9, 0, 0][..],
            "tensor `x`: its data has 3 bytes more than its elements",
        ),
        (
            input("[2]", 8).replace("FP32", "BYTES"),
            &[1, 0, 0, 0, b'a', 9, 0, 0][..],
            "tensor `x`: element 1 of its data ends early",
        ),
    ] {
        assert_eq!(request(&json, behind).unwrap_err(), words);
    }
    let classes = r#"{"inputs":[],"outputs":[{"name":"y","parameters":{"classification":3}}]}"#;
    assert_eq!(
        request(classes, &[]).unwrap_err(),
        "output `y`: the parameter `classification` is not supported; leave it out"
    );
    let error = InferRequest::decode(b"{}", Some(3)).unwrap_err().to_string();
    assert_eq!(error, "Inference-Header-Content-Length is 3, and the body has 2 bytes");
}

#[test]
fn outputs_are_bytes_where_asked_for_and_otherwise_json() {
    let asked = |request: &str| {
        let request = InferRequest::from_json(request.as_bytes()).unwrap();
        (request.wants_binary("a"), request.wants_binary("b"))
    };
    assert_eq!(asked(r#"{"inputs":[]}"#), (false, false));
    assert_eq!(asked(r#"{"inputs":[],"parameters":{"binary_data_output":true}}"#), (true, true));
    let one = r#"{"inputs":[],"parameters":{"binary_data_output":true},"outputs":[{"name":"a","parameters":{"binary_data":false}},{"name":"b"}]}"#;
    assert_eq!(asked(one), (false, true));
}

#[test]
fn a_raw_body_is_a_batch_of_one_whose_length_tells_the_rest() {
    let spec = |datatype, shape: &[i64]| TensorSpec { name: "x".into(), datatype, shape: shape.to_vec() };
    let shape = |bytes: usize, datatype, of: &[i64]| {
        binary::raw_input(&vec![0; bytes], &[spec(datatype, of)]).map(|t| t.shape).map_err(|e| e.to_string())
    };
    assert_eq!(shape(8, Datatype::Fp32, &[-1, 2]), Ok(vec![1, 2]));
    assert_eq!(shape(40, Datatype::Fp32, &[-1, -1]), Ok(vec![1, 10]));
    assert_eq!(shape(40, Datatype::Fp32, &[-1]), Ok(vec![10]));
    assert_eq!(shape(5, Datatype::Bytes, &[-1]), Ok(vec![1]));
    assert!(shape(7, Datatype::Fp32, &[-1, 2]).unwrap_err().contains("needs 8 bytes"));
    assert!(shape(7, Datatype::Fp32, &[-1, -1, -1]).unwrap_err().contains("one free dimension"));
    let two = [spec(Datatype::Fp32, &[1]), spec(Datatype::Fp32, &[1])];
    assert!(binary::raw_input(&[], &two).unwrap_err().to_string().contains("has 2"));
}
