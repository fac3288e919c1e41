//! The gateway as a process, between a control plane and backends whose answers are scripted here, byte by byte.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod experiments;
mod grpc;
mod serving;
mod support;
mod v1;
