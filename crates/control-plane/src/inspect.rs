//! Loads an artifact once, in a process of its own: what it is may crash it, or take for ever, and not hurt us.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use modelyard_core::{Digest, EngineName, Format, Signature};
use serde::Deserialize;
use tokio::process::Command;

#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// It is not a model that can be served, and this is why.
    #[error("{message}")]
    Refused { code: String, message: String },
    #[error("loading it took longer than {} s; it was given up", .0.as_secs())]
    TimedOut(Duration),
    #[error(
        "the process that loaded it ended ({how}). If it needs more than {} MiB of memory, give the control plane more \
         (--inspect-memory, and its container's limit); if not, it would end workers too", max_memory >> 20
    )]
    Crashed { how: String, max_memory: u64 },
    #[error("the worker binary could not be run: {0}")]
    NotRun(String),
}

/// Runs `modelyard-worker inspect`.
#[derive(Debug, Clone)]
pub struct Inspector {
    pub worker_binary: PathBuf,
    pub timeout: Duration,
    /// Of data, in bytes.
    pub max_memory: u64,
}

/// Left to the control plane itself, of what its container has.
const OURS: u64 = 256 << 20;
const LEAST: u64 = 64 << 20;

/// What a process beside this one may take, in bytes, of at most `wanted`: where both are bounded together, the one that
/// asks for too much must fail, and not take the other with it.
pub fn bounded_memory(wanted: u64) -> u64 {
    let files = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let limits = files.into_iter().filter_map(|file| std::fs::read_to_string(file).ok()?.trim().parse::<u64>().ok());
    let room = |limit: u64| limit.saturating_sub(OURS).max(LEAST);
    limits.map(room).chain([wanted]).min().unwrap_or(wanted)
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Report {
    Ok { signature: Signature },
    Refused { code: String, message: String },
}

impl Inspector {
    /// The inputs and outputs of the model in `file`.
    ///
    /// # Errors
    /// See [`InspectError`].
    pub async fn inspect(&self, file: &Path, format: Format, digest: &Digest) -> Result<Signature, InspectError> {
        self.inspect_with(file, format, digest, None).await
    }

    /// The same, by that engine if one is named.
    ///
    /// # Errors
    /// See [`InspectError`].
    pub async fn inspect_with(
        &self,
        file: &Path,
        format: Format,
        digest: &Digest,
        engine: Option<EngineName>,
    ) -> Result<Signature, InspectError> {
        let engine = engine.map(|engine| ["--engine".to_owned(), engine.to_string()]);
        let child = Command::new(&self.worker_binary)
            .args(["inspect", "--format", format.as_str(), "--sha256", &digest.to_string()])
            .args(["--max-memory", &self.max_memory.to_string()])
            .args(engine.iter().flatten())
            .arg("--artifact")
            .arg(file)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| InspectError::NotRun(format!("{}: {error}", self.worker_binary.display())))?;
        let output = tokio::time::timeout(self.timeout, child.wait_with_output())
            .await
            .map_err(|_| InspectError::TimedOut(self.timeout))?
            .map_err(|error| InspectError::NotRun(error.to_string()))?;
        match serde_json::from_slice(&output.stdout) {
            Ok(Report::Ok { signature }) => Ok(signature),
            Ok(Report::Refused { code, message }) => Err(InspectError::Refused { code, message }),
            Err(_) => {
                let stderr = String::from_utf8_lossy(&output.stderr);
                let last = stderr.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
                let how = format!("{}{}{last}", output.status, if last.is_empty() { "" } else { ": " });
                Err(InspectError::Crashed { how, max_memory: self.max_memory })
            }
        }
    }
}
