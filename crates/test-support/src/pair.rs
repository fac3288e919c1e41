//! Two control planes on one database and one state directory, and gateways that may follow either.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use modelyard_api::Client;
use modelyard_api::types::Deployment;
use modelyard_core::RevisionNumber;
use modelyard_core::state::Phase;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::database::TestDatabase;
use crate::stack::{binary, end, eventually, free, linear, signal, workers_below};

/// One of the two.
pub struct ControlPlane {
    name: &'static str,
    database_url: String,
    address: SocketAddr,
    process: Option<Child>,
    pub client: Client,
    /// More arguments of its command line.
    pub arguments: Vec<String>,
}

impl ControlPlane {
    fn new(name: &'static str, database_url: &str) -> Self {
        let address = free();
        let client = Client::new(&format!("http://{address}"), None, Some("test".into()));
        // Postgres says by this name whose writes are whose.
        let database_url = format!("{database_url}?application_name={name}");
        Self { name, database_url, address, process: None, client, arguments: Vec::new() }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn signal(&self, how: Signal) {
        signal(self.process.as_ref().expect("it runs").id(), how);
    }

    /// Signals it, and waits until it has ended.
    pub fn end(&mut self, how: Signal) {
        end(&mut self.process, how);
    }

    pub async fn is_in_office(&self) -> bool {
        let asked = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(1)).build().expect("a client");
        let Ok(answer) = asked.get(format!("{}/metrics", self.url())).send().await else { return false };
        answer.text().await.is_ok_and(|text| text.contains("modelyard_in_office 1\n"))
    }

    /// Waits until it is in office and answers for the deployments; answers how long after `since` that was.
    pub async fn in_office(&self, since: Instant) -> Duration {
        eventually(&format!("{} is in office", self.name), async || {
            (self.is_in_office().await && self.client.ready().await).then_some(())
        })
        .await;
        since.elapsed()
    }

    pub async fn stands_by(&self) {
        eventually(&format!("{} stands by", self.name), async || {
            (self.client.ready().await && !self.is_in_office().await).then_some(())
        })
        .await;
    }

    /// Waits until `linear` serves by that revision alone, as this control plane tells.
    pub async fn completed(&self, revision: RevisionNumber) -> Deployment {
        eventually(&format!("revision {revision} is completed"), async || {
            let deployment = self.client.deployment(&linear()).await.ok()?;
            let status = deployment.status.as_ref()?;
            (status.observed_revision >= revision && status.phase == Phase::Completed).then_some(deployment)
        })
        .await
    }
}

pub struct Pair {
    pub a: ControlPlane,
    pub b: ControlPlane,
    gateways: Vec<(SocketAddr, Child)>,
    dir: TempDir,
    database: TestDatabase,
}

impl Pair {
    /// Of two that have not started. `reach` makes of the database's address the one that `a` connects to.
    pub async fn new(reach: impl AsyncFnOnce(SocketAddr) -> SocketAddr) -> Self {
        let database = TestDatabase::create().await;
        let (before, after) = database.url().split_once('@').expect("a user");
        let (server, name) = after.split_once('/').expect("a database");
        let server = tokio::net::lookup_host(server).await.expect("its address").next().expect("its address");
        let of_a = format!("{before}@{}/{name}", reach(server).await);
        let (a, b) = (ControlPlane::new("a", &of_a), ControlPlane::new("b", database.url()));
        Self { a, b, gateways: Vec::new(), dir: tempfile::tempdir().expect("a directory"), database }
    }

    /// `a` in office, `b` standing by, and a gateway that knows both.
    pub async fn start() -> Self {
        let mut pair = Self::new(async |address| address).await;
        pair.start_both().await;
        pair
    }

    pub async fn start_both(&mut self) {
        self.start_a();
        self.a.in_office(Instant::now()).await;
        self.start_b();
        self.b.stands_by().await;
        self.start_gateway(&[self.a.url(), self.b.url()]).await;
    }

    pub fn start_a(&mut self) {
        self.a.process = Some(serve(&self.a, self.dir.path()));
    }

    pub fn start_b(&mut self) {
        self.b.process = Some(serve(&self.b, self.dir.path()));
    }

    /// Another gateway, which follows those control planes; answers where it is.
    pub async fn start_gateway(&mut self, control_planes: &[String]) -> String {
        let address = free();
        let state = self.dir.path().join(format!("gateway-{}", address.port()));
        let (listen, state) = (address.to_string(), state.display().to_string());
        let arguments = ["--control-plane", &control_planes.join(","), "--listen", &listen, "--state-dir", &state];
        self.gateways.push((address, spawn("modelyard-gateway", "gateway", &arguments, self.dir.path())));
        let url = format!("http://{address}");
        let ready = format!("{url}/v2/health/ready");
        eventually("the gateway is ready", async || {
            reqwest::get(&ready).await.ok().filter(|r| r.status().is_success())
        })
        .await;
        url
    }

    pub fn gateway_url(&self) -> String {
        self.gateways.first().map(|(address, _)| format!("http://{address}")).expect("a gateway")
    }

    pub fn database(&self) -> &TestDatabase {
        &self.database
    }

    pub fn state_dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn workers(&self) -> BTreeMap<String, u32> {
        workers_below(self.dir.path())
    }

    pub fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(format!("{name}.log"))).unwrap_or_default()
    }
}

fn serve(node: &ControlPlane, state_dir: &Path) -> Child {
    let (listen, dir) = (node.address.to_string(), state_dir.display().to_string());
    let worker = binary("modelyard-worker").display().to_string();
    let arguments = ["serve", "--database-url", &node.database_url, "--listen", &listen, "--state-dir", &dir];
    let arguments = [&arguments[..], &["--worker-binary", &worker, "--drain-timeout", "5"]].concat();
    let arguments: Vec<_> = arguments.into_iter().chain(node.arguments.iter().map(String::as_str)).collect();
    spawn("modelyard-control-plane", node.name, &arguments, state_dir)
}

fn spawn(program: &str, name: &str, arguments: &[&str], dir: &Path) -> Child {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(dir.join(format!("{name}.log")));
    let log = log.expect("a log");
    let mut command = Command::new(binary(program));
    command.args(arguments).stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
    command.spawn().expect("it starts")
}

impl Drop for Pair {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for name in ["a", "b", "gateway"] {
                let log = self.log(name);
                let lines: Vec<_> = log.lines().rev().take(40).collect();
                eprintln!("--- the end of {name}'s log");
                lines.iter().rev().for_each(|line| eprintln!("{line}"));
            }
        }
        for (_, gateway) in self.gateways.drain(..) {
            end(&mut Some(gateway), Signal::KILL);
        }
        self.a.end(Signal::KILL);
        self.b.end(Signal::KILL);
        let mut stop = Command::new(binary("modelyard-control-plane"));
        stop.args(["stop-workers", "--drain-timeout", "0", "--state-dir"]).arg(self.dir.path());
        stop.stdout(Stdio::null()).stderr(Stdio::null()).status().ok();
        self.workers().values().for_each(|pid| signal(*pid, Signal::KILL));
    }
}
