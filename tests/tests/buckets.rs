//! Artifacts in S3 (moto, a server that speaks it) and at http:// addresses: registered from there, kept there, and
//! loaded from there by workers that hold no credentials.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use modelyard_api::ClientError;
use modelyard_core::Digest;
use modelyard_test_support::{Options, Stack, binary, eventually, manifest, model_file};
use reqwest::redirect::Policy;
use reqwest::{Client, StatusCode, header};

const ROLLING: &str = "replicas: 1, strategy: {rolling: {}}";

/// An S3 of a test's own.
struct S3 {
    process: Child,
    address: SocketAddr,
    http: Client,
}

impl S3 {
    /// With the bucket `sources`, which holds the example models, and an empty one, `models`.
    async fn start() -> Self {
        let hint = "run the tests with `cargo xtask test`, which installs moto";
        let python = std::env::var_os("MODELYARD_TEST_PYTHON").unwrap_or_else(|| panic!("no moto: {hint}"));
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let process = Command::new(python)
            .args(["-c", "from moto.server import main; main()", "-H", "127.0.0.1", "-p", &address.port().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let http = Client::builder().no_proxy().redirect(Policy::none()).build().unwrap();
        let s3 = Self { process, address, http };
        eventually("S3 answers", async || s3.http.get(s3.url("")).send().await.ok()).await;
        for bucket in ["sources", "models"] {
            assert!(s3.http.put(s3.url(bucket)).send().await.unwrap().status().is_success());
        }
        for model in ["linear-1.onnx", "linear-2.onnx"] {
            let url = s3.url(&format!("sources/{model}"));
            // So that it can be read by plain HTTP, too.
            let put = s3
                .http
                .put(url)
                .header("x-amz-acl", "public-read")
                .body(std::fs::read(model_file(model)).unwrap())
                .send()
                .await
                .unwrap();
            assert!(put.status().is_success());
        }
        s3
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    /// As an operator sets it.
    fn environment(&self) -> Vec<(String, String)> {
        let endpoint = self.url("");
        let variables = [
            ("AWS_ENDPOINT", endpoint.trim_end_matches('/')),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_ACCESS_KEY_ID", "operator"),
            ("AWS_SECRET_ACCESS_KEY", "very-secret"),
            ("AWS_REGION", "us-east-1"),
        ];
        variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    }

    /// A stack that keeps its artifacts in the bucket `models`.
    async fn stack(&self) -> Stack {
        let mut environment = self.environment();
        environment.push(("MODELYARD_ARTIFACTS".into(), "s3://models/registry".into()));
        Stack::start_with(Options { environment, ..Options::default() }).await
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

fn digest(model: &str) -> Digest {
    Digest::of(&std::fs::read(model_file(model)).unwrap())
}

/// The manifest of a version whose artifact is at `uri`.
fn at(version: &str, uri: &str) -> String {
    manifest(version, ROLLING).replace(&format!("uri: linear-{version}.onnx"), &format!("uri: '{uri}'"))
}

#[tokio::test]
async fn artifacts_are_registered_from_a_bucket_kept_in_a_bucket_and_served_from_it() {
    let s3 = S3::start().await;
    let stack = s3.stack().await;
    stack.apply_and_wait(&at("1", "s3://sources/linear-1.onnx")).await;
    assert_eq!(stack.infer().await, ("1".into(), 3.0));
    // Uploaded, as a person does it.
    stack.apply_and_wait(&manifest("2", ROLLING)).await;
    let listed = s3.http.get(s3.url("models?list-type=2")).send().await.unwrap().text().await.unwrap();
    for model in ["linear-1.onnx", "linear-2.onnx"] {
        let digest = digest(model).to_string();
        let key = format!("<Key>registry/sha256/{}/{digest}</Key>", &digest[..2]);
        assert!(listed.contains(&key), "{key} is not in {listed}");
    }
    assert_eq!(listed.matches("<Key>").count(), 2, "nothing else is left there: {listed}");
}

#[tokio::test]
async fn who_asks_for_it_is_sent_to_the_bucket_by_an_address_that_is_signed() {
    let s3 = S3::start().await;
    let stack = s3.stack().await;
    stack.apply(&at("1", "s3://sources/linear-1.onnx")).await;
    let whole = std::fs::read(model_file("linear-1.onnx")).unwrap();
    let url = format!("{}/api/v1/artifacts/{}", stack.server_url(), digest("linear-1.onnx"));
    let plain = s3.http.get(&url).send().await.unwrap();
    assert_eq!((plain.status(), plain.bytes().await.unwrap().to_vec()), (StatusCode::OK, whole.clone()));

    let sent_on = s3.http.get(format!("{url}?redirect=true")).send().await.unwrap();
    assert_eq!(
        (sent_on.status(), &sent_on.headers()[header::CACHE_CONTROL]),
        (StatusCode::TEMPORARY_REDIRECT, &"no-store".parse().unwrap())
    );
    let location = sent_on.headers()[header::LOCATION].to_str().unwrap();
    assert!(location.starts_with(&s3.url("models/registry/sha256/")), "{location}");
    assert!(location.contains("X-Amz-Signature=") && location.contains("X-Amz-Expires=900"), "{location}");
    assert!(!location.contains("very-secret"));
    let part = s3.http.get(location).header(header::RANGE, "bytes=100-").send().await.unwrap();
    assert_eq!(
        (part.status(), part.bytes().await.unwrap().to_vec()),
        (StatusCode::PARTIAL_CONTENT, whole[100..].to_vec())
    );

    let absent = format!("{}/api/v1/artifacts/{}?redirect=true", stack.server_url(), Digest::of(b"absent"));
    assert_eq!(s3.http.get(absent).send().await.unwrap().status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn what_is_larger_than_one_part_of_an_upload_arrives_whole_whether_or_not_its_digest_is_known_before() {
    let s3 = S3::start().await;
    let stack = s3.stack().await;
    let url = format!("{}/api/v1/artifacts", stack.server_url());
    for (first, announce) in [(1u32, true), (2, false)] {
        let bytes: Vec<u8> = (first..).take(5 << 20).flat_map(u32::to_le_bytes).collect();
        let digest = Digest::of(&bytes);
        let place = if announce { format!("{url}?sha256={digest}") } else { url.clone() };
        assert_eq!(s3.http.put(place).body(bytes).send().await.unwrap().status(), StatusCode::CREATED);
        let sent_on = s3.http.get(format!("{url}/{digest}?redirect=true")).send().await.unwrap();
        let location = sent_on.headers()[header::LOCATION].to_str().unwrap();
        let stored = s3.http.get(location).send().await.unwrap().bytes().await.unwrap();
        assert_eq!(Digest::of(&stored), digest);
    }
    let other = format!("{url}?sha256={}", Digest::of(b"announced"));
    let refused = s3.http.put(other).body("something else").send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let listed = s3.http.get(s3.url("models?list-type=2")).send().await.unwrap().text().await.unwrap();
    assert_eq!(listed.matches("<Key>").count(), 2, "nothing is left of what was refused: {listed}");
}

#[tokio::test]
async fn where_artifacts_lie_in_a_directory_nobody_is_sent_elsewhere() {
    let stack = Stack::start().await;
    stack.apply(&manifest("1", ROLLING)).await;
    let url = format!("{}/api/v1/artifacts/{}?redirect=true", stack.server_url(), digest("linear-1.onnx"));
    let http = Client::builder().no_proxy().redirect(Policy::none()).build().unwrap();
    assert_eq!(http.get(url).send().await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn a_worker_without_credentials_loads_straight_from_the_bucket() {
    let s3 = S3::start().await;
    let stack = s3.stack().await;
    stack.apply(&at("1", "s3://sources/linear-1.onnx")).await;
    let dir = tempfile::tempdir().unwrap();
    let url = format!("{}/api/v1/artifacts/{}?redirect=true", stack.server_url(), digest("linear-1.onnx"));
    let log = run_worker(dir.path(), &url).await;
    let from = format!("downloading the artifact from=\"{}", s3.url("models/registry/"));
    assert!(log.contains(&from), "{log}");
    assert!(!log.contains("Signature"), "what signs an address is not logged: {log}");
}

/// Runs a worker until it is ready. Its log.
async fn run_worker(dir: &Path, url: &str) -> String {
    let log = std::fs::File::create(dir.join("log")).unwrap();
    let mut worker = Command::new(binary("modelyard-worker"))
        .args(["serve", "--model-name", "linear", "--model-version", "1", "--format", "onnx"])
        .args(["--sha256", &digest("linear-1.onnx").to_string(), "--artifact-url", url, "--artifact-cache"])
        .arg(dir.join("cache"))
        .arg("--instance-dir")
        .arg(dir.join("instance"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    let log = || std::fs::read_to_string(dir.join("log")).unwrap();
    let ready = eventually("the worker is ready, or ended", async || {
        let ended = worker.try_wait().unwrap().is_some();
        (ended || log().contains(" ready engine=")).then_some(!ended)
    });
    let ready = ready.await;
    worker.kill().ok();
    worker.wait().ok();
    assert!(ready, "{}", log());
    log()
}

#[tokio::test]
async fn artifacts_are_registered_from_http_and_what_is_not_there_is_said_in_words() {
    let s3 = S3::start().await;
    let stack = Stack::start_with(Options { environment: s3.environment(), ..Options::default() }).await;
    stack.apply_and_wait(&at("1", &s3.url("sources/linear-1.onnx"))).await;
    assert_eq!(stack.infer().await, ("1".into(), 3.0));
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (uri, words) in [
        (s3.url("sources/absent.onnx"), "it answered 404"),
        (format!("http://{nobody}/linear-2.onnx"), "cannot fetch http"),
        ("s3://sources/absent.onnx".into(), "cannot fetch s3://sources/absent.onnx"),
        ("s3://nowhere/linear-2.onnx".into(), "cannot fetch s3://nowhere/linear-2.onnx"),
    ] {
        let ClientError::Refused(problem) = stack.try_apply(&at("2", &uri), false, None).await.unwrap_err() else {
            panic!("{uri}")
        };
        assert_eq!(problem.status, 422, "{problem:?}");
        let error = &problem.errors[0];
        assert!(error.path == "spec.artifact.uri" && error.message.contains(words), "{error}");
    }
}
