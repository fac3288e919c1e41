//! Gates that ask a Prometheus: a real one, which scrapes the gateway and a service of the user's.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use modelyard_core::RevisionNumber;
use modelyard_core::state::Outcome;
use modelyard_test_support::{Load, Options, Stack, eventually, manifest};

const PROGRAM: &str = "MODELYARD_TEST_PROMETHEUS";

/// What a service of the user's exposes about the answers it got: a number that a test can turn.
struct Exporter {
    address: SocketAddr,
    value: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
}

impl Exporter {
    fn start(value: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let exporter = Self {
            address: listener.local_addr().unwrap(),
            value: Arc::new(AtomicU64::new(value)),
            is_over: Arc::default(),
        };
        let (value, is_over) = (exporter.value.clone(), exporter.is_over.clone());
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
                let mut connection = connection.unwrap();
                let _ = connection.read(&mut [0; 4096]);
                let text = format!("refunds_per_minute {}\n", value.load(Ordering::Relaxed));
                let _ = write!(
                    connection,
                    "HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4\r\ncontent-length: {}\r\nconnection: \
                     close\r\n\r\n{text}",
                    text.len()
                );
            }
        });
        exporter
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let _ = std::net::TcpStream::connect(self.address);
    }
}

struct Prometheus {
    process: Child,
    address: SocketAddr,
    _dir: tempfile::TempDir,
}

impl Prometheus {
    /// Scrapes the targets each second.
    fn start(address: SocketAddr, targets: &[SocketAddr]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let targets: Vec<_> = targets.iter().map(|target| format!("\"{target}\"")).collect();
        let config = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\nscrape_configs: [{{job_name: all, static_configs: \
             [{{targets: [{}]}}]}}]\n",
            targets.join(", ")
        );
        std::fs::write(dir.path().join("prometheus.yml"), config).unwrap();
        Self { process: Self::spawn(address, dir.path()), address, _dir: dir }
    }

    fn spawn(address: SocketAddr, dir: &Path) -> Child {
        let mut command = Command::new(std::env::var_os(PROGRAM).unwrap());
        command
            .arg(format!("--config.file={}", dir.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", dir.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null());
        let log = std::fs::File::create(dir.join("log")).unwrap();
        command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Whether there is one to ask; says so where there is none.
fn is_there() -> bool {
    let is_there = std::env::var_os(PROGRAM).is_some();
    if !is_there {
        eprintln!("NOT TESTED with Prometheus: {PROGRAM} is not set; `cargo xtask test` sets it where it finds one");
    }
    is_there
}

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

async fn stack(prometheus: SocketAddr) -> Stack {
    let control_plane = vec!["--prometheus-url".into(), format!("http://{prometheus}")];
    let stack = Stack::start_with(Options { control_plane, ..Options::default() }).await;
    stack.apply_and_wait(&manifest("1", "replicas: 1, strategy: {rolling: {}}")).await;
    stack
}

fn canary(query: &str, max: u32) -> String {
    manifest(
        "2",
        &format!(
            "replicas: 1, strategy: {{canary: {{steps: [{{weight: 50, hold: 1s}}], analysis: {{warmup: 0, prometheus: \
             {{query: '{query}', max: {max}}}}}}}}}"
        ),
    )
}

/// The gateway's own figures are what is asked for.
#[tokio::test]
async fn a_number_within_its_limit_lets_a_version_pass() {
    if !is_there() {
        return;
    }
    let address = free();
    let stack = stack(address).await;
    let gateway = stack.gateway_url().strip_prefix("http://").unwrap().parse().unwrap();
    let _prometheus = Prometheus::start(address, &[gateway]);
    let load = Load::start(&stack.gateway_url(), "linear");
    stack.apply(&canary("sum(rate(modelyard_gateway_errors_total[10s]))", 0)).await;
    stack.completed(RevisionNumber(2)).await;
    let verdicts = stack.client.rollout(&"linear".parse().unwrap()).await.unwrap().verdicts;
    let checks = verdicts.iter().flat_map(|v| &v.verdict.checks);
    let gate = checks.into_iter().find(|check| check.limit.starts_with("prometheus")).unwrap();
    assert!(gate.passes && gate.measured == "0", "{gate:?}");
    load.stop().await.assert_nothing_lost();
}

#[tokio::test]
async fn a_number_above_its_limit_takes_the_version_back() {
    if !is_there() {
        return;
    }
    let (address, exporter) = (free(), Exporter::start(12));
    let stack = stack(address).await;
    let _prometheus = Prometheus::start(address, &[exporter.address]);
    let load = Load::start(&stack.gateway_url(), "linear");
    stack.apply(&canary("refunds_per_minute", 10)).await;
    let outcome = stack.outcome(2, |o| matches!(o, Outcome::RolledBack { .. })).await;
    assert!(outcome.to_string().contains("refunds_per_minute"), "{outcome}");
    load.stop().await.assert_nothing_lost();
}

/// No number is neither good nor bad; why there is none is told, and what comes then is gone by.
#[tokio::test]
async fn a_number_that_is_not_there_is_waited_for() {
    if !is_there() {
        return;
    }
    let (address, exporter) = (free(), Exporter::start(3));
    let stack = stack(address).await;
    let load = Load::start(&stack.gateway_url(), "linear");
    stack.apply(&canary("refunds_per_minute", 10)).await;
    let waits = |word: &str| {
        let word = word.to_owned();
        let stack = &stack;
        async move {
            eventually(&word, async || {
                let waiting_on = stack.deployment().await.status?.waiting_on;
                waiting_on.iter().any(|words| words.contains(&word)).then_some(())
            })
            .await;
        }
    };
    waits("Prometheus does not answer").await;
    let prometheus = Prometheus::start(address, &[exporter.address]);
    stack.completed(RevisionNumber(2)).await;
    assert_eq!(prometheus.address, address);
    load.stop().await.assert_nothing_lost();
}
