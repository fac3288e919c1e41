//! Wire forms of the inference protocols, shared by worker and gateway.
//!
//! Open Inference Protocol v2 over REST, with tensors as JSON or as bytes (the binary tensor extension): paths, requests,
//! responses, metadata, errors; and its messages over gRPC. Pure values and codecs: no sockets, no HTTP types, no async.
//! What a model means is the engine's business, not this crate's.

pub mod binary;
mod deadline;
mod framing;
pub mod grpc;
mod infer;
mod json;
mod metadata;
mod path;
mod rows;
mod tensor;

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
pub use path::{ModelAction, RepositoryAction, V2Path, parse_path, parse_repository_path};
pub use tensor::{Tensor, TensorData, TensorError};
