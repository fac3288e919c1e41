//! The same stack on a real cluster: control plane and gateway as processes of this machine, workers as pods, in a
//! namespace of the test's own.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use modelyard_api::Client;
use modelyard_api::types::{Applied, Deployment};
use modelyard_core::state::{Outcome, Phase};
use modelyard_core::{DeploymentName, RevisionNumber};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::database::TestDatabase;
use crate::stack::{apply, binary, end, eventually_within, linear};

/// Pods take their time on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);

/// What `cargo xtask test` says of the cluster it brought up.
///
/// # Panics
/// If it did not.
pub fn required(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!("{name} is not set: these tests need a cluster; run them by `cargo xtask test`, which brings one up")
    })
}

/// Runs kubectl against the cluster under test.
#[derive(Debug, Clone)]
pub struct Kubectl {
    kubeconfig: String,
    namespace: String,
}

impl Kubectl {
    /// # Panics
    /// If there is no cluster.
    pub fn new(namespace: &str) -> Self {
        Self { kubeconfig: required("MODELYARD_TEST_KUBECONFIG"), namespace: namespace.to_owned() }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(std::env::var("MODELYARD_TEST_KUBECTL").unwrap_or_else(|_| "kubectl".into()));
        command.args(["--kubeconfig", &self.kubeconfig, "--namespace", &self.namespace]).args(arguments);
        command.stdin(Stdio::null());
        command
    }

    /// Its output, or what it complained of.
    ///
    /// # Errors
    /// What kubectl says.
    pub fn attempt(&self, arguments: &[&str]) -> Result<String, String> {
        let output = self.command(arguments).output().expect("kubectl runs");
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// # Panics
    /// If kubectl fails.
    pub fn run(&self, arguments: &[&str]) -> String {
        self.attempt(arguments).unwrap_or_else(|error| panic!("kubectl {arguments:?}: {error}"))
    }

    /// Applies objects.
    ///
    /// # Panics
    /// If kubectl fails.
    pub fn apply(&self, text: &str) {
        use std::io::Write as _;
        let mut child = self.command(&["apply", "-f", "-"]).stdin(Stdio::piped()).spawn().expect("kubectl runs");
        child.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("it reads");
        assert!(child.wait().expect("it ends").success(), "kubectl apply of {text}");
    }

    /// What `kubectl get … -o json` finds; `Null` where there is nothing.
    pub fn get(&self, what: &[&str]) -> Value {
        let arguments = [&["get", "-o", "json", "--ignore-not-found"], what].concat();
        serde_json::from_str(&self.run(&arguments)).unwrap_or(Value::Null)
    }

    /// The items of a list.
    pub fn list(&self, what: &[&str]) -> Vec<Value> {
        self.get(what)["items"].as_array().cloned().unwrap_or_default()
    }

    /// A value of a Secret, once it is there.
    pub async fn secret(&self, name: &str, key: &str) -> String {
        let template = format!("go-template={{{{index .data \"{key}\" | base64decode}}}}");
        let what = format!("the Secret {name} is there");
        eventually_within(PATIENCE, &what, async || {
            self.attempt(&["get", "secret", name, "-o", &template]).ok().filter(|text| !text.is_empty())
        })
        .await
    }
}

/// The address at which pods reach this machine: the API server's, on the cluster of `cargo xtask kube up`.
///
/// # Panics
/// If it is another cluster, and `MODELYARD_TEST_HOST` does not say.
pub fn host() -> IpAddr {
    if let Ok(given) = std::env::var("MODELYARD_TEST_HOST") {
        return given.parse().expect("MODELYARD_TEST_HOST is an address");
    }
    let server =
        Kubectl::new("default").run(&["config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}"]);
    let host = server.trim_start_matches("https://").rsplit_once(':').map_or("", |(host, _)| host).to_owned();
    host.parse()
        .unwrap_or_else(|_| panic!("MODELYARD_TEST_HOST must say how pods reach this machine; {server} does not"))
}

#[derive(Default)]
pub struct ClusterOptions {
    /// More arguments for the control plane.
    pub arguments: Vec<String>,
    /// Instead of the administrator's, for the control plane alone.
    pub kubeconfig: Option<PathBuf>,
}

pub struct ClusterStack {
    pub kubectl: Kubectl,
    pub client: Client,
    pub namespace: String,
    options: ClusterOptions,
    listen: SocketAddr,
    gateway: SocketAddr,
    token: String,
    dir: TempDir,
    control_plane: Option<Child>,
    gateway_process: Option<Child>,
    database: TestDatabase,
}

impl ClusterStack {
    pub async fn start() -> Self {
        Self::start_with(|_| ClusterOptions::default()).await
    }

