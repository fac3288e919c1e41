//! The token by which workers fetch artifacts: short-lived, in a Secret that every worker mounts, renewed only when
//! somebody may need it.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{Patch, PatchParams};
use modelyard_core::TokenSecret;
use serde_json::json;
use tokio::sync::Mutex;

use crate::config::TokenIssuer;
use crate::error::KubeError;
use crate::names;
use crate::world::World;
use crate::write::answered;

pub(crate) const WORKER_SECRET: &str = "modelyard-worker-token";
pub(crate) const TOKEN_KEY: &str = "token";
/// Until when the token is good, RFC 3339.
const GOOD_UNTIL: &str = "modelyard.dev/good-until";
const LIFETIME: Duration = Duration::from_secs(3600);
/// With less than this to live, a token is renewed before a pod is told to use it.
const RENEWED_BEFORE: Duration = Duration::from_secs(1800);
const RETRY: Duration = Duration::from_secs(1);

pub(crate) struct Credentials {
    api: Api<Secret>,
    world: Arc<World>,
    issuer: Option<Arc<dyn TokenIssuer>>,
    turn: Mutex<()>,
}

/// In milliseconds since the Unix epoch.
pub(crate) fn good_until(secret: &Secret) -> Option<i64> {
    let text = secret.metadata.annotations.as_ref()?.get(GOOD_UNTIL)?;
    text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond)
}

/// Writes a Secret that holds a token, and until when it is good.
pub(crate) async fn put(
    api: &Api<Secret>,
    name: &str,
    token: &TokenSecret,
    until_ms: i64,
) -> Result<Secret, KubeError> {
    let until = jiff::Timestamp::from_millisecond(until_ms).unwrap_or(jiff::Timestamp::MAX);
    let secret = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": name,
            "labels": {names::MANAGED_BY: names::APPLICATION, names::COMPONENT: "credentials"},
            "annotations": {GOOD_UNTIL: until.to_string()},
        },
        "type": "Opaque",
        "stringData": {TOKEN_KEY: token.expose()},
    });
    let params = PatchParams::apply(names::FIELD_MANAGER).force();
    answered(api.patch(name, &params, &Patch::Apply(&secret))).await
}

impl Credentials {
    pub(crate) fn new(api: Api<Secret>, world: Arc<World>, issuer: Option<Arc<dyn TokenIssuer>>) -> Self {
        Self { api, world, issuer, turn: Mutex::default() }
    }

    /// Sees to it that the Secret has a token with some time to live.
    pub(crate) async fn freshen(&self) -> Result<(), KubeError> {
        let Some(issuer) = &self.issuer else { return Ok(()) };
        if self.is_fresh() {
            return Ok(());
        }
        let _turn = self.turn.lock().await;
        if self.is_fresh() {
            return Ok(());
        }
        let until = (jiff::Timestamp::now() + LIFETIME).as_millisecond();
        let token = issuer.issue(LIFETIME).await.map_err(KubeError::Unavailable)?;
        let written = put(&self.api, WORKER_SECRET, &token, until).await?;
        self.world.see_credential(good_until(&written));
        Ok(())
    }

    fn is_fresh(&self) -> bool {
        let needed = jiff::Timestamp::now() + RENEWED_BEFORE;
        self.world.credential().is_some_and(|until| until > needed.as_millisecond())
    }

    /// Keeps the token fresh whenever a pod starts: one that was made long ago may be started again on a new node.
    pub(crate) async fn keep(self: Arc<Self>) {
        let mut changes = self.world.changes();
        loop {
            changes.mark_unchanged();
            if self.world.has_starting_pods()
                && let Err(error) = self.freshen().await
            {
                tracing::warn!(%error, "workers' token could not be renewed; trying again");
                tokio::time::sleep(RETRY).await;
                continue;
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    }
}
