//! Models that others made, in use today, through gateway and worker: their outputs agree with Python's onnxruntime.
//!
//! silero-vad in two versions and magika, with both engines. The tolerance is absolute: 1e-4 for rten (the recurrent
//! state of silero differs by 1e-5), 1e-6 for ONNX Runtime (the same library as Python's).

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use modelyard_api::types::{Bundle, BundleFile};
use modelyard_core::state::{Outcome, Phase};
use modelyard_core::{Digest, RevisionNumber};
use modelyard_test_support::{Options, Stack, eventually, eventually_within};

const RTEN_TOLERANCE: &str = "1e-4";
const ONNXRUNTIME_TOLERANCE: &str = "1e-6";

fn variable(name: &str) -> PathBuf {
    let hint = "run the tests with `cargo xtask test`, which fetches the models and Python's onnxruntime";
    std::env::var_os(name).map(PathBuf::from).unwrap_or_else(|| panic!("{name} is not set: {hint}"))
}

/// Registers a model file as a version, and has it roll out under the model's name.
async fn apply(stack: &Stack, model: &str, version: &str, path: &Path, strategy: &str) -> RevisionNumber {
    let file = path.file_name().unwrap().to_str().unwrap();
    let digest = Digest::of(&std::fs::read(path).unwrap());
    stack.client.upload(path, &digest, |_| {}).await.unwrap();
    let text = format!(
        "apiVersion: modelyard.dev/v1\nkind: Model\nmetadata: {{name: {model}}}\n---\n\
         apiVersion: modelyard.dev/v1\nkind: ModelVersion\nmetadata: {{name: {model}-{version}}}\n\
         spec: {{model: {model}, version: \"{version}\", format: onnx, artifact: {{uri: {file}}}}}\n---\n\
         apiVersion: modelyard.dev/v1\nkind: ModelDeployment\nmetadata: {{name: {model}}}\n\
         spec: {{model: {model}, version: \"{version}\", allowSchemaChange: true, strategy: {strategy}}}\n"
    );
    let file = BundleFile { name: "models.yaml".into(), text, artifacts: [(file.to_owned(), digest)].into() };
    let applied =
        stack.client.apply(&Bundle { files: vec![file] }, false, None).await.unwrap_or_else(|e| panic!("{e:?}"));
    applied.documents.iter().find_map(|d| d.revision).unwrap()
}

async fn deploy(stack: &Stack, model: &str, version: &str, file: &str) {
    let path = variable("MODELYARD_TEST_MODELS").join(file);
    let revision = apply(stack, model, version, &path, "{rolling: {}}").await;
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

/// A canary that begins as a shadow: the version is compared before it answers anybody.
const SHADOWED: &str = "{canary: {shadow: {share: 100, hold: 1s}, steps: [{weight: 1, hold: 1h}], analysis: \
                        {minRequests: 20, warmup: 0, maxDisagreement: 0.01}}}";

/// What the gateway counted of a version: requests in all, and those of them that were mirrored to it.
async fn asked(stack: &Stack, model: &str) -> (u64, u64) {
    let metrics = reqwest::get(format!("{}/metrics", stack.gateway_url())).await.unwrap().text().await.unwrap();
    let sum = |name: &str| -> u64 {
        let of = |line: &&str| {
            line.starts_with(name) && line.contains(&format!("\"{model}\"")) && line.contains("version=\"2\"")
        };
        metrics.lines().filter(of).filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum()
    };
    (sum("modelyard_gateway_requests_total{"), sum("modelyard_gateway_mirrored_total{"))
}

/// A model that runs, is as fast, fails at nothing, and answers otherwise: noise on its weights, or its first output negated.
async fn is_caught(stack: &Stack, kind: &str, file: &str, noise: Option<&str>) {
    let model = &format!("{kind}-{}", if noise.is_some() { "noisy" } else { "negated" });
    deploy(stack, model, "1", file).await;
    let reference = variable("MODELYARD_TEST_MODELS").join(file);
    let candidate = stack.state_dir().join(format!("{model}-off.onnx"));
    let python = |arguments: Vec<String>| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models/mirrored.py");
        let mut command = Command::new(variable("MODELYARD_TEST_PYTHON"));
        command.arg(script).args(arguments);
        async move {
            let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
    };
    let texts = [&reference, &candidate].map(|path| path.display().to_string());
    let verb = if noise.is_some() { "derive" } else { "negate" };
    python([vec![verb.into()], texts.to_vec(), noise.into_iter().map(Into::into).collect()].concat()).await;
    let revision = apply(stack, model, "2", &candidate, SHADOWED).await;
    let url = format!("{}/v2/models/{model}", stack.gateway_url());
    let name = model.parse().unwrap();
    let outcome = async {
        eventually_within(Duration::from_secs(120), "it is taken back", async || {
            let outcome = stack.client.revision(&name, revision).await.ok()?.outcome;
            matches!(outcome, Outcome::RolledBack { .. }).then(|| outcome.to_string())
        })
        .await
    };
    let load = async {
        loop {
            python([vec!["ask".into(), kind.into()], texts.to_vec(), vec![url.clone(), "50".into()]].concat()).await;
        }
    };
    let outcome = tokio::select! {
        outcome = outcome => outcome,
        () = load => unreachable!("it goes on"),
    };
    assert!(outcome.contains("maxDisagreement"), "{outcome}");
    let (asked, mirrored) = asked(stack, model).await;
    // What fails beyond doubt need not wait for the least number of requests.
    assert!(mirrored > 0);
    assert_eq!(asked, mirrored, "nobody but the shadow's copies asked version 2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_is_off_is_taken_back_before_it_answers_anybody() {
    let library = variable("MODELYARD_TEST_ONNXRUNTIME").display().to_string();
    let environment = vec![("MODELYARD_ONNXRUNTIME".into(), library)];
    let stack = Stack::start_with(Options { environment, ..Options::default() }).await;
    for (kind, file, noise) in
        [("silero", "silero_vad_16k_op15.onnx", "0.05"), ("magika", "magika_standard_v3_3.onnx", "1.0")]
    {
        is_caught(&stack, kind, file, Some(noise)).await;
        is_caught(&stack, kind, file, None).await;
    }
}