    /// `options` may depend on the namespace's name.
    ///
    /// # Panics
    /// If something does not come up.
    pub async fn start_with(options: impl FnOnce(&Kubectl) -> ClusterOptions) -> Self {
        let namespace = format!("modelyard-{}", &uuid::Uuid::new_v4().simple().to_string()[..8]);
        let kubectl = Kubectl::new(&namespace);
        kubectl.run(&["create", "namespace", &namespace]);
        let options = options(&kubectl);
        let mut stack = Self {
            client: Client::new("http://127.0.0.1:9", None, None),
            options,
            listen: free_on(host()),
            gateway: free_on(IpAddr::from([127, 0, 0, 1])),
            token: String::new(),
            dir: tempfile::tempdir().expect("a directory"),
            control_plane: None,
            gateway_process: None,
            database: TestDatabase::create().await,
            namespace,
            kubectl,
        };
        stack.start_control_plane().await;
        stack.start_gateway().await;
        stack
    }

    pub async fn start_control_plane(&mut self) {
        let kubeconfig = self.options.kubeconfig.clone();
        let kubeconfig = kubeconfig.map_or_else(|| self.kubectl.kubeconfig.clone(), |path| path.display().to_string());
        let mut arguments: Vec<String> =
            ["serve", "--runtime", "kubernetes", "--linger", "1", "--drain-timeout", "5"].map(Into::into).to_vec();
        let mut flag = |name: &str, value: String| arguments.extend([format!("--{name}"), value]);
        flag("database-url", self.database.url().to_owned());
        flag("listen", self.listen.to_string());
        flag("state-dir", self.dir.path().display().to_string());
        flag("worker-binary", binary("modelyard-worker").display().to_string());
        flag("namespace", self.namespace.clone());
        flag("kubeconfig", kubeconfig);
        if !self.options.arguments.iter().any(|argument| argument == "--worker-image") {
            flag("worker-image", required("MODELYARD_TEST_IMAGE"));
        }
        arguments.extend(self.options.arguments.clone());
        self.control_plane = Some(self.spawn("modelyard-control-plane", &arguments));
        // The control plane made it, for whoever may read Secrets.
        self.token = self.kubectl.secret("modelyard-admin-token", "token").await;
        self.client = Client::new(&self.server_url(), Some(self.token.clone()), None);
        let client = &self.client;
        eventually_within(PATIENCE, "the control plane is ready", async || client.ready().await.then_some(())).await;
    }

    pub async fn start_gateway(&mut self) {
        let token = self.kubectl.secret("modelyard-gateway-token", "token").await;
        let token_file = self.dir.path().join("gateway-token");
        std::fs::write(&token_file, token).expect("a file");
        let mut arguments = Vec::new();
        let mut flag = |name: &str, value: String| arguments.extend([format!("--{name}"), value]);
        flag("control-plane", self.server_url());
        flag("listen", self.gateway.to_string());
        flag("token-file", token_file.display().to_string());
        flag("state-dir", self.dir.path().join("gateway").display().to_string());
        self.gateway_process = Some(self.spawn("modelyard-gateway", &arguments));
        let url = format!("{}/v2/health/ready", self.gateway_url());
        let is_ready = async || reqwest::get(&url).await.ok().filter(|r| r.status().is_success());
        eventually_within(PATIENCE, "the gateway is ready", is_ready).await;
    }

    fn spawn(&self, name: &str, arguments: &[String]) -> Child {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log_path(name)).expect("a log");
        let mut command = Command::new(binary(name));
        command.args(arguments).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a log")).stderr(log).spawn().expect("it starts")
    }

