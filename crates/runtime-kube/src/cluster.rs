//! What an installation asks of its cluster besides running workloads: who it is, and Secrets for others.

use std::path::Path;

use k8s_openapi::api::core::v1::{Pod, Secret as KubeSecret};
use kube::api::PostParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::json;

use crate::config::Secret;
use crate::error::{KubeError, chain};
use crate::names;
use crate::write::answered;

const CONNECT: std::time::Duration = std::time::Duration::from_secs(3);

/// The way to one namespace of a cluster.
#[derive(Clone)]
pub struct Cluster {
    pub(crate) client: Client,
    pub(crate) namespace: String,
}

impl Cluster {
    /// By `kubeconfig`, or else by what the environment says: `KUBECONFIG`, `~/.kube/config`, or a pod's own account.
    ///
    /// # Errors
    /// [`KubeError::NotConfigured`].
    pub async fn find(kubeconfig: Option<&Path>, namespace: &str) -> Result<Self, KubeError> {
        let unreadable = |error: &dyn std::error::Error| KubeError::NotConfigured(chain(error));
        let mut config = match kubeconfig {
            Some(path) => {
                let read = Kubeconfig::read_from(path).map_err(|error| unreadable(&error))?;
                let read = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await;
                read.map_err(|error| unreadable(&error))?
            }
            None => Config::infer().await.map_err(|error| unreadable(&error))?,
        };
        config.connect_timeout = Some(CONNECT);
        let client = Client::try_from(config).map_err(|error| unreadable(&error))?;
        Ok(Self { client, namespace: namespace.to_owned() })
    }

    /// The image of the first container of a pod: of this one, what workers run too.
    ///
    /// # Errors
    /// If the API server does not answer, or there is no such pod.
    pub async fn image_of_pod(&self, pod: &str) -> Result<String, KubeError> {
        let api = Api::<Pod>::namespaced(self.client.clone(), &self.namespace);
        let found = answered(api.get(pod)).await?;
        let image = found.spec.and_then(|spec| spec.containers.into_iter().next()).and_then(|c| c.image);
        image.ok_or_else(|| KubeError::NotFound(format!("image of pod {pod}")))
    }

    /// Whether there is a Secret of that name.
    ///
    /// # Errors
    /// If the API server does not answer.
    pub async fn has_secret(&self, name: &str) -> Result<bool, KubeError> {
        let api = Api::<KubeSecret>::namespaced(self.client.clone(), &self.namespace);
        Ok(answered(api.get_metadata_opt(name)).await?.is_some())
    }

    /// Makes a Secret with one value. False if somebody else was first: then nothing is changed.
    ///
    /// # Errors
    /// If the API server does not answer, or refuses.
    pub async fn make_secret(&self, name: &str, key: &str, value: &Secret) -> Result<bool, KubeError> {
        let api = Api::<KubeSecret>::namespaced(self.client.clone(), &self.namespace);
        let secret = json!({
            "metadata": {
                "name": name,
                "labels": {names::MANAGED_BY: names::APPLICATION, names::COMPONENT: "credentials"},
            },
            "type": "Opaque",
            "stringData": {key: value.0},
        });
        let secret: KubeSecret = serde_json::from_value(secret).unwrap_or_default();
        let params = PostParams { field_manager: Some(names::FIELD_MANAGER.to_owned()), ..PostParams::default() };
        match answered(api.create(&params, &secret)).await {
            Ok(_) => Ok(true),
            Err(KubeError::Conflict(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
