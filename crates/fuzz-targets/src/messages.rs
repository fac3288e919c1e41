//! Requests and responses as messages of gRPC.

use modelyard_protocol::grpc::messages::{ModelInferRequest, ModelInferResponse};
use modelyard_protocol::grpc::{is_raw, read_request, read_response, write_request, write_response};
use modelyard_protocol::{InferRequest, InferResponse, RequestedOutput};
use prost::Message;

use crate::assert_same;
use crate::requests::assert_whole;

/// The bytes of a ModelInferRequest, or of a ModelInferResponse.
pub(crate) fn request(bytes: &[u8]) {
    if let Ok(message) = ModelInferRequest::decode(bytes) {
        let _ = is_raw(&message);
        if let Ok(read) = read_request(message) {
            asked(&read);
        }
    }
    if let Ok(message) = ModelInferResponse::decode(bytes)
        && let Ok(read) = read_response(message)
    {
        answered(&read);
    }
}

fn asked(request: &InferRequest) {
    assert_whole(&request.inputs);
    for raw in [false, true] {
        let bytes = write_request(request.clone(), "m", Some("1"), raw).encode_to_vec();
        let message = ModelInferRequest::decode(bytes.as_slice()).expect("a message that was written");
        assert_eq!((message.model_name.as_str(), message.model_version.as_str()), ("m", "1"));
        assert_same(&read_request(message).expect("what was written is read"), request);
    }
    // As a gateway hands it on. Of which kind a whole number is, JSON does not say.
    let encoded = request.to_binary().expect("a request has a form in JSON");
    if let Ok(again) = InferRequest::decode(&encoded.body, encoded.json_length) {
        assert_same(&again.inputs, &request.inputs);
    } else {
        let unsupported = |o: &RequestedOutput| {
            ["classification", "shared_memory_region"].iter().any(|p| o.parameters.contains_key(*p))
        };
        assert!(request.outputs.iter().any(unsupported), "what was written is not read");
    }
}

fn answered(response: &InferResponse) {
    assert_whole(&response.outputs);
    for raw in [false, true] {
        let bytes = write_response(response.clone(), raw).encode_to_vec();
        let message = ModelInferResponse::decode(bytes.as_slice()).expect("a message that was written");
        assert_same(&read_response(message).expect("what was written is read"), response);
    }
}
