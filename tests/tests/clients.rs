//! The clients that users run, unmodified, ask the gateway in the middle of a canary, and a worker alone.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use modelyard_core::Digest;
use modelyard_test_support::{Options, Stack, binary, eventually, manifest, model_file};

/// Where something is asked, as whom.
#[derive(Debug, Clone)]
struct Served {
    address: String,
    grpc_address: String,
    name: &'static str,
}

impl Served {
    /// By a script of `models/`, whose Python `variable` names.
    fn is_asked_by(&self, script: &str, variable: &str) {
        let python = std::env::var_os(variable).unwrap_or_else(|| panic!("{variable} is set by `cargo xtask test`"));
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models").join(script);
        let arguments = [&self.address, &self.grpc_address, self.name];
        let output = Command::new(python).arg(script).args(arguments).env("NO_PROXY", "*").output().unwrap();
        let (told, complaint) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{self:?}: {told} {complaint}");
    }

    async fn asked_by_all(self) {
        let asking = move || {
            self.is_asked_by("clients.py", "MODELYARD_TEST_PYTHON");
            self.is_asked_by("kserve_client.py", "MODELYARD_TEST_KSERVE_PYTHON");
            self.is_asked_by("mlserver_client.py", "MODELYARD_TEST_MLSERVER_PYTHON");
        };
        tokio::task::spawn_blocking(asking).await.unwrap();
    }

    /// By curl: its arguments, and its path last. Gives the status and the answer.
    fn is_asked_by_curl(&self, arguments: &[&str], path: &str) -> (u16, String) {
        let url = format!("http://{}{path}", self.address);
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--noproxy", "*", "--write-out", "\n%{http_code}"]).args(arguments).arg(url);
        let output = curl.output().expect("curl is installed");
        let told = String::from_utf8(output.stdout).unwrap();
        let (answer, status) = told.rsplit_once('\n').unwrap();
        (status.parse().unwrap(), answer.to_owned())
    }

