//! Wire forms of the inference protocols, shared by worker and gateway.
//!
//! Open Inference Protocol v2 over REST with JSON tensors: paths, requests, responses, metadata, errors. Pure values
//! and codecs: no sockets, no HTTP types, no async. What a model means is the engine's business, not this crate's.

mod infer;
mod json;
mod metadata;
mod path;
mod tensor;

pub use infer::{DecodeError, EncodeError, InferRequest, InferResponse, Parameter, Parameters, RequestedOutput};
pub use metadata::{ErrorBody, Live, ModelMetadata, ModelReady, Ready, ServerMetadata};
pub use path::{ModelAction, V2Path, parse_path};
pub use tensor::{Tensor, TensorData, TensorError};
