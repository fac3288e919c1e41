//! Models that others made, mirrored between real workers by a real gateway: it counts as different what Python finds to
//! be different offline. The gateway goes by a route table that is there when it starts; no control plane is needed.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use modelyard_core::{
    Backend, Digest, Epoch, Mirror, RevisionNumber, Route, RouteTable, TableVersion, Variant, VariantName, Weight,
    Window,
};
use modelyard_test_support::{binary, eventually};

const REQUESTS: u64 = 100;

/// Ends with the test.
struct Process(Child);

impl Process {
    fn start(command: &mut Command) -> Self {
        Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn variable(name: &str) -> String {
    let hint = "run the tests with `cargo xtask test`, which fetches the models and Python's onnxruntime";
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: {hint}"))
}

fn python(arguments: &[&str]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models/mirrored.py");
    let output = Command::new(variable("MODELYARD_TEST_PYTHON")).arg(script).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A worker that computes with the library that Python does.
async fn worker(model: &Path, version: &str, dir: &Path) -> (Process, SocketAddr) {
    let digest = Digest::of(&std::fs::read(model).unwrap()).to_string();
    let dir = dir.join(version);
    std::fs::create_dir(&dir).unwrap();
    let mut command = Command::new(binary("modelyard-worker"));
    command.args(["serve", "--format", "onnx", "--model-name", "m", "--model-version", version, "--sha256", &digest]);
    command.args(["--threads", "1", "--onnxruntime", &variable("MODELYARD_TEST_ONNXRUNTIME")]);
    let process = Process::start(command.arg("--artifact").arg(model).arg("--instance-dir").arg(&dir));
    let address = eventually("the worker is ready", async || {
        let status: serde_json::Value = serde_json::from_slice(&std::fs::read(dir.join("status.json")).ok()?).ok()?;
        let address: SocketAddr = status["address"].as_str()?.parse().ok()?;
        let ready = reqwest::get(format!("http://{address}/v2/health/ready")).await.ok()?;
        ready.status().is_success().then_some(address)
    });
    (process, address.await)
}

fn table(reference: SocketAddr, candidate: SocketAddr) -> RouteTable {
    let variant = |name: VariantName, number: u64, weight, address| Variant {
        fallback: name == VariantName::stable(),
        name,
        revision: RevisionNumber(number),
        version: number.to_string().parse().unwrap(),
        workload: format!("m-{number:0>10}").parse().unwrap(),
        weight,
        backends: vec![Backend { id: "0".parse().unwrap(), address }],
    };
    let variants = vec![
        variant(VariantName::stable(), 1, Weight::FULL, reference),
        variant(VariantName::canary(), 2, Weight::ZERO, candidate),
    ];
    let window = Window { revision: RevisionNumber(2), step: 1 };
    let mirror = Some(Mirror::new(VariantName::canary(), Weight::FULL));
    let route = Route { window, variants, mirror, ..Route::default() };
    let version = TableVersion { epoch: Epoch(1), sequence: 1 };
    RouteTable { version, deployments: [("m".parse().unwrap(), route)].into() }
}

fn gateway(table: &RouteTable, dir: &Path) -> (Process, String) {
    std::fs::write(dir.join("routes.json"), serde_json::to_vec(table).unwrap()).unwrap();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut command = Command::new(binary("modelyard-gateway"));
    command.args(["--listen", &address.to_string(), "--control-plane", &format!("http://{nobody}"), "--state-dir"]);
    (Process::start(command.arg(dir)), format!("http://{address}"))
}

async fn figure(url: &str, name: &str) -> Option<u64> {
    let metrics = reqwest::get(format!("{url}/metrics")).await.ok()?.text().await.ok()?;
    let start = format!("modelyard_gateway_{name}{{deployment=\"m\",variant=\"canary\",version=\"2\"}} ");
    metrics.lines().find_map(|line| line.strip_prefix(&start)?.parse().ok())
}

/// Mirrors a model to what `scale` makes of it; returns how many requests the gateway found to be answered otherwise.
async fn mirrored(kind: &str, file: &str, scale: &str) -> u64 {
    let dir = tempfile::tempdir().unwrap();
    let reference = PathBuf::from(variable("MODELYARD_TEST_MODELS")).join(file);
    let candidate = dir.path().join("candidate.onnx");
    let (reference_text, candidate_text) = (reference.display().to_string(), candidate.display().to_string());
    python(&["derive", &reference_text, &candidate_text, scale]);
    let (_one, old) = worker(&reference, "1", dir.path()).await;
    let (_two, new) = worker(&candidate, "2", dir.path()).await;
    let (_gateway, url) = gateway(&table(old, new), dir.path());
    eventually("the gateway is ready", async || {
        reqwest::get(format!("{url}/readyz")).await.ok().filter(|answer| answer.status().is_success())
    })
    .await;
    let (deployment, count) = (format!("{url}/v2/models/m"), REQUESTS.to_string());
    let told = python(&["ask", kind, &reference_text, &candidate_text, &deployment, &count]);
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    let compared = async || figure(&url, "mirror_compared_total").await.filter(|compared| *compared == REQUESTS);
    eventually("all are compared", compared).await;
    let found = figure(&url, "mirror_differing_total").await.unwrap();
    assert_eq!(Some(found), told["differing"].as_u64(), "of {kind} with {scale}, the gateway's and Python's");
    assert_eq!((figure(&url, "errors_total").await, figure(&url, "mirror_dropped_total").await), (Some(0), Some(0)));
    found
}

#[tokio::test]
async fn half_precision_of_the_weights_changes_next_to_nothing() {
    let magika = mirrored("magika", "magika_standard_v3_3.onnx", "0").await;
    let silero = mirrored("silero", "silero_vad_16k_op15.onnx", "0").await;
    assert!(magika <= 2 && silero <= 2, "{magika} and {silero} of {REQUESTS}");
}

#[tokio::test]
async fn weights_that_are_off_are_found_out() {
    let magika = mirrored("magika", "magika_standard_v3_3.onnx", "0.3").await;
    let silero = mirrored("silero", "silero_vad_16k_op15.onnx", "0.05").await;
    assert!(magika >= 3 && silero >= 30, "{magika} and {silero} of {REQUESTS}");
}
