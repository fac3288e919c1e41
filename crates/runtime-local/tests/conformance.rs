//! The suite of all runtimes, on real worker processes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "shared with the tests of what is particular to this runtime")]
mod support;

modelyard_runtime::conformance_suite!(support::Local);
