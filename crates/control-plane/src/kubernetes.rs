//! Running in a cluster, or for one: its settings, the runtime for a term of office, and the tokens that others there
//! need before anybody could make them by hand.

use std::convert::Infallible;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use async_trait::async_trait;
use modelyard_core::{Actor, Role, Span, Timestamp, TokenSecret};
use modelyard_runtime_kube::{ArtifactCache, Cluster, KubeError, KubeRuntime, KubeSettings, TokenIssuer};
use modelyard_store::{NewToken, Store};

use crate::app::now;
use crate::config::Serve;

const ADMIN_SECRET: &str = "modelyard-admin-token";
const GATEWAY_SECRET: &str = "modelyard-gateway-token";
/// The first token is for making others.
const ADMIN_LIFETIME: Span = Span::from_secs(30 * 24 * 3600);
const GATEWAY_LIFETIME: Span = Span::from_secs(30 * 24 * 3600);
const GATEWAY_RENEWED_BEFORE: Span = Span::from_secs(15 * 24 * 3600);
const LOOK_EVERY: Duration = Duration::from_secs(3600);
const RETRY: Duration = Duration::from_secs(1);

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
    /// Seconds that a pod which is to end goes on as before, so that all gateways learn of it first.
    #[arg(long, default_value = "2", value_name = "SECONDS")]
    pub linger: u64,
    /// Seconds that a worker may take to fetch and load its model before it is started again.
    #[arg(long, default_value = "600", value_name = "SECONDS")]
    pub start_timeout: u64,
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
pub(crate) async fn open(config: &Serve, store: &Store) -> anyhow::Result<Arc<KubeRuntime>> {
    let options = &config.kubernetes;
    let cluster = cluster(options).await?;
    let settings = settings(config, &cluster).await?;
    let issuer = Arc::new(Issuer { store: store.clone() });
    loop {
        match KubeRuntime::open(&cluster, settings.clone(), Some(issuer.clone())).await {
            Ok(runtime) => return Ok(runtime),
            // It may be starting, or starting again: nothing is decided until it answers.
            Err(error @ KubeError::Unavailable(_)) => {
                tracing::warn!(%error, "waiting for the cluster");
                tokio::time::sleep(RETRY).await;
            }
            Err(error) => return Err(error).context("the cluster cannot be used"),
        }
    }
}

async fn settings(config: &Serve, cluster: &Cluster) -> anyhow::Result<KubeSettings> {
    let options = &config.kubernetes;
    let image = match (&options.worker_image, std::env::var("POD_NAME")) {
        (Some(image), _) => image.clone(),
        (None, Ok(pod)) => cluster.image_of_pod(&pod).await.context("which image do workers run?")?,
        (None, Err(_)) => bail!("--worker-image is missing: outside a pod there is none to take it from"),
    };
    let artifacts_url = options.artifacts_url.clone().unwrap_or_else(|| config.advertised());
    let gateway = [("app.kubernetes.io/name", "modelyard"), ("app.kubernetes.io/component", "gateway")];
    let gateway = gateway.map(|(key, value)| (key.to_owned(), value.to_owned()));
    Ok(KubeSettings {
        image_pull_policy: options.image_pull_policy.clone(),
        image_pull_secrets: options.image_pull_secret.clone(),
        ca_config_map: options.artifacts_ca.clone(),
        cache: options.artifact_cache.0.clone(),
        cache_limit: options.artifact_cache_limit.clone(),
        gateway_labels: options.network_policies.then(|| gateway.to_vec()),
        drain_timeout: config.drain_timeout,
        linger: Duration::from_secs(options.linger),
        start_timeout: Duration::from_secs(options.start_timeout),
        ..KubeSettings::new(&image, &artifacts_url)
    })
}

/// Workers' tokens: good for artifacts and nothing else, and not for long.
struct Issuer {
    store: Store,
}

#[async_trait]
impl TokenIssuer for Issuer {
    async fn issue(&self, lifetime: Duration) -> Result<TokenSecret, String> {
        issue(&self.store, Role::Worker, Span::from_secs(lifetime.as_secs())).await.map_err(|error| error.to_string())
    }
}

async fn issue(store: &Store, role: Role, lifetime: Span) -> anyhow::Result<TokenSecret> {
    let name = format!("{role}s").parse()?;
    let issued = store.issue_token(NewToken { name, role, lifetime }, now()).await?;
    Ok(issued.secret)
}

/// Before the first person has a token: makes one for them, and one for the gateways, and leaves both in Secrets. An
/// installation is then complete by `kubectl apply` alone.
///
/// # Errors
/// If the cluster or Postgres refuses.
pub(crate) async fn make_first_tokens(options: &Options, store: &Store) -> anyhow::Result<()> {
    if options.runtime == RuntimeKind::Local {
        return Ok(());
    }
    let cluster = cluster(options).await?;
    if !store.has_token_for_people(now()).await? {
        let name = "first-admin".parse()?;
        let new = NewToken { name, role: Role::Admin, lifetime: ADMIN_LIFETIME };
        let issued = store.create_token(new, &Actor::system(), now()).await?;
        let until = issued.row.expires_at;
        cluster.put_token(ADMIN_SECRET, &issued.secret, until.as_millis()).await.context(ADMIN_SECRET)?;
        tracing::info!("the first administrator's token is in the Secret {ADMIN_SECRET}, until {until}");
        // Whatever token gateways had, this database does not know it.
        renew_gateways(&cluster, store).await?;
    }
    freshen_gateways(&cluster, store).await
}

/// Keeps the gateways' token good for as long as a term lasts.
pub(crate) async fn look_after_tokens(options: &Options, store: &Store) -> Infallible {
    if options.runtime == RuntimeKind::Local {
        return std::future::pending().await;
    }
    loop {
        // They were looked at when this process started.
        tokio::time::sleep(LOOK_EVERY).await;
        let fresh = async { freshen_gateways(&cluster(options).await?, store).await };
        if let Err(error) = fresh.await {
            tracing::warn!("the gateways' token could not be looked after: {error:#}");
        }
    }
}

async fn freshen_gateways(cluster: &Cluster, store: &Store) -> anyhow::Result<()> {
    let until = cluster.token_good_until(GATEWAY_SECRET).await?.map(Timestamp::from_millis);
    if until.is_some_and(|until| until > now() + GATEWAY_RENEWED_BEFORE) {
        return Ok(());
    }
    renew_gateways(cluster, store).await
}

async fn renew_gateways(cluster: &Cluster, store: &Store) -> anyhow::Result<()> {
    let until = now() + GATEWAY_LIFETIME;
    let token = issue(store, Role::Gateway, GATEWAY_LIFETIME).await?;
    cluster.put_token(GATEWAY_SECRET, &token, until.as_millis()).await.context(GATEWAY_SECRET)
}
