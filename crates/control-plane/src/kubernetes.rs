//! Running in a cluster, or for one: its settings, and the runtime for a term of office.

pub(crate) mod tokens;

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use modelyard_runtime_kube::{ArtifactCache, Cluster, KubeError, KubeRuntime, KubeSettings};
use modelyard_store::Store;

use crate::config::{Serve, duration};
use crate::runtimes::OpenError;

/// How workers are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum RuntimeKind {
    /// As processes of this machine.
    Local,
    /// As pods.
    Kubernetes,
}

/// For `--runtime kubernetes`.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Kubernetes")]
pub struct Options {
    #[arg(long, value_enum, default_value = "local")]
    pub runtime: RuntimeKind,
    /// Where workers live. What bears Modelyard's labels there is this installation's.
    #[arg(long, env = "POD_NAMESPACE", default_value = "modelyard")]
    pub namespace: String,
    /// How to reach the cluster; by default KUBECONFIG, ~/.kube/config, or this pod's own account.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The image that has modelyard-worker; in a pod, its own by default.
    #[arg(long, env = "MODELYARD_WORKER_IMAGE", value_name = "IMAGE")]
    pub worker_image: Option<String>,
    #[arg(long, default_value = "IfNotPresent", value_parser = ["IfNotPresent", "Always", "Never"])]
    pub image_pull_policy: String,
    /// A Secret to pull the image with; may be given again.
    #[arg(long, value_name = "NAME")]
    pub image_pull_secret: Vec<String>,
    /// Where pods reach this API, for artifacts; by default what --advertise says.
    #[arg(long, value_name = "URL")]
    pub artifacts_url: Option<String>,
    /// A ConfigMap whose ca.crt vouches for --artifacts-url.
    #[arg(long, value_name = "CONFIGMAP")]
    pub artifacts_ca: Option<String>,
    /// Where pods keep artifacts: `pod` (an emptyDir), `node:/PATH` (shared by a node's pods; writable for all), or
    /// `claim:NAME` (a PersistentVolumeClaim).
    #[arg(long, default_value = "pod")]
    pub artifact_cache: CacheArgument,
    /// How much a cache may hold before what was unused for longest goes.
    #[arg(long, value_name = "SIZE", default_value = "20Gi")]
    pub artifact_cache_limit: String,
    /// Let nobody but the gateway's pods reach workers, by NetworkPolicies.
    #[arg(long)]
    pub network_policies: bool,
    /// How long a pod that is to end goes on as before, so that all gateways learn of it first.
    #[arg(long, default_value = "2s", value_name = "DURATION", value_parser = duration)]
    pub linger: Duration,
    /// How long a worker may take to fetch and load its model before it is started again.
    #[arg(long, default_value = "10m", value_name = "DURATION", value_parser = duration)]
    pub start_timeout: Duration,
}

#[derive(Debug, Clone)]
pub struct CacheArgument(ArtifactCache);

impl FromStr for CacheArgument {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "pod" => Ok(Self(ArtifactCache::Pod)),
            Some(("node", path)) if path.starts_with('/') => Ok(Self(ArtifactCache::Node { path: path.to_owned() })),
            Some(("claim", name)) if !name.is_empty() => Ok(Self(ArtifactCache::Claim { name: name.to_owned() })),
            _ => Err("use pod, node:/PATH or claim:NAME".to_owned()),
        }
    }
}

pub(crate) async fn cluster(options: &Options) -> Result<Cluster, KubeError> {
    Cluster::find(options.kubeconfig.as_deref(), &options.namespace).await
}

/// The runtime for one term of office.
///
/// # Errors
/// [`OpenError::NotYet`] for whatever may pass: an API server that is away, or is starting and knows no rights yet.
pub(crate) async fn open(config: &Serve, store: &Store) -> Result<Arc<KubeRuntime>, OpenError> {
    let not_yet = |error: KubeError| match error {
        KubeError::NotConfigured(_) => OpenError::Failed(error.into()),
        error => OpenError::NotYet(format!("the cluster: {error}")),
    };
    let cluster = cluster(&config.kubernetes).await.map_err(not_yet)?;
    let image = worker_image(config, &cluster).await?.map_err(not_yet)?;
    let issuer = Arc::new(tokens::Issuer { store: store.clone() });
    KubeRuntime::open(&cluster, settings(config, &image), Some(issuer)).await.map_err(not_yet)
}

async fn worker_image(config: &Serve, cluster: &Cluster) -> Result<Result<String, KubeError>, OpenError> {
    match (&config.kubernetes.worker_image, std::env::var("POD_NAME")) {
        (Some(image), _) => Ok(Ok(image.clone())),
        (None, Ok(pod)) => Ok(cluster.image_of_pod(&pod).await),
        (None, Err(_)) => {
            let missing = anyhow::anyhow!("--worker-image is missing: outside a pod there is none to take it from");
            Err(OpenError::Failed(missing))
        }
    }
}

fn settings(config: &Serve, image: &str) -> KubeSettings {
    let options = &config.kubernetes;
    let artifacts_url = options.artifacts_url.clone().unwrap_or_else(|| config.advertised());
    let gateway = [("app.kubernetes.io/name", "modelyard"), ("app.kubernetes.io/component", "gateway")];
    let gateway = gateway.map(|(key, value)| (key.to_owned(), value.to_owned()));
    KubeSettings {
        image_pull_policy: options.image_pull_policy.clone(),
        image_pull_secrets: options.image_pull_secret.clone(),
        ca_config_map: options.artifacts_ca.clone(),
        cache: options.artifact_cache.0.clone(),
        cache_limit: options.artifact_cache_limit.clone(),
        gateway_labels: options.network_policies.then(|| gateway.to_vec()),
        drain_timeout: config.drain_timeout,
        linger: options.linger,
        start_timeout: options.start_timeout,
        ..KubeSettings::new(image, &artifacts_url)
    }
}
