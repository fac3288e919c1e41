//! A local runtime in a directory of its own, on the real worker, with models made for the test.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use modelyard_core::{BackendId, Digest, Format, Resources, Workload, WorkloadId};
use modelyard_runtime::conformance::{Behaviour, Harness};
use modelyard_runtime::{ArtifactSource, Runtime, RuntimeError};
use modelyard_runtime_local::{LocalConfig, LocalRuntime};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// y = x·[1.0, -0.5] + 2.0
const MODEL: &str = r#"{"layers": [{"weights": [[1.0, -0.5]], "bias": [2.0], "activation": "linear"}]}"#;

/// Artifacts as files named by their digest.
pub(crate) struct Files(pub(crate) PathBuf);

impl Files {
    fn add(&self, content: &str) -> Digest {
        let digest = Digest::of(content.as_bytes());
        fs::write(self.0.join(digest.to_string()), content).unwrap();
        digest
    }
}

#[async_trait]
impl ArtifactSource for Files {
    async fn local_path(&self, digest: &Digest) -> Result<PathBuf, RuntimeError> {
        Ok(self.0.join(digest.to_string()))
    }
}

pub(crate) struct Local {
    runtime: Option<Arc<LocalRuntime>>,
    pub(crate) config: LocalConfig,
    pub(crate) artifacts: Arc<Files>,
    _dir: TempDir,
}

impl Local {
    async fn make() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let artifacts = Arc::new(Files(dir.path().join("artifacts")));
        fs::create_dir(&artifacts.0).unwrap();
        let mut config = LocalConfig::new(dir.path().join("state"), worker_binary());
        config.drain_timeout = Duration::from_secs(10);
        let mut local = Self { runtime: None, config, artifacts, _dir: dir };
        local.open().await;
        local
    }

    pub(crate) async fn open(&mut self) {
        self.runtime = Some(LocalRuntime::open(self.config.clone(), self.artifacts.clone()).await.unwrap());
    }

    pub(crate) fn local(&self) -> &LocalRuntime {
        self.runtime.as_deref().unwrap()
    }

    pub(crate) async fn shutdown(&mut self) {
        self.runtime.take().unwrap().shutdown().await;
    }

    pub(crate) fn replica_dir(&self, id: &WorkloadId, replica: &str) -> PathBuf {
        self.config.state_dir.join("workers").join(id.as_str()).join(replica)
    }

    /// The pid that the worker of a replica wrote down.
    pub(crate) fn pid(&self, id: &WorkloadId, replica: &str) -> Pid {
        let status = fs::read(self.replica_dir(id, replica).join("status.json")).unwrap();
        let status: serde_json::Value = serde_json::from_slice(&status).unwrap();
        Pid::from_raw(i32::try_from(status["pid"].as_i64().unwrap()).unwrap()).unwrap()
    }

    pub(crate) fn signal(&self, id: &WorkloadId, replica: &str, signal: Signal) {
        kill_process(self.pid(id, replica), signal).unwrap();
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        // Whatever became of the runtime: a worker that was just started may not hold its lock yet.
        for pid in workers_in(&self.config.state_dir) {
            let _gone = kill_process(pid, Signal::KILL).is_err();
        }
    }
}

#[async_trait]
impl Harness for Local {
    async fn fresh() -> Self {
        Self::make().await
    }

    fn runtime(&self) -> Arc<dyn Runtime> {
        self.runtime.clone().unwrap()
    }

    async fn reopen(&mut self) {
        self.shutdown().await;
        self.open().await;
    }

    async fn workload(&self, behaviour: Behaviour, replicas: u32) -> Workload {
        let (name, content) = match behaviour {
            Behaviour::Serves => ("linear", MODEL),
            Behaviour::CrashesAtStart => ("broken", "this is no model"),
        };
        let digest = self.artifacts.add(content);
        Workload {
            id: format!("{name}-{}", &digest.to_string()[..10]).parse().unwrap(),
            deployment: name.parse().unwrap(),
            model: name.parse().unwrap(),
            version: "1".parse().unwrap(),
            format: Format::Dense,
            digest,
            replicas,
            resources: Resources::default(),
            node_selector: std::collections::BTreeMap::new(),
            tolerations: Vec::new(),
            autoscaling: None,
            disruption_budget: None,
            batching: None,
            engine: modelyard_core::EngineSpec::default(),
        }
    }

    async fn kill(&self, id: &WorkloadId, replica: &BackendId) {
        self.signal(id, replica.as_str(), Signal::KILL);
    }

    async fn alive(&self, id: &WorkloadId) -> Vec<String> {
        let dir = self.config.state_dir.join("workers").join(id.as_str());
        workers_in(&dir).iter().map(ToString::to_string).collect()
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(30)
    }

    async fn answers(&self, endpoint: SocketAddr) -> Result<(), String> {
        let asked = tokio::time::timeout(Duration::from_secs(10), get_ready(endpoint)).await;
        let answer = asked.map_err(|late| late.to_string())?.map_err(|error| error.to_string())?;
        if answer.starts_with("HTTP/1.1 200") { Ok(()) } else { Err(answer) }
    }
}

async fn get_ready(endpoint: SocketAddr) -> std::io::Result<String> {
    let mut stream = tokio::net::TcpStream::connect(endpoint).await?;
    let request = format!("GET /v2/health/ready HTTP/1.1\r\nhost: {endpoint}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// The processes that were given an instance directory below `dir`, twins and orphans included; zombies are not.
pub(crate) fn workers_in(dir: &Path) -> Vec<Pid> {
    let below = format!("{}/", dir.display());
    let mut pids: Vec<Pid> = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| {
            let pid = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let words: Vec<_> = line.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
            let flag = words.iter().position(|word| word == "--instance-dir")?;
            words.get(flag + 1)?.starts_with(&below).then(|| Pid::from_raw(pid)).flatten()
        })
        .collect();
    pids.sort_by_key(|pid| pid.as_raw_nonzero());
    pids
}

/// `modelyard-worker` in `MODELYARD_TEST_BIN_DIR`, or beside the directory of this test's own binary.
fn worker_binary() -> PathBuf {
    let dir = std::env::var_os("MODELYARD_TEST_BIN_DIR").map(PathBuf::from).unwrap_or_else(|| {
        let test = std::env::current_exe().unwrap();
        test.parent().and_then(Path::parent).unwrap().to_owned()
    });
    let binary = dir.join("modelyard-worker");
    assert!(binary.exists(), "{} is missing: `cargo build -p modelyard-worker` makes it", binary.display());
    binary
}
