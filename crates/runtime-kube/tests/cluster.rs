//! The runtime on a real cluster, pods and all. `cargo xtask test` brings one up; `--fast` leaves this out.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;
mod writes;

use support::Kube;

modelyard_runtime::conformance_suite!(Kube);
