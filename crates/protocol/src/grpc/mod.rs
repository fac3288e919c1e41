//! The messages of the protocol's gRPC form, and what they mean in the terms of this crate.
//!
//! Calls, metadata and status codes are not here: this is what a call carries.

mod contents;
mod infer;
#[rustfmt::skip]
pub mod messages;
mod metadata;

pub use infer::{MessageError, is_raw, read_request, read_response, write_request, write_response};
pub use metadata::write_metadata;

/// The full name of the service.
pub const SERVICE: &str = "inference.GRPCInferenceService";

/// A `google.protobuf.FileDescriptorSet` of the service, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!("descriptors.bin");

#[cfg(test)]
mod tests;
