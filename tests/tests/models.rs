//! Models that others made, in use today, through gateway and worker: their outputs agree with Python's onnxruntime.
//!
//! silero-vad in two versions and magika, with both engines. The tolerance is absolute: 1e-4 for rten (the recurrent
//! state of silero differs by 1e-5), 1e-6 for ONNX Runtime (the same library as Python's).

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::Command;

use modelyard_api::types::{Bundle, BundleFile};
use modelyard_core::Digest;
use modelyard_core::state::Phase;
use modelyard_test_support::{Options, Stack, eventually};

const RTEN_TOLERANCE: &str = "1e-4";
const ONNXRUNTIME_TOLERANCE: &str = "1e-6";

fn variable(name: &str) -> PathBuf {
    let hint = "run the tests with `cargo xtask test`, which fetches the models and Python's onnxruntime";
    std::env::var_os(name).map(PathBuf::from).unwrap_or_else(|| panic!("{name} is not set: {hint}"))
}

/// Registers a model file as a version, and deploys it under the model's name.
async fn deploy(stack: &Stack, model: &str, version: &str, file: &str) {
    let path = variable("MODELYARD_TEST_MODELS").join(file);
    let digest = Digest::of(&std::fs::read(&path).unwrap());
    stack.client.upload(&path, &digest, |_| {}).await.unwrap();
    let text = format!(
        "apiVersion: modelyard.dev/v1\nkind: Model\nmetadata: {{name: {model}}}\n---\n\
         apiVersion: modelyard.dev/v1\nkind: ModelVersion\nmetadata: {{name: {model}-{version}}}\n\
         spec: {{model: {model}, version: \"{version}\", format: onnx, artifact: {{uri: {file}}}}}\n---\n\
         apiVersion: modelyard.dev/v1\nkind: ModelDeployment\nmetadata: {{name: {model}}}\n\
         spec: {{model: {model}, version: \"{version}\", allowSchemaChange: true, strategy: {{rolling: {{}}}}}}\n"
    );
    let file = BundleFile { name: "models.yaml".into(), text, artifacts: [(file.to_owned(), digest)].into() };
    let applied =
        stack.client.apply(&Bundle { files: vec![file] }, false, None).await.unwrap_or_else(|e| panic!("{e:?}"));
    let revision = applied.documents.iter().find_map(|d| d.revision).unwrap();
    let name = model.parse().unwrap();
    eventually("it serves", async || {
        let deployment = stack.client.deployment(&name).await.ok()?;
        deployment.status.filter(|s| s.observed_revision >= revision && s.phase == Phase::Completed)
    })
    .await;
}

fn agrees(stack: &Stack, kind: &str, deployment: &str, file: &str, tolerance: &str) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models/reference.py");
    let output = Command::new(variable("MODELYARD_TEST_PYTHON"))
        .arg(script)
        .arg(kind)
        .arg(variable("MODELYARD_TEST_MODELS").join(file))
        .arg(format!("{}/v2/models/{deployment}", stack.gateway_url()))
        .arg(tolerance)
        .output()
        .unwrap();
    let (told, complaint) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{file}: {told} {complaint}");
    eprintln!("{file}: largest differences {told}");
}

async fn all_agree(environment: Vec<(String, String)>, tolerance: &str) {
    let stack = Stack::start_with(Options { environment, ..Options::default() }).await;
    deploy(&stack, "silero", "1", "silero_vad_16k_op15.onnx").await;
    agrees(&stack, "silero", "silero", "silero_vad_16k_op15.onnx", tolerance);
    deploy(&stack, "silero", "2", "silero_vad_half.onnx").await;
    agrees(&stack, "silero", "silero", "silero_vad_half.onnx", tolerance);
    agrees(&stack, "silero", "silero/versions/1", "silero_vad_16k_op15.onnx", tolerance);
    deploy(&stack, "magika", "1", "magika_standard_v3_3.onnx").await;
    agrees(&stack, "magika", "magika", "magika_standard_v3_3.onnx", tolerance);
}

#[tokio::test]
async fn real_models_by_rten_agree_with_python() {
    all_agree(Vec::new(), RTEN_TOLERANCE).await;
}

#[tokio::test]
async fn real_models_by_onnx_runtime_agree_with_python() {
    let library = variable("MODELYARD_TEST_ONNXRUNTIME").display().to_string();
    all_agree(vec![("MODELYARD_ONNXRUNTIME".into(), library)], ONNXRUNTIME_TOLERANCE).await;
}
