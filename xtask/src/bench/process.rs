//! A process of a bench, on the cores that it is given.

use std::ffi::OsString;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process_group};
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::Instant;

const LISTENS_WITHIN: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);
const LAST_LINES: usize = 15;

/// What to run, and on which cores, in the words of `taskset`: `0`, `0,1`.
#[derive(Debug, Clone)]
pub(super) struct Program {
    pub(super) path: PathBuf,
    pub(super) args: Vec<OsString>,
    pub(super) cores: &'static str,
    pub(super) env: Vec<(&'static str, OsString)>,
}

impl Program {
    pub(super) fn new(path: impl Into<PathBuf>, cores: &'static str) -> Self {
        Self { path: path.into(), args: Vec::new(), cores, env: Vec::new() }
    }

    pub(super) fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    pub(super) fn env(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.env.push((name, value.into()));
        self
    }

    fn command(&self) -> Command {
        let mut command = Command::new("taskset");
        command.arg("--cpu-list").arg(self.cores).arg(&self.path).args(&self.args).envs(self.env.iter().cloned());
        command.stdin(Stdio::null()).process_group(0).kill_on_drop(true);
        command
    }

    /// Starts it, with its output in `log`.
    pub(super) fn start(&self, log: PathBuf) -> Result<Process> {
        let out = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let child = self.command().stdout(out.try_clone()?).stderr(out).spawn();
        let child = child.with_context(|| format!("cannot run {} by taskset", self.path.display()))?;
        let pid = child.id().context("it ended at once")?;
        Ok(Process { child, pid, log, path: self.path.clone() })
    }

    /// Runs it to its end; its output is one line of JSON.
    pub(super) async fn figures<T: DeserializeOwned>(&self) -> Result<T> {
        let output = self.command().output().await;
        let output = output.with_context(|| format!("cannot run {} by taskset", self.path.display()))?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{} failed: {}", self.path.display(), said.trim());
        serde_json::from_slice(&output.stdout).with_context(|| format!("{} printed no figures", self.path.display()))
    }
}

/// A process and its children, which end with it.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    pub(super) pid: u32,
    log: PathBuf,
    path: PathBuf,
}

impl Process {
    /// Waits until somebody listens there.
    pub(super) async fn listens(&mut self, address: SocketAddr) -> Result<()> {
        let began = Instant::now();
        while TcpStream::connect(address).await.is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended ({status}): {}", self.path.display(), tail(&self.log));
            }
            let words = || format!("{} does not listen at {address}: {}", self.path.display(), tail(&self.log));
            ensure!(began.elapsed() < LISTENS_WITHIN, words());
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Its children are in its group. They hold nothing that an orderly end would save.
        let group = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        group.map(|group| kill_process_group(group, Signal::KILL).ok());
    }
}

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines.get(lines.len().saturating_sub(LAST_LINES)..).unwrap_or_default().join("\n")
}
