//! A gateway process, a control plane that says what a test tells it to, and scripted backends.

pub(crate) mod grpc;
mod http;

use std::net::SocketAddr;
use std::process::{ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use modelyard_core::{
    Backend, Epoch, Evidence, EvidenceReport, RevisionNumber, Route, RouteTable, TableVersion, Variant, VariantName,
    Weight, Window,
};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

pub(crate) use http::{Answer, Asked};

const PATIENCE: Duration = Duration::from_secs(20);
const BINARY: &str = env!("CARGO_BIN_EXE_modelyard-gateway");

/// How a backend answers.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Behaviour {
    Ok(&'static str),
    Status(u16),
    /// Closes the connection when it was asked.
    BreakOff,
    /// Closes it in the middle of the body.
    HalfAnAnswer,
    Slow(Duration, &'static str),
    /// Answers with the length of the request's body.
    CountBody,
    /// Answers with the request's first line.
    Repeat,
    /// Answers, and says in a header what its outputs are.
    Described(&'static str, &'static str),
}

pub(crate) struct Gateway {
    address: SocketAddr,
    grpc_address: SocketAddr,
    arguments: Vec<String>,
    process: Child,
    own: ControlPlane,
    state_dir: Option<tempfile::TempDir>,
    asked: Arc<AtomicUsize>,
}

/// A control plane that says what a test tells it to.
pub(crate) struct ControlPlane {
    address: SocketAddr,
    tables: watch::Sender<Option<RouteTable>>,
    reports: watch::Receiver<Option<EvidenceReport>>,
    lapsed: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl ControlPlane {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tables, following) = watch::channel(None);
        let (reporting, reports) = watch::channel(None);
        let lapsed = Arc::<AtomicBool>::default();
        let task = tokio::spawn(http::control_plane(listener, following, reporting, lapsed.clone()));
        Self { address, tables, reports, lapsed, task }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn send(&self, table: &RouteTable) {
        self.tables.send_replace(Some(table.clone()));
    }

    pub(crate) async fn reported(&mut self, wanted: impl Fn(&EvidenceReport) -> bool) {
        let wait = self.reports.wait_for(|report| report.as_ref().is_some_and(&wanted));
        timeout(PATIENCE, wait).await.expect("the report comes").unwrap();
    }
}

impl Gateway {
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    pub(crate) async fn start_with(arguments: &[&str]) -> Self {
        Self::start_in(Some(tempfile::tempdir().unwrap()), arguments).await
    }

    pub(crate) async fn start_without_state() -> Self {
        Self::start_in(None, &[]).await
    }

    async fn start_in(state_dir: Option<tempfile::TempDir>, arguments: &[&str]) -> Self {
        let own = ControlPlane::start().await;
        let address = nobody().await;
        let grpc_address = nobody().await;
        let over_grpc = ["--grpc-listen".to_owned(), grpc_address.to_string()];
        let arguments: Vec<_> = arguments.iter().map(|a| (*a).to_owned()).chain(over_grpc).collect();
        let process = spawn(address, own.address, state_dir.as_ref(), &arguments);
        let asked = Arc::default();
        let gateway = Self { address, grpc_address, arguments, process, own, state_dir, asked };
        gateway.listens().await;
        gateway
    }

    async fn listens(&self) {
        let live = async {
            while http::get(self.address, "/v2/health/live").await.is_none_or(|a| a.status != 200) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, live).await.expect("the gateway listens");
    }

    pub(crate) async fn grpc(&self) -> grpc::Client {
        grpc::Client::connect(self.grpc_address).await
    }

    pub(crate) async fn backend(&self, behaviour: Behaviour) -> SocketAddr {
        http::backend(behaviour, self.asked.clone()).await
    }

    /// Sends a table, and waits until the gateway has acknowledged it.
    pub(crate) async fn publish(&mut self, table: RouteTable) {
        let version = table.version;
        self.send(&table);
        self.reported(|report| report.applied == version).await;
    }

    pub(crate) fn send(&self, table: &RouteTable) {
        self.own.send(table);
    }

    /// Its control plane no longer knows whether it is in office.
    pub(crate) fn lapse(&self) {
        self.own.lapsed.store(true, Ordering::Relaxed);
    }

    pub(crate) async fn reported(&mut self, wanted: impl Fn(&EvidenceReport) -> bool) {
        self.own.reported(wanted).await;
    }

    pub(crate) fn last_report(&self) -> EvidenceReport {
        self.own.reports.borrow().clone().unwrap()
    }

    /// The evidence of a revision, once it is as wanted.
    pub(crate) async fn evidence(&mut self, revision: u64, wanted: impl Fn(&Evidence) -> bool) -> Evidence {
        let of = |report: &EvidenceReport| {
            let found = report.variants.iter().find(|v| v.revision == RevisionNumber(revision));
            found.map(|v| v.evidence.clone()).filter(&wanted)
        };
        self.reported(|report| of(report).is_some()).await;
        of(&self.last_report()).unwrap()
    }

    pub(crate) async fn infer(&self, deployment: &str, headers: &str) -> Answer {
        self.post(&format!("/v2/models/{deployment}/infer"), headers, b"{}").await
    }

    pub(crate) async fn post(&self, path: &str, headers: &str, body: &[u8]) -> Answer {
        http::post(self.address, path, headers, body).await.answer().await
    }

    pub(crate) async fn begin_infer(&self, deployment: &str) -> Asked {
        http::post(self.address, &format!("/v2/models/{deployment}/infer"), "", b"{}").await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        http::get(self.address, path).await.unwrap()
    }

    /// Asks until the answer is as wanted.
    pub(crate) async fn answers(&self, path: &str, wanted: impl Fn(&Answer) -> bool) {
        let asking = async {
            while !http::get(self.address, path).await.is_some_and(|answer| wanted(&answer)) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, asking).await.expect("it answers as wanted");
    }

    pub(crate) async fn backend_was_asked(&self) {
        let asked = async {
            while self.asked.load(Ordering::Relaxed) == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, asked).await.expect("a backend is asked");
    }

    pub(crate) async fn lose_control_plane(&mut self) {
        self.own.task.abort();
        (&mut self.own.task).await.ok();
    }

    pub(crate) async fn restart(&mut self) {
        self.process.kill().await.unwrap();
        self.process = spawn(self.address, self.own.address, self.state_dir.as_ref(), &self.arguments);
        self.listens().await;
    }

    pub(crate) fn terminate(&self) {
        let pid = i32::try_from(self.process.id().unwrap()).unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::TERM)
            .unwrap();
    }

    pub(crate) async fn ended(&mut self) -> ExitStatus {
        timeout(PATIENCE, self.process.wait()).await.expect("it ends").unwrap()
    }
}

fn spawn(
    address: SocketAddr,
    control: SocketAddr,
    state_dir: Option<&tempfile::TempDir>,
    arguments: &[String],
) -> Child {
    let mut command = Command::new(BINARY);
    command.args(["--control-plane", &format!("http://{control}"), "--listen", &address.to_string()]);
    if let Some(dir) = state_dir {
        command.arg("--state-dir").arg(dir.path());
    }
    command.args(arguments).env("RUST_LOG", "warn");
    command.stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).spawn().unwrap()
}

