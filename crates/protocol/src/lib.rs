//! Wire forms of the inference protocols, shared by worker and gateway.
//!
//! Open Inference Protocol v2 over REST, with tensors as JSON or as bytes (the binary tensor extension): paths, requests,
//! responses, metadata, errors; and its messages over gRPC. TF Serving's REST form ([`tf_serving`]) and TorchServe's
//! inference form ([`torch_serve`]). Pure values and codecs: no sockets, no HTTP types, no async. What a model means is the
//! engine's business, not this crate's.

mod any_path;
pub mod binary;
mod deadline;
mod framing;
pub mod grpc;
mod infer;
mod json;
mod metadata;
mod nested;
mod path;
mod rows;
mod tensor;
pub mod tf_serving;
pub mod torch_serve;

pub use any_path::{AnyPath, OfModel, Protocol};
pub use deadline::{
    GRPC_TIMEOUT, TIMEOUT, TimeoutError, format_timeout, header_timeout, parameter_timeout, parse_grpc_timeout,
    parse_timeout,
};
pub use framing::{BINARY_EXTENSION, Coding, Framing, FramingError, JSON_LENGTH};
pub use infer::{
    DecodeError, EncodeError, Encoded, InferRequest, InferResponse, Parameter, Parameters, RequestedOutput,
};
pub use metadata::{
    ErrorBody, IndexItem, IndexRequest, Live, LoadRequest, ModelMetadata, ModelReady, Ready, ServerMetadata,
};
pub use nested::NestedError;
pub use path::{ModelAction, RepositoryAction, V2Path, parse_path, parse_repository_path};
pub use tensor::{Tensor, TensorData, TensorError};

/// A header of answers that name no datatypes: name, datatype and shape of each output, as JSON.
pub const OUTPUTS: &str = "x-modelyard-outputs";
