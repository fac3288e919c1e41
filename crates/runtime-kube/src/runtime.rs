//! The runtime as others see it: wishes in, observations out.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::LogParams;
use modelyard_core::{BackendId, Epoch, Observation, Workload, WorkloadId};
use modelyard_runtime::{Runtime, RuntimeError};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::cluster::Cluster;
use crate::config::{KubeSettings, TokenIssuer};
use crate::credentials::Credentials;
use crate::error::KubeError;
use crate::fence::Fence;
use crate::kind::Served;
use crate::names;
use crate::watch as watches;
use crate::world::World;
use crate::write::{Writer, answered};

/// Runs workloads in a cluster. When the value is dropped, its watches end and the workloads go on.
pub struct KubeRuntime {
    world: Arc<World>,
    writer: Writer,
    pods: Api<Pod>,
    tasks: Mutex<JoinSet<()>>,
}

impl KubeRuntime {
    /// Returns once everything there has been seen. Writes nothing.
    ///
    /// # Errors
    /// If the API server does not answer.
    pub async fn open(
        cluster: &Cluster,
        settings: KubeSettings,
        issuer: Option<Arc<dyn TokenIssuer>>,
    ) -> Result<Arc<Self>, KubeError> {
        let Cluster { client, namespace } = cluster.clone();
        let served = answered(Served::discover(&client)).await?;
        let world = Arc::new(World::new(settings, served));
        let mut tasks = watches::start(cluster, &world);
        let credentials = Arc::new(Credentials::new(cluster.secrets(), world.clone(), issuer));
        let fence = Fence::new(Api::namespaced(client.clone(), &namespace), world.clone());
        let writer = Writer::new(cluster.clone(), world.clone(), fence, credentials.clone());
        everything_seen(&world).await?;
        tasks.spawn(credentials.keep());
        Ok(Arc::new(Self { world, writer, pods: Api::namespaced(client, &namespace), tasks: Mutex::new(tasks) }))
    }

    async fn log(&self, pod: &str, lines: usize, previous: bool) -> Result<String, KubeError> {
        let params = LogParams {
            container: Some(names::WORKER.to_owned()),
            tail_lines: Some(i64::try_from(lines).unwrap_or(i64::MAX)),
            previous,
            ..LogParams::default()
        };
        answered(self.pods.logs(pod, &params)).await
    }
}

async fn everything_seen(world: &World) -> Result<(), KubeError> {
    let sources = watches::sources(world);
    let mut changes = world.changes();
    let seen = changes.wait_for(|_| world.is_synced(&sources));
    // A watch that is refused says why; one that hangs does not.
    match tokio::time::timeout(Duration::from_secs(20), seen).await {
        Ok(_) => Ok(()),
        Err(_) => Err(KubeError::Unavailable(
            world.trouble().unwrap_or_else(|| "it did not list what there is within 20 s".to_owned()),
        )),
    }
}

#[async_trait]
impl Runtime for KubeRuntime {
    fn name(&self) -> &'static str {
        "kubernetes"
    }

    async fn observe(&self) -> Result<Observation, RuntimeError> {
        Ok(self.world.observation())
    }

    async fn ensure(&self, workload: &Workload, epoch: Epoch) -> Result<(), RuntimeError> {
        self.writer.ensure(workload, epoch).await
    }

    async fn remove(&self, id: &WorkloadId, epoch: Epoch) -> Result<(), RuntimeError> {
        self.writer.remove(id, epoch).await
    }

    /// Ends the watches. What was seen last is still observed.
    async fn shutdown(&self) {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.world.changes()
    }

    async fn logs(&self, id: &WorkloadId, replica: &BackendId, lines: usize) -> Result<String, RuntimeError> {
        let name = replica.as_str();
        let restarts = self.world.entry(id, |entry| Some(entry.pods.get(name)?.replica.as_ref()?.restarts)).flatten();
        let not_found = || RuntimeError::NotFound(format!("replica {replica} of {id}"));
        let restarts = restarts.ok_or_else(not_found)?;
        // Of a container that is about to be started again, the log is that of its last run.
        let mut text = if restarts > 0 { self.log(name, lines, true).await.unwrap_or_default() } else { String::new() };
        let current = self.log(name, lines, false).await?;
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        if text != current {
            text.push_str(&current);
        }
        let all: Vec<_> = text.lines().collect();
        Ok(all[all.len().saturating_sub(lines)..].join("\n"))
    }
}