    fn log_path(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.log"))
    }

    /// The control plane again, with more arguments than it was given at first.
    pub async fn restart_with(&mut self, arguments: &[&str]) {
        self.options.arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        self.start_control_plane().await;
    }

    /// What the control plane has logged so far.
    pub fn control_plane_log(&self) -> String {
        std::fs::read_to_string(self.log_path("modelyard-control-plane")).unwrap_or_default()
    }

    /// `kill -9`
    pub fn kill_control_plane(&mut self) {
        end(&mut self.control_plane, Signal::KILL);
    }

    pub fn server_url(&self) -> String {
        format!("http://{}", self.listen)
    }

    pub fn gateway_url(&self) -> String {
        format!("http://{}", self.gateway)
    }

    pub fn control_plane_pid(&self) -> u32 {
        self.control_plane.as_ref().expect("it runs").id()
    }

    // ---- what people do ----------------------------------------------------------------------------------------

    pub async fn apply(&self, text: &str) -> Applied {
        apply(&self.client, text, false, None).await.unwrap_or_else(|error| panic!("{error:?}"))
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

    /// Waits until `linear` is as wanted; panics with how it is instead.
    pub async fn until(&self, what: &str, wanted: impl Fn(&Deployment) -> bool) -> Deployment {
        let began = Instant::now();
        loop {
            let seen = self.client.deployment(&linear()).await;
            match seen {
                Ok(deployment) if wanted(&deployment) => return deployment,
                seen => assert!(began.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}; {seen:#?}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn completed(&self, revision: RevisionNumber) -> Deployment {
        self.until(&format!("revision {revision} is completed"), |d| {
            d.status.as_ref().is_some_and(|s| s.observed_revision >= revision && s.phase == Phase::Completed)
        })
        .await
    }

    /// Waits until the variants of `linear` have so many ready workers in all.
    pub async fn ready(&self, count: u32) -> Deployment {
        self.until(&format!("{count} workers are ready"), |d| {
            d.status.iter().flat_map(|s| &s.variants).map(|v| v.ready).sum::<u32>() == count
        })
        .await
    }

    pub async fn outcome(&self, number: u64, wanted: impl Fn(&Outcome) -> bool) -> Outcome {
        let what = format!("revision {number} ends as wanted");
        eventually_within(PATIENCE, &what, async || {
            let revision = self.client.revision(&linear(), RevisionNumber(number)).await.ok()?;
            Some(revision.outcome).filter(&wanted)
        })
        .await
    }

    /// The name of the deployment that every test here is about.
    pub fn linear() -> DeploymentName {
        linear()
    }

    /// Pods of workers, those that are leaving too.
    pub fn pods(&self) -> Vec<Value> {
        self.kubectl.list(&["pods", "-l", "app.kubernetes.io/managed-by=modelyard"])
    }

    /// Deployments of workers.
    pub fn workloads(&self) -> Vec<Value> {
        self.kubectl.list(&["deployments", "-l", "app.kubernetes.io/managed-by=modelyard"])
    }
}

fn free_on(address: IpAddr) -> SocketAddr {
    let listener = TcpListener::bind((address, 0)).expect("a free port");
    listener.local_addr().expect("an address")
}

impl Drop for ClusterStack {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for name in ["modelyard-control-plane", "modelyard-gateway"] {
                let log = std::fs::read_to_string(self.log_path(name)).unwrap_or_default();
                let lines: Vec<_> = log.lines().rev().take(40).collect();
                eprintln!("--- the end of {name}'s log");
                lines.iter().rev().for_each(|line| eprintln!("{line}"));
            }
            let pods = self.kubectl.attempt(&["get", "pods,deployments", "-o", "wide"]);
            eprintln!("--- the namespace\n{}", pods.unwrap_or_else(|error| error));
        }
        end(&mut self.gateway_process, Signal::KILL);
        end(&mut self.control_plane, Signal::KILL);
        self.kubectl.attempt(&["delete", "namespace", &self.namespace, "--wait=false"]).ok();
        let now = ["delete", "pods", "--all", "--grace-period=0", "--force", "--wait=false"];
        self.kubectl.attempt(&now).ok();
    }
}
