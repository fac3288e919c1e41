//! Workers as child processes, which end with the test.

use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use modelyard_core::Digest;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::client::{Answer, call};

const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks at a condition.
const POLL: Duration = Duration::from_millis(2);

pub(crate) fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests/examples").join(name)
}

pub(crate) fn digest(path: &Path) -> String {
    Digest::of(&std::fs::read(path).unwrap()).to_string()
}

/// The worker binary, with no ONNX Runtime set, whatever the environment says.
pub(crate) fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_modelyard-worker"));
    command.env_remove("MODELYARD_ONNXRUNTIME").env_remove("ORT_DYLIB_PATH").stdin(Stdio::null());
    command
}

pub(crate) fn serve(dir: &Path, artifact: &Path) -> Command {
    let format = match artifact.extension().and_then(|e| e.to_str()) {
        Some("json") => "dense",
        Some("pb") => "tensorflow",
        _ => "onnx",
    };
    let mut command = binary();
    command
        .args(["serve", "--model-name", "linear", "--model-version", "2", "--format", format])
        .args(["--sha256", &digest(artifact)])
        .arg("--instance-dir")
        .arg(dir)
        .arg("--artifact")
        .arg(artifact);
    command
}

/// Asks until `found` gives something.
pub(crate) fn wait<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = found() {
            return value;
        }
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(POLL);
    }
}

pub(crate) struct Worker {
    child: Child,
    pub(crate) address: SocketAddr,
    pub(crate) dir: TempDir,
}

impl Worker {
    /// Starts a worker for an example, and waits until it is ready.
    pub(crate) fn start(artifact: &str, args: &[&str]) -> Self {
        Self::start_at(&example(artifact), args)
    }

    pub(crate) fn start_at(artifact: &Path, args: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut command = serve(dir.path(), artifact);
        command.args(args).stderr(Stdio::piped());
        let worker = Self::listening(command, dir);
        worker.is_ready();
        worker
    }

    /// Starts a worker for a repository, and waits until it is ready.
    pub(crate) fn of_repository(repository: &Path, args: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut command = binary();
        command.arg("serve").arg("--repository").arg(repository).arg("--instance-dir").arg(dir.path());
        command.args(args).stderr(Stdio::piped());
        let worker = Self::listening(command, dir);
        worker.is_ready();
        worker
    }

    /// What it has in memory, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// The value of a metric, whose labels, if it has some, are part of its name.
    pub(crate) fn metric(&self, name: &str) -> Option<f64> {
        let text = self.get("/metrics").body;
        text.lines().find_map(|line| line.strip_prefix(&format!("modelyard_worker_{name} "))?.parse().ok())
    }

    /// Waits until it listens, ready or not.
    pub(crate) fn listening(mut command: Command, dir: TempDir) -> Self {
        let mut child = command.spawn().unwrap();
        let status = dir.path().join("status.json");
        let status = wait("status.json", || {
            assert_eq!(child.try_wait().unwrap(), None, "the worker ended");
            std::fs::read(&status).ok()
        });
        let status: serde_json::Value = serde_json::from_slice(&status).unwrap();
        assert_eq!(status["pid"], child.id());
        let address = status["address"].as_str().unwrap().parse().unwrap();
        Self { child, address, dir }
    }

    pub(crate) fn is_ready(&self) {
        wait("readiness", || (self.get("/v2/health/ready").status == 200).then_some(()));
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        call(self.address, "GET", path, "").unwrap()
    }

    pub(crate) fn infer(&self, body: &str) -> Answer {
        call(self.address, "POST", "/v2/models/linear/infer", body).unwrap()
    }

    pub(crate) fn terminate(&self) {
        let pid = Pid::from_raw(self.child.id().cast_signed()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
    }

    /// Waits for its end. Gives its log too.
    pub(crate) fn ended(mut self) -> (ExitStatus, String) {
        let status = wait("the end of the worker", || self.child.try_wait().unwrap());
        let mut log = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        (status, log)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
