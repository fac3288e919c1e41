//! The clients that users run, unmodified, ask the gateway in the middle of a canary.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::Command;

use modelyard_test_support::{Stack, manifest};

fn asks(address: &str, name: &str) {
    let python = std::env::var_os("MODELYARD_TEST_PYTHON").expect("MODELYARD_TEST_PYTHON is set by `cargo xtask test`");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models/clients.py");
    let output = Command::new(python).arg(script).args([address, name]).output().unwrap();
    let (told, complaint) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{told} {complaint}");
}

/// The versions are alike, so that the answers are, whoever gives them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tritonclient_is_answered_by_the_gateway_in_the_middle_of_a_canary() {
    let stack = Stack::start().await;
    stack.apply_and_wait(&manifest("1", "replicas: 1, strategy: {rolling: {}}")).await;
    let twin = manifest("4", "replicas: 1, strategy: {canary: {steps: [{weight: 50, hold: 1h}]}}");
    stack.apply(&twin.replace("linear-4.onnx", "linear-1.onnx")).await;
    stack.weight("4", 50.0).await;
    let address = stack.gateway_url().strip_prefix("http://").unwrap().to_owned();
    tokio::task::spawn_blocking(move || asks(&address, "linear")).await.unwrap();
}
