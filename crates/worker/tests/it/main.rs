//! The worker as others meet it: the binary, its exit codes, its files, its HTTP.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod batching;
mod client;
mod connections;
mod deadlines;
mod drain;
mod engines;
mod fetch;
mod grpc;
mod inspect;
mod optimize;
mod origin;
mod overload;
mod process;
mod repository;
mod serve;
mod v1;
