//! What is the same for all workloads of an installation.

use std::time::Duration;

use async_trait::async_trait;
use modelyard_core::TokenSecret;

/// How this installation runs workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubeSettings {
    /// The image that has `modelyard-worker`.
    pub image: String,
    /// `IfNotPresent`, `Always` or `Never`.
    pub image_pull_policy: String,
    /// Names of Secrets to pull the image with.
    pub image_pull_secrets: Vec<String>,
    /// Where pods reach the admin API, for artifacts: `https://modelyard-control-plane.modelyard.svc:8080`.
    pub artifacts_url: String,
    /// The ConfigMap whose `ca.crt` vouches for `artifacts_url`, where a private authority does.
    pub ca_config_map: Option<String>,
    pub cache: ArtifactCache,
    /// At most so much is kept in a cache: `20Gi`.
    pub cache_limit: String,
    /// Labels of the pods that may reach workers, as a NetworkPolicy says it. `None` makes no NetworkPolicies.
    pub gateway_labels: Option<Vec<(String, String)>>,
    /// How long a worker may take to finish its requests when it is told to end.
    pub drain_timeout: Duration,
    /// How long a pod that ends goes on as if nothing had happened, so that every gateway learns of it first.
    pub linger: Duration,
    /// How long a worker may take to fetch and load its model before it is started again.
    pub start_timeout: Duration,
}

impl KubeSettings {
    /// The usual settings; `artifacts_url` is where the control plane is reached from pods.
    pub fn new(image: &str, artifacts_url: &str) -> Self {
        Self {
            image: image.to_owned(),
            image_pull_policy: "IfNotPresent".to_owned(),
            image_pull_secrets: Vec::new(),
            artifacts_url: artifacts_url.trim_end_matches('/').to_owned(),
            ca_config_map: None,
            cache: ArtifactCache::Pod,
            cache_limit: "20Gi".to_owned(),
            gateway_labels: None,
            drain_timeout: Duration::from_secs(30),
            linger: Duration::from_secs(2),
            start_timeout: Duration::from_secs(600),
        }
    }
}

/// Where pods keep artifacts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ArtifactCache {
    /// In the pod: outlives its containers, not itself.
    Pod,
    /// In a directory of the node, which all its pods share. Workers are not root: it must be writable for all.
    Node { path: String },
    /// On a volume that all pods share.
    Claim { name: String },
}

/// Issues tokens by which workers fetch artifacts, and nothing else.
#[async_trait]
pub trait TokenIssuer: Send + Sync {
    /// A token that is good for `lifetime` from now.
    ///
    /// # Errors
    /// In words, if none can be issued now.
    async fn issue(&self, lifetime: Duration) -> Result<TokenSecret, String>;
}
