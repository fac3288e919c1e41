//! A stack of real processes: control plane, gateway, workers, on a database of its own.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use modelyard_api::types::{Applied, Bundle, BundleFile, Deployment, Revision};
use modelyard_api::{Client, ClientError};
use modelyard_core::state::{Outcome, Phase};
use modelyard_core::{DeploymentName, Digest, RevisionNumber};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::certificate::TestCertificate;
use crate::database::TestDatabase;

const PATIENCE: Duration = Duration::from_secs(60);

/// Awaits a condition.
///
/// # Panics
/// If it does not hold within a minute.
pub async fn eventually<T>(what: &str, condition: impl AsyncFnMut() -> Option<T>) -> T {
    eventually_within(PATIENCE, what, condition).await
}

/// Awaits a condition that may take longer.
///
/// # Panics
/// If it does not hold within `patience`.
pub async fn eventually_within<T>(patience: Duration, what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(began.elapsed() < patience, "not within {} s: {what}", patience.as_secs());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A program of ours: from `MODELYARD_TEST_BIN_DIR` (`cargo xtask test` sets it), else from the build's own directory.
///
/// # Panics
/// If it has not been built.
pub fn binary(name: &str) -> PathBuf {
    let dir = std::env::var_os("MODELYARD_TEST_BIN_DIR").map_or_else(
        || {
            let test = std::env::current_exe().expect("a path of this program");
            test.parent().and_then(Path::parent).expect("target/PROFILE/deps").to_owned()
        },
        PathBuf::from,
    );
    let path = dir.join(name);
    assert!(
        path.exists(),
        "{} is not built: run `cargo xtask test`, or `cargo build --workspace` first",
        path.display()
    );
    path
}

/// A file of `manifests/examples`.
pub fn model_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests/examples").join(name)
}

/// Model, version and deployment `linear` at a version of the linear model, with `spec` added to the deployment's.
pub fn manifest(version: &str, spec: &str) -> String {
    format!(
        "apiVersion: modelyard.dev/v1\nkind: Model\nmetadata: {{name: linear}}\n---\n\
         apiVersion: modelyard.dev/v1\nkind: ModelVersion\nmetadata: {{name: linear-{version}}}\n\
         spec: {{model: linear, version: \"{version}\", format: onnx, artifact: {{uri: linear-{version}.onnx}}}}\n---\n\
         apiVersion: modelyard.dev/v1\nkind: ModelDeployment\nmetadata: {{name: linear}}\n\
         spec: {{model: linear, version: \"{version}\", {spec}}}\n"
    )
}

/// Applies a manifest whose artifacts lie in `manifests/examples`.
///
/// # Errors
/// If it is refused.
pub async fn apply(
    client: &Client,
    text: &str,
    dry_run: bool,
    if_match: Option<RevisionNumber>,
) -> Result<Applied, ClientError> {
    let dir = model_file("");
    let named =
        std::fs::read_dir(&dir).expect("examples").flatten().map(|e| e.file_name().into_string().expect("a name"));
    let mut artifacts = BTreeMap::new();
    for name in named.filter(|name| text.contains(name.as_str())) {
        let path = dir.join(&name);
        let digest = Digest::of(&std::fs::read(&path).expect("a model"));
        if !dry_run {
            client.upload(&path, &digest, |_| {}).await?;
        }
        artifacts.insert(name, digest);
    }
    let file = BundleFile { name: "test.yaml".into(), text: text.to_owned(), artifacts };
    client.apply(&Bundle { files: vec![file] }, dry_run, if_match).await
}

#[derive(Default)]
pub struct Options {
    /// Instead of a temporary one.
    pub state_dir: Option<PathBuf>,
    /// Instead of a database of the test's own.
    pub database_url: Option<String>,
    pub environment: Vec<(String, String)>,
    /// The control plane listens on all addresses, not only on loopback.
    pub public: bool,
    /// What the client shows.
    pub token: Option<String>,
    /// Control plane and gateway serve TLS with it, and the gateway trusts its CA.
    pub tls: Option<TestCertificate>,
    /// More arguments.
    pub control_plane: Vec<String>,
    pub gateway: Vec<String>,
}

pub struct Stack {
    options: Options,
    state_dir: PathBuf,
    database_url: String,
    listen: SocketAddr,
    gateway: SocketAddr,
    control_plane: Option<Child>,
    gateway_process: Option<Child>,
    pub client: Client,
    scheme: &'static str,
    http: reqwest::Client,
    _database: Option<TestDatabase>,
    _temporary: Option<TempDir>,
}

impl Stack {
    pub async fn start() -> Self {
        Self::start_with(Options::default()).await
    }