    /// TF Serving's and TorchServe's published examples, of half_plus_two.
    fn answers_published_examples(&self) {
        let Self { name, .. } = self;
        let ask = |arguments: &[&str], path: &str| {
            let (status, answer) = self.is_asked_by_curl(arguments, path);
            assert_eq!(status, 200, "{path}: {answer}");
            answer
        };
        let instances = r#"{"instances": [1.0, 2.0, 5.0]}"#;
        let predict = format!("/v1/models/{name}:predict");
        assert_eq!(ask(&["-d", instances, "-X", "POST"], &predict), r#"{"predictions":[2.5,3.0,4.5]}"#);
        let examples = r#"{"signature_name": "serving_default", "examples": [{"x": 1.0}, {"x": 2.0}]}"#;
        let regress = format!("/v1/models/{name}:regress");
        assert_eq!(ask(&["-d", examples, "-X", "POST"], &regress), r#"{"results":[2.5,3.0]}"#);
        let pinned = format!("/v1/models/{name}/versions/1:predict");
        assert_eq!(ask(&["-d", r#"{"inputs": [NaN]}"#], &pinned), r#"{"outputs":[NaN]}"#);
        assert!(ask(&[], &format!("/v1/models/{name}")).contains(r#""version":"1","state":"AVAILABLE""#));
        assert!(ask(&[], &format!("/v1/models/{name}/metadata")).contains(r#""dtype":"DT_FLOAT""#));

        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("input.json");
        std::fs::write(&file, "1.0").unwrap();
        let file = file.display().to_string();
        let predictions = format!("/predictions/{name}");
        assert_eq!(ask(&["-T", &file], &predictions), "2.5");
        let data = format!("data=@{file}");
        assert_eq!(ask(&["-F", &data], &predictions), "2.5");
        assert_eq!(ask(&["-F", &data, "-F", &data], &format!("{predictions}/1")), "[2.5,2.5]");
        assert_eq!(ask(&[], "/ping"), r#"{"status":"Healthy"}"#);
        let (status, error) = self.is_asked_by_curl(&["-T", &file], "/predictions/nobody");
        assert_eq!((status, error.contains(r#""type":"ModelNotFoundException""#)), (404, true));
    }
}

/// A worker without a control plane.
struct Alone {
    process: Child,
    served: Served,
    _dir: tempfile::TempDir,
}

impl Alone {
    async fn start(artifact: &str, name: &'static str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = model_file(artifact);
        let digest = Digest::of(&std::fs::read(&path).unwrap()).to_string();
        let mut command = Command::new(binary("modelyard-worker"));
        command.args(["serve", "--model-name", name, "--model-version", "1", "--format", "onnx", "--sha256", &digest]);
        command.args(["--listen", "127.0.0.1:0", "--grpc-listen", "127.0.0.1:0"]);
        command.arg("--instance-dir").arg(dir.path()).arg("--artifact").arg(path);
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let status = dir.path().join("status.json");
        let status = eventually("the worker listens", async || {
            serde_json::from_slice::<serde_json::Value>(&std::fs::read(&status).ok()?).ok()
        });
        let status = status.await;
        let address = |field: &str| status[field].as_str().unwrap().to_owned();
        let served = Served { address: address("address"), grpc_address: address("grpcAddress"), name };
        let alone = Self { process, served, _dir: dir };
        let url = format!("http://{}/v2/health/ready", alone.served.address);
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        eventually("the worker is ready", async || {
            client.get(&url).send().await.ok().filter(|answer| answer.status().is_success())
        })
        .await;
        alone
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// A stack whose gateway serves gRPC too.
async fn stack() -> (Stack, String) {
    let grpc_address: SocketAddr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let gateway = vec!["--grpc-listen".to_owned(), grpc_address.to_string()];
    (Stack::start_with(Options { gateway, ..Options::default() }).await, grpc_address.to_string())
}

fn address(stack: &Stack) -> String {
    stack.gateway_url().strip_prefix("http://").unwrap().to_owned()
}

/// The versions are alike, so that the answers are, whoever gives them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_are_answered_by_the_gateway_in_the_middle_of_a_canary() {
    let (stack, grpc_address) = stack().await;
    stack.apply_and_wait(&manifest("1", "replicas: 1, strategy: {rolling: {}}")).await;
    let twin = manifest("4", "replicas: 1, strategy: {canary: {steps: [{weight: 50, hold: 1h}]}}");
    stack.apply(&twin.replace("linear-4.onnx", "linear-1.onnx")).await;
    stack.weight("4", 50.0).await;
    Served { address: address(&stack), grpc_address, name: "linear" }.asked_by_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_are_answered_by_a_worker_alone() {
    let worker = Alone::start("linear-1.onnx", "linear").await;
    worker.served.clone().asked_by_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn published_examples_are_answered_by_the_gateway_and_labels_are_aliases() {
    let (stack, grpc_address) = stack().await;
    let text = std::fs::read_to_string(model_file("half-plus-two.yaml")).unwrap();
    stack.apply(&text).await;
    let served = Served { address: address(&stack), grpc_address, name: "half-plus-two" };
    let url = format!("http://{}/v2/models/half-plus-two/ready", served.address);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    eventually("the deployment serves", async || {
        client.get(&url).send().await.ok().filter(|answer| answer.status().is_success())
    })
    .await;
    let asked = served.clone();
    tokio::task::spawn_blocking(move || asked.answers_published_examples()).await.unwrap();

    let labelled = "/v1/models/half-plus-two/labels/stable:predict";
    let ask = |served: Served| move || served.is_asked_by_curl(&["-d", r#"{"instances": [1.0]}"#], labelled);
    let (status, answer) = tokio::task::spawn_blocking(ask(served.clone())).await.unwrap();
    assert_eq!(status, 400, "{answer}");
    let (model, alias) = ("half-plus-two".parse().unwrap(), "stable".parse().unwrap());
    stack.client.move_alias(&model, &alias, "1".parse().unwrap()).await.unwrap();
    // Nothing rolls: the alias comes by a table of its own.
    eventually("the gateway knows the alias", async || {
        let asked = tokio::task::spawn_blocking(ask(served.clone())).await.unwrap();
        (asked == (200, r#"{"predictions":[2.5]}"#.to_owned())).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn published_examples_are_answered_by_a_worker_alone() {
    let worker = Alone::start("half_plus_two.onnx", "half_plus_two").await;
    let served = worker.served.clone();
    tokio::task::spawn_blocking(move || served.answers_published_examples()).await.unwrap();
}
