//! The Open Inference Protocol over gRPC, as a translation: each call becomes a request of the protocol's REST form,
//! with tensors as bytes behind the JSON, and the answer to that becomes the call's. So whoever serves REST serves gRPC
//! by the same rules: what is routed, counted, tried again or refused is so for both, by construction.
//!
//! Beside the protocol's own service: `ModelStreamInfer` as Triton has it, `grpc.health.v1` and reflection. There is no
//! listener here and no connection: a server hands in requests of HTTP/2. Futures are `Send` where the server's are.

mod calls;
mod deadline;
mod door;
mod health;
mod status;

pub use door::Door;

/// Who answers requests of the REST form.
pub trait Rest: Clone + 'static {
    /// Answers one, whole.
    fn ask(&self, request: http::Request<bytes::Bytes>) -> impl Future<Output = http::Response<bytes::Bytes>>;
}
