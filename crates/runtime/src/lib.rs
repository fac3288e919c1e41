//! The seam between decisions and machines: what a runtime must do, and the suite that proves it does.
//!
//! A runtime knows workloads; it must not know revisions, weights or rollouts.

#[cfg(feature = "conformance")]
pub mod conformance;

use std::path::PathBuf;

use async_trait::async_trait;
use modelyard_core::{BackendId, Digest, Epoch, Observation, Workload, WorkloadId};
use tokio::sync::watch;

/// Runs workloads: child processes, or pods.
#[async_trait]
pub trait Runtime: Send + Sync {
    /// `local` or `kubernetes`.
    fn name(&self) -> &'static str;

    /// All workloads of this runtime, as they are. Complete: a workload that is not listed is absent.
    async fn observe(&self) -> Result<Observation, RuntimeError>;

    /// Makes `workload` the one that runs under its id: starts it, scales it, stamps it with `epoch`. Idempotent.
    /// Returns once the wish is recorded where it survives this process; readiness is for [`Runtime::observe`] to tell.
    ///
    /// # Errors
    /// [`RuntimeError::Fenced`] if a writer with a later epoch has been here.
    async fn ensure(&self, workload: &Workload, epoch: Epoch) -> Result<(), RuntimeError>;

    /// Drains and ends a workload, and forgets it. Idempotent: one that is absent is well removed. Returns at once;
    /// its replicas are observed as draining until they are gone.
    ///
    /// # Errors
    /// [`RuntimeError::Fenced`] if a writer with a later epoch has been here.
    async fn remove(&self, id: &WorkloadId, epoch: Epoch) -> Result<(), RuntimeError>;

    /// Changes whenever [`Runtime::observe`] would answer something new. Carries no facts: it says "look".
    fn changes(&self) -> watch::Receiver<u64>;

    /// Ends this process's part: nothing is written after this returns, and the next process may take over. What runs
    /// goes on running.
    async fn shutdown(&self) {}

    /// The last `lines` lines that a replica logged, through its restarts.
    async fn logs(&self, id: &WorkloadId, replica: &BackendId, lines: usize) -> Result<String, RuntimeError>;
}

#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    #[error("epoch {given} is over: {seen} has taken office")]
    Fenced { given: Epoch, seen: Epoch },
    #[error("there is no {0}")]
    NotFound(String),
    /// The machinery said no, and will say so again until somebody changes something.
    #[error("refused: {0}")]
    Refused(String),
    /// Nothing is known to have happened, or not to have.
    #[error("the runtime does not answer: {0}")]
    Unavailable(String),
}

/// Where a runtime on this machine finds artifacts.
#[async_trait]
pub trait ArtifactSource: Send + Sync {
    /// A local file with that content, fetched if need be. The worker verifies the digest before it loads the file.
    async fn local_path(&self, digest: &Digest) -> Result<PathBuf, RuntimeError>;
}
