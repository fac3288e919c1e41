//! What an installation asks of its cluster besides running workloads: who it is, and Secrets for others.

use std::path::Path;

use k8s_openapi::api::core::v1::{Pod, Secret as KubeSecret};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};

use crate::config::Secret;
use crate::credentials;
use crate::error::{KubeError, chain};
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

    /// Until when the token in a Secret is good, in milliseconds since the Unix epoch. `None` if there is none.
    ///
    /// # Errors
    /// If the API server does not answer.
    pub async fn token_good_until(&self, name: &str) -> Result<Option<i64>, KubeError> {
        let found = answered(self.secrets().get_opt(name)).await?;
        Ok(found.as_ref().and_then(credentials::good_until))
    }

    /// Puts a token into a Secret, which is made if need be.
    ///
    /// # Errors
    /// If the API server does not answer, or refuses.
    pub async fn put_token(&self, name: &str, token: &Secret, good_until_ms: i64) -> Result<(), KubeError> {
        credentials::put(&self.secrets(), name, token, good_until_ms).await.map(|_| ())
    }

    pub(crate) fn secrets(&self) -> Api<KubeSecret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }
}