    pub async fn start_with(options: Options) -> Self {
        let database = match &options.database_url {
            Some(_) => None,
            None => Some(TestDatabase::create().await),
        };
        let url = options.database_url.clone().or(database.as_ref().map(|d| d.url().to_owned())).expect("a database");
        let temporary = options.state_dir.is_none().then(|| tempfile::tempdir().expect("a directory"));
        let state_dir =
            options.state_dir.clone().or(temporary.as_ref().map(|t| t.path().to_owned())).expect("a directory");
        let (listen, gateway, token) = (free(), free(), options.token.clone());
        let scheme = if options.tls.is_some() { "https" } else { "http" };
        let plain = || reqwest::Client::builder().no_proxy().build().expect("a client");
        let http = options.tls.as_ref().map_or_else(plain, TestCertificate::client);
        let mut stack = Self {
            options,
            state_dir,
            database_url: url,
            listen,
            gateway,
            control_plane: None,
            gateway_process: None,
            client: Client::new(&format!("{scheme}://{listen}"), token, Some("test".into())).with_http(http.clone()),
            scheme,
            http,
            _database: database,
            _temporary: temporary,
        };
        stack.start_control_plane().await;
        stack.start_gateway().await;
        stack
    }

    // ---- processes ---------------------------------------------------------------------------------------------

    pub async fn start_control_plane(&mut self) {
        let host = if self.options.public { "0.0.0.0" } else { "127.0.0.1" };
        self.control_plane = Some(self.spawn(
            "modelyard-control-plane",
            &[
                "serve",
                "--database-url",
                &self.database_url,
                "--listen",
                &format!("{host}:{}", self.listen.port()),
                "--state-dir",
                &self.state_dir.display().to_string(),
                "--worker-binary",
                &binary("modelyard-worker").display().to_string(),
                "--drain-timeout",
                "5",
            ],
            &[&self.options.control_plane[..], &self.tls_arguments()].concat(),
        ));
        eventually("the control plane is ready", async || self.client.ready().await.then_some(())).await;
    }

    pub async fn start_gateway(&mut self) {
        let ca = self.options.tls.as_ref().map(|tls| tls.ca().display().to_string());
        let trust = ca.map_or_else(Vec::new, |ca| vec!["--ca-file".into(), ca]);
        self.gateway_process = Some(self.spawn(
            "modelyard-gateway",
            &[
                "--control-plane",
                &self.server_url(),
                "--listen",
                &self.gateway.to_string(),
                "--state-dir",
                &self.state_dir.join("gateway").display().to_string(),
            ],
            &[&self.options.gateway[..], &self.tls_arguments(), &trust].concat(),
        ));
        let url = format!("{}/v2/health/ready", self.gateway_url());
        eventually("the gateway is ready", async || {
            self.http.get(&url).send().await.ok().filter(|r| r.status().is_success())
        })
        .await;
    }

    fn tls_arguments(&self) -> Vec<String> {
        self.options.tls.as_ref().map(TestCertificate::arguments).unwrap_or_default()
    }

    fn spawn(&self, name: &str, arguments: &[&str], more: &[String]) -> Child {
        let log =
            std::fs::OpenOptions::new().create(true).append(true).open(self.state_dir.join(format!("{name}.log")));
        let log = log.expect("a log");
        let environment = self.options.environment.iter().map(|(k, v)| (k, v));
        let mut command = Command::new(binary(name));
        command
            .args(arguments)
            .args(more)
            .env("NO_PROXY", "127.0.0.1,localhost")
            .envs(environment)
            .stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a log")).stderr(log).spawn().expect("it starts")
    }

    /// `kill -9`
    pub fn kill_control_plane(&mut self) {
        end(&mut self.control_plane, Signal::KILL);
    }

    /// `kill -9`
    pub fn kill_gateway(&mut self) {
        end(&mut self.gateway_process, Signal::KILL);
    }

    pub fn terminate_control_plane(&mut self) {
        end(&mut self.control_plane, Signal::TERM);
    }

    pub fn control_plane_pid(&self) -> u32 {
        self.control_plane.as_ref().expect("it runs").id()
    }

    /// The workers that live, by their replica's directory: told by the process table, not by what anyone believes.
    pub fn workers(&self) -> BTreeMap<String, u32> {
        workers_below(&self.state_dir)
    }

    /// `kill -9` of one worker.
    pub fn kill_worker(&self, pid: u32) {
        signal(pid, Signal::KILL);
    }

    // ---- what people do ----------------------------------------------------------------------------------------

    pub fn server_url(&self) -> String {
        format!("{}://{}", self.scheme, self.listen)
    }

    pub fn gateway_url(&self) -> String {
        format!("{}://{}", self.scheme, self.gateway)
    }

    pub fn certificate(&self) -> &TestCertificate {
        self.options.tls.as_ref().expect("a stack with TLS")
    }

    pub fn database_url(&self) -> &str {
        &self.database_url
    }

    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// Applies a manifest whose artifacts lie in `manifests/examples`.
    pub async fn apply(&self, text: &str) -> Applied {
        self.try_apply(text, false, None).await.unwrap_or_else(|error| panic!("{error:?}"))
    }

