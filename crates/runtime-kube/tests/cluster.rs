//! The runtime on a real cluster, pods and all. `cargo xtask test` brings one up; `--fast` leaves this out.

mod support;

use support::Kube;

modelyard_runtime::conformance_suite!(Kube);
