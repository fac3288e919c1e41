//! Requests and responses as messages of gRPC, and as bytes of them: what is written is read, both ways.

use half::{bf16, f16};
use modelyard_protocol::grpc::messages::{ModelInferRequest, ModelInferResponse};
use modelyard_protocol::grpc::{is_raw, read_request, read_response, write_request, write_response};
use modelyard_protocol::{InferRequest, InferResponse, Parameter, Parameters, RequestedOutput, Tensor, TensorData};
use proptest::prelude::*;
use prost::Message;

/// Tensors of every datatype. Floats that are made of whole numbers: NaN equals nothing.
fn data(count: usize) -> impl Strategy<Value = TensorData> {
    use prop::collection::vec;
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
        vec(any::<i8>().prop_map(|x| f16::from_f32(x.into())), count).prop_map(TensorData::Fp16),
        vec(any::<f32>().prop_filter("a number", |x| !x.is_nan()), count).prop_map(TensorData::Fp32),
        vec(any::<f64>().prop_filter("a number", |x| !x.is_nan()), count).prop_map(TensorData::Fp64),
        vec(any::<i8>().prop_map(|x| bf16::from_f32(x.into())), count).prop_map(TensorData::Bf16),
        vec(vec(any::<u8>(), 0..9), count).prop_map(TensorData::Bytes),
    ]
}

fn tensors() -> impl Strategy<Value = Vec<Tensor>> {
    let tensor = prop::collection::vec(0_usize..4, 0..4).prop_flat_map(|shape| {
        let count = shape.iter().product();
        data(count).prop_map(move |data| Tensor { name: String::new(), shape: shape.clone(), data })
    });
    prop::collection::vec(tensor, 0..4).prop_map(|mut tensors| {
        tensors.iter_mut().enumerate().for_each(|(place, tensor)| tensor.name = format!("t{place}"));
        tensors
    })
}

fn parameters() -> impl Strategy<Value = Parameters> {
    let parameter = prop_oneof![
        any::<bool>().prop_map(Parameter::Bool),
        any::<i64>().prop_map(Parameter::Int),
        any::<u64>().prop_map(Parameter::Uint),
        any::<f64>().prop_filter("a finite number", |x| x.is_finite()).prop_map(Parameter::Float),
        any::<String>().prop_map(Parameter::String),
    ];
    prop::collection::btree_map("[a-z_]{0,8}", parameter, 0..4)
}

/// What is empty is left out of messages.
fn said() -> impl Strategy<Value = Option<String>> {
    prop::option::of("[a-z0-9]{1,8}")
}

proptest! {
    #[test]
    fn requests_survive_as_messages(
        id in said(), parameters in parameters(), inputs in tensors(), version in said(), raw: bool,
        outputs in prop::collection::vec(("[a-z]{0,4}", self::parameters()), 0..3),
    ) {
        let outputs = outputs.into_iter().map(|(name, parameters)| RequestedOutput { name, parameters }).collect();
        let request = InferRequest { id, parameters, inputs, outputs };
        let message = write_request(request.clone(), "m", version.as_deref(), raw);
        let has_no_type = |t: &Tensor| matches!(t.data, TensorData::Fp16(_) | TensorData::Bf16(_));
        let must_be_raw = raw || request.inputs.iter().any(has_no_type);
        prop_assert_eq!(is_raw(&message), must_be_raw && !request.inputs.is_empty());
        let read = ModelInferRequest::decode(message.encode_to_vec().as_slice()).unwrap();
        prop_assert_eq!(&read, &message);
        prop_assert_eq!((read.model_name.as_str(), read.model_version.as_str()), ("m", version.as_deref().unwrap_or("")));
        prop_assert_eq!(read_request(read).unwrap(), request);
    }

    #[test]
    fn responses_survive_as_messages(
        model_version in said(), id in said(), parameters in parameters(), outputs in tensors(), raw: bool,
    ) {
        let response = InferResponse { model_name: "m".into(), model_version, id, parameters, outputs };
        let message = write_response(response.clone(), raw);
        let read = ModelInferResponse::decode(message.encode_to_vec().as_slice()).unwrap();
        prop_assert_eq!(read_response(read).unwrap(), response);
    }

    /// A gateway that speaks gRPC to clients, and HTTP to workers, must not change what goes through it.
    #[test]
    fn what_comes_as_a_message_and_goes_on_as_bytes_is_the_same(inputs in tensors(), parameters in parameters()) {
        let request = InferRequest { id: None, parameters, inputs, outputs: Vec::new() };
        let encoded = read_request(write_request(request.clone(), "m", None, false)).unwrap().to_binary().unwrap();
        let mut read = InferRequest::decode(&encoded.body, encoded.json_length).unwrap();
        // JSON does not say of which kind a whole number is.
        for (name, parameter) in &request.parameters {
            if let (Parameter::Uint(wanted), Some(Parameter::Int(found))) = (parameter, read.parameters.get(name)) {
                prop_assert_eq!(u64::try_from(*found).ok(), Some(*wanted));
                read.parameters.insert(name.clone(), Parameter::Uint(*wanted));
            }
        }
        prop_assert_eq!(read, request);
    }
}

/// JSON has none, and in JSON it goes on to the worker.
#[test]
fn a_parameter_that_is_no_finite_number_is_refused() {
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let parameters = Parameters::from([("threshold".into(), Parameter::Float(value))]);
        let request = InferRequest { parameters, ..InferRequest::default() };
        let error = read_request(write_request(request, "m", None, false)).unwrap_err();
        assert_eq!(error.to_string(), "parameter `threshold` is not a finite number");
    }
}
