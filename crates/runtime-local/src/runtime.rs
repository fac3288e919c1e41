//! The runtime as others see it: wishes in, observations out.

use std::path::absolute;
use std::sync::Arc;

use async_trait::async_trait;
use modelyard_core::{BackendId, Epoch, Observation, Workload, WorkloadId};
use modelyard_runtime::{ArtifactSource, Runtime, RuntimeError};
use tokio::sync::watch;

use crate::config::LocalConfig;
use crate::error::{At as _, LocalError};
use crate::log;
use crate::record::{Found, Records, Wish};
use crate::state::Shared;
use crate::stop::end_workers_below;

/// Runs workers as processes of this machine. When the value is dropped, supervision ends and the workers go on.
pub struct LocalRuntime {
    shared: Arc<Shared>,
}

impl LocalRuntime {
    /// Takes the state directory, adopts the workers that run there and starts those that should. Returns once the
    /// adopted ones have been asked whether they are ready, so that the first observation does not belittle them.
    ///
    /// # Errors
    /// [`LocalError::Taken`] if another control plane has the directory.
    pub async fn open(mut config: LocalConfig, artifacts: Arc<dyn ArtifactSource>) -> Result<Arc<Self>, LocalError> {
        // Workers are started with these paths, whatever becomes of this process's directory.
        config.state_dir = absolute(&config.state_dir).at(&config.state_dir)?;
        config.worker_binary = config.worker_binary.canonicalize().at(&config.worker_binary)?;
        let (records, found) = Records::open(&config.state_dir)?;
        let mut wishes = Vec::new();
        let mut nameless = Vec::new();
        for found in found {
            match found {
                Found::Wish(wish) => wishes.push((records.replicas(&wish.workload.id)?, *wish)),
                Found::Nameless(dir) => nameless.push(dir),
            }
        }
        let ended = end_workers_below(nameless, config.drain_timeout + config.kill_grace).await?;
        if ended > 0 {
            tracing::warn!(ended, "ended workers whose workload is not recorded");
        }
        let probe_timeout = config.probes.timeout;
        let shared = Arc::new(Shared::new(config, artifacts, records));
        let runtime = Arc::new(Self { shared });
        let resume = |shared: &Arc<Shared>, records: &mut Records| {
            wishes.into_iter().try_for_each(|(existing, wish)| {
                let id = wish.workload.id.clone();
                shared.apply(wish, &existing);
                shared.forget_if_empty(records, &id)
            })
        };
        if let Err(error) = runtime.shared.with_records(resume).await {
            tracing::warn!(%error, "a removed workload stays on disk");
        }
        let mut changes = runtime.changes();
        let looked = changes.wait_for(|_| runtime.shared.all_looked_at());
        // One that hangs must not keep the control plane from its work.
        let _late = tokio::time::timeout(probe_timeout * 2, looked).await.is_err();
        Ok(runtime)
    }

    /// Ends supervision without touching a process, and leaves the state directory to the next.
    pub async fn shutdown(&self) {
        // With the records in hand, nobody can start a supervisor, and no change on disk is under way.
        let mut records = self.shared.records.lock().await;
        for supervisor in self.shared.abandon() {
            // It was told to end, so its end is no news.
            let _cancelled = supervisor.await.is_err();
        }
        records.take();
    }
}

impl Drop for LocalRuntime {
    fn drop(&mut self) {
        self.shared.abandon();
    }
}

#[async_trait]
impl Runtime for LocalRuntime {
    fn name(&self) -> &'static str {
        "local"
    }

    async fn observe(&self) -> Result<Observation, RuntimeError> {
        self.shared.observation().ok_or_else(|| RuntimeError::Unavailable("it has been shut down".into()))
    }

    async fn ensure(&self, workload: &Workload, epoch: Epoch) -> Result<(), RuntimeError> {
        let wish = Wish { workload: workload.clone(), epoch, removing: false };
        self.shared
            .with_records(move |shared, records| {
                admit(records, epoch)?;
                if shared.wish(&wish.workload.id).as_ref() != Some(&wish) {
                    records.write(&wish)?;
                    shared.apply(wish, &[]);
                }
                Ok(())
            })
            .await
    }

    async fn remove(&self, id: &WorkloadId, epoch: Epoch) -> Result<(), RuntimeError> {
        let id = id.clone();
        self.shared
            .with_records(move |shared, records| {
                admit(records, epoch)?;
                let Some(current) = shared.wish(&id) else { return Ok(()) };
                let wish = Wish { workload: current.workload.clone(), epoch, removing: true };
                if wish != current {
                    records.write(&wish)?;
                    shared.apply(wish, &[]);
                }
                shared.forget_if_empty(records, &id)
            })
            .await
    }

    async fn shutdown(&self) {
        Self::shutdown(self).await;
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    async fn logs(&self, id: &WorkloadId, replica: &BackendId, lines: usize) -> Result<String, RuntimeError> {
        let number = replica.as_str().parse().ok();
        let dir = number.and_then(|number| self.shared.replica_dir(id, number));
        let dir = dir.ok_or_else(|| RuntimeError::NotFound(format!("replica {replica} of {id}")))?;
        let read = tokio::task::spawn_blocking(move || log::tail(&dir, lines)).await;
        read.map_err(std::io::Error::other).flatten().map_err(|error| RuntimeError::Unavailable(error.to_string()))
    }
}

/// Refuses the writer of a past epoch, for good: the latest epoch is on disk before anything is done for it.
fn admit(records: &mut Records, epoch: Epoch) -> Result<(), RuntimeError> {
    let seen = records.epoch();
    if epoch < seen {
        return Err(RuntimeError::Fenced { given: epoch, seen });
    }
    if epoch > seen {
        records.advance_epoch(epoch)?;
    }
    Ok(())
}

impl From<LocalError> for RuntimeError {
    fn from(error: LocalError) -> Self {
        Self::Unavailable(error.to_string())
    }
}