pub(crate) async fn run(arguments: &[&str]) -> Output {
    let state_dir = tempfile::tempdir().unwrap();
    let output =
        Command::new(BINARY).args(arguments).arg("--state-dir").arg(state_dir.path()).kill_on_drop(true).output();
    timeout(PATIENCE, output).await.expect("it ends").unwrap()
}

/// An address where nobody listens.
pub(crate) async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// A table with one deployment, `m`.
pub(crate) fn table(sequence: u64, route: Route) -> RouteTable {
    let version = TableVersion { epoch: Epoch(1), sequence };
    RouteTable { version, deployments: [("m".parse().unwrap(), route)].into() }
}

/// Variants by (version, basis points, backends): the first is stable, the second on trial. Revisions have the numbers
/// of their versions.
pub(crate) fn route(window: u64, variants: &[(&str, u16, &[SocketAddr])]) -> Route {
    let names = [VariantName::stable(), VariantName::canary()];
    let variants = variants.iter().zip(names).map(|((version, weight, backends), name)| Variant {
        fallback: name == VariantName::stable(),
        name,
        revision: version.parse().unwrap(),
        version: version.parse().unwrap(),
        workload: format!("m-{version:0>10}").parse().unwrap(),
        weight: Weight::from_basis_points(*weight).unwrap(),
        backends: backends.iter().map(|a| Backend { id: a.port().to_string().parse().unwrap(), address: *a }).collect(),
    });
    let window = Window { revision: RevisionNumber(window), step: 0 };
    Route { window, variants: variants.collect(), ..Route::default() }
}
