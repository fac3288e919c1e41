//! The admin REST API as types, and a client for it. What the control plane serves and the commands speak.
//!
//! Wire forms only: no decisions, no storage, no server.

pub mod client;
pub mod problem;
pub mod tokens;
pub mod types;
mod verify;

pub use client::{Client, ClientError};
pub use problem::ProblemDetails;
pub use verify::VerifyError;
