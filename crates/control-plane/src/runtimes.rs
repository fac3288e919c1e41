//! The runtime that a term of office acts by. Opened when office is taken, left when it is.

use std::sync::Arc;

use modelyard_runtime::{ArtifactSource, Runtime};
use modelyard_runtime_local::{LocalConfig, LocalError, LocalRuntime};
use modelyard_store::Store;

use crate::config::Serve;
use crate::kubernetes::{self, RuntimeKind};

pub(crate) enum OpenError {
    /// It may be had in a while: what it waits for, in words.
    NotYet(String),
    Failed(anyhow::Error),
}

pub(crate) async fn open(
    config: &Serve,
    store: &Store,
    artifacts: Arc<dyn ArtifactSource>,
) -> Result<Arc<dyn Runtime>, OpenError> {
    match config.kubernetes.runtime {
        RuntimeKind::Local => local(config, artifacts).await,
        RuntimeKind::Kubernetes => Ok(kubernetes::open(config, store).await?),
    }
}

async fn local(config: &Serve, artifacts: Arc<dyn ArtifactSource>) -> Result<Arc<dyn Runtime>, OpenError> {
    let local = LocalConfig {
        drain_timeout: config.drain_timeout,
        ..LocalConfig::new(config.state_dir.clone(), config.worker_binary.clone())
    };
    match LocalRuntime::open(local, artifacts).await {
        Ok(runtime) => Ok(runtime),
        Err(taken @ LocalError::Taken { .. }) => Err(OpenError::NotYet(taken.to_string())),
        Err(error) => Err(OpenError::Failed(error.into())),
    }
}
