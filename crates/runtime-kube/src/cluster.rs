//! What an installation asks of its cluster besides running workloads: who it is, and Secrets for others.

use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod, Secret};
use kube::client::ClientBuilder;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use modelyard_core::TokenSecret;
use tower::timeout::TimeoutLayer;

use crate::credentials;
use crate::error::{KubeError, chain};
use crate::write::{ANSWER, answered};

const CONNECT: Duration = Duration::from_secs(3);
/// Longer than any watch is silent.
const SILENCE: Duration = Duration::from_secs(75);
/// The container of the control plane in its own pod, as `manifests/base` names it.
const OURS: &str = "control-plane";

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
        config.read_timeout = Some(SILENCE);
        config.reset_reader_on_write = true;
        let client = ClientBuilder::try_from(config).map_err(|error| unreadable(&error))?;
        // A server that takes requests and does nothing with them: the other timeouts are of the connection.
        let client = client.with_layer(&TimeoutLayer::new(ANSWER)).build();
        Ok(Self { client, namespace: namespace.to_owned() })
    }

    /// The image that a pod runs our programs from: of this one, what workers run too. It is that of the container
    /// `control-plane`, or of the only one; side-cars come in any order.
    ///
    /// # Errors
    /// If the API server does not answer, or there is no such pod, or none of its containers is plainly ours.
    pub async fn image_of_pod(&self, pod: &str) -> Result<String, KubeError> {
        let api = Api::<Pod>::namespaced(self.client.clone(), &self.namespace);
        let found = answered(api.get(pod)).await?;
        let containers = found.spec.map(|spec| spec.containers).unwrap_or_default();
        let missing = || format!("container `{OURS}` among those of pod {pod}: --worker-image names the image instead");
        image(&containers).ok_or_else(|| KubeError::NotFound(missing()))
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
    pub async fn put_token(&self, name: &str, token: &TokenSecret, good_until_ms: i64) -> Result<(), KubeError> {
        credentials::put(&self.secrets(), name, token, good_until_ms).await.map(|_| ())
    }

    pub(crate) fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }
}

fn image(containers: &[Container]) -> Option<String> {
    let named = containers.iter().find(|container| container.name == OURS);
    let ours = named.or(if let [only] = containers { Some(only) } else { None })?;
    ours.image.clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_is_never_that_of_a_side_car() {
        let container = |name: &str| Container {
            name: name.to_owned(),
            image: Some(format!("image-of-{name}")),
            ..Container::default()
        };
        let [proxy, ours, other] = ["proxy", OURS, "other"].map(container);
        assert_eq!(image(&[proxy.clone(), ours.clone()]).as_deref(), Some("image-of-control-plane"));
        assert_eq!(image(&[ours, proxy.clone()]).as_deref(), Some("image-of-control-plane"));
        assert_eq!(image(std::slice::from_ref(&other)).as_deref(), Some("image-of-other"), "a manifest of one's own");
        assert_eq!(image(&[proxy, other]), None);
        assert_eq!(image(&[]), None);
    }
}