    pub async fn try_apply(
        &self,
        text: &str,
        dry_run: bool,
        if_match: Option<RevisionNumber>,
    ) -> Result<Applied, ClientError> {
        apply(&self.client, text, dry_run, if_match).await
    }

    /// Applies, and waits until the revision serves all traffic.
    pub async fn apply_and_wait(&self, text: &str) -> RevisionNumber {
        let applied = self.apply(text).await;
        let revision = applied.documents.iter().find_map(|d| d.revision).expect("a deployment");
        self.completed(revision).await;
        revision
    }

    pub async fn deployment(&self) -> Deployment {
        self.client.deployment(&linear()).await.unwrap_or_else(|error| panic!("{error:?}"))
    }

    /// Waits until `linear` is as wanted.
    pub async fn until(&self, what: &str, wanted: impl Fn(&Deployment) -> bool) -> Deployment {
        eventually(what, async || self.client.deployment(&linear()).await.ok().filter(|d| wanted(d))).await
    }

    pub async fn completed(&self, revision: RevisionNumber) -> Deployment {
        self.until(&format!("revision {revision} is completed"), |d| {
            d.status.as_ref().is_some_and(|s| s.observed_revision >= revision && s.phase == Phase::Completed)
        })
        .await
    }

    /// Waits until version `version` has that share of the traffic, in per cent.
    pub async fn weight(&self, version: &str, percent: f64) -> Deployment {
        self.until(&format!("version {version} has {percent} %"), |d| {
            let variants = d.status.iter().flat_map(|s| &s.variants);
            variants.filter(|v| v.version.as_str() == version).any(|v| v.weight.percent() == percent)
        })
        .await
    }

    pub async fn revision(&self, number: u64) -> Revision {
        self.client.revision(&linear(), RevisionNumber(number)).await.unwrap_or_else(|error| panic!("{error:?}"))
    }

    pub async fn outcome(&self, number: u64, wanted: impl Fn(&Outcome) -> bool) -> Outcome {
        let what = format!("revision {number} ends as wanted");
        eventually(&what, async || {
            let revision = self.client.revision(&linear(), RevisionNumber(number)).await.ok()?;
            Some(revision.outcome).filter(&wanted)
        })
        .await
    }

    /// What `linear` answers to [[3, 4]]: the version, and the number.
    pub async fn infer(&self) -> (String, f64) {
        let url = format!("{}/v2/models/linear/infer", self.gateway_url());
        let response = self.http.post(url).body(crate::load::BODY).send().await.expect("an answer");
        let version = response.headers()["x-modelyard-version"].to_str().expect("text").to_owned();
        let body: serde_json::Value = response.json().await.expect("JSON");
        let number = body["outputs"][0]["data"][0].as_f64();
        (version, number.unwrap_or_else(|| panic!("no number in {body}")))
    }
}

/// The workers that live below a state directory, by their replica's directory.
pub(crate) fn workers_below(dir: &Path) -> BTreeMap<String, u32> {
    let dir = dir.display().to_string();
    let processes = std::fs::read_dir("/proc").expect("a process table").flatten();
    let workers = processes.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let command = std::fs::read_to_string(entry.path().join("cmdline")).ok()?;
        let mut words = command.split('\0');
        let is_worker = words.next()?.ends_with("modelyard-worker") && words.next()? == "serve";
        let instance = words.skip_while(|w| *w != "--instance-dir").nth(1)?;
        (is_worker && instance.starts_with(&dir)).then(|| (instance.to_owned(), pid))
    });
    workers.collect()
}

pub(crate) fn linear() -> DeploymentName {
    "linear".parse().expect("a name")
}

pub(crate) fn free() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address")
}

pub(crate) fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        kill_process(pid, signal).ok();
    }
}

pub(crate) fn end(process: &mut Option<Child>, how: Signal) {
    if let Some(mut child) = process.take() {
        signal(child.id(), how);
        child.wait().ok();
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for name in ["modelyard-control-plane", "modelyard-gateway"] {
                let log = std::fs::read_to_string(self.state_dir.join(format!("{name}.log"))).unwrap_or_default();
                let lines: Vec<_> = log.lines().rev().take(40).collect();
                eprintln!("--- the end of {name}'s log");
                lines.iter().rev().for_each(|line| eprintln!("{line}"));
            }
        }
        self.kill_gateway();
        self.kill_control_plane();
        let mut stop = Command::new(binary("modelyard-control-plane"));
        stop.args(["stop-workers", "--drain-timeout", "0", "--state-dir"]).arg(&self.state_dir);
        stop.stdout(Stdio::null()).stderr(Stdio::null()).status().ok();
        self.workers().values().for_each(|pid| signal(*pid, Signal::KILL));
    }
}
