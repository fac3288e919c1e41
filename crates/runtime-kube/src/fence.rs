//! The fence: a ConfigMap with the latest epoch that wrote here. It refuses the writers of earlier ones, also where no
//! object is left that could bear an epoch. It is moved at an epoch's first write, by compare-and-set, so that a control
//! plane that finds everything as it should be writes nothing at all.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::PostParams;
use modelyard_core::Epoch;
use modelyard_runtime::RuntimeError;
use serde_json::json;
use tokio::sync::Mutex;

use crate::error::KubeError;
use crate::names;
use crate::world::{FenceSeen, World};
use crate::write::answered;

pub(crate) const NAME: &str = "modelyard-fence";
const KEY: &str = "epoch";

pub(crate) struct Fence {
    api: Api<ConfigMap>,
    world: Arc<World>,
    turn: Mutex<()>,
}

/// What the ConfigMap says; one that cannot be read says nothing.
pub(crate) fn read(map: &ConfigMap) -> Option<FenceSeen> {
    let epoch = map.data.as_ref()?.get(KEY)?.parse().ok()?;
    Some(FenceSeen { epoch, resource_version: map.metadata.resource_version.clone()? })
}

impl Fence {
    pub(crate) fn new(api: Api<ConfigMap>, world: Arc<World>) -> Self {
        Self { api, world, turn: Mutex::default() }
    }

    /// Lets a writer pass, and keeps all earlier ones out from then on.
    ///
    /// # Errors
    /// [`RuntimeError::Fenced`] if a later epoch has been here.
    pub(crate) async fn admit(&self, epoch: Epoch) -> Result<(), RuntimeError> {
        if self.passes(epoch)? {
            return Ok(());
        }
        let _turn = self.turn.lock().await;
        while !self.passes(epoch)? {
            self.advance(epoch).await?;
        }
        Ok(())
    }

    fn passes(&self, epoch: Epoch) -> Result<bool, RuntimeError> {
        match self.world.fence().map(|fence| fence.epoch) {
            Some(seen) if seen > epoch => Err(RuntimeError::Fenced { given: epoch, seen }),
            seen => Ok(seen == Some(epoch)),
        }
    }

    /// One attempt: afterwards the fence is seen as it is, moved by us or by somebody else.
    async fn advance(&self, epoch: Epoch) -> Result<(), KubeError> {
        let seen = self.world.fence();
        let map = map(epoch, seen.as_ref());
        let params = PostParams { field_manager: Some(names::FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let written = match seen {
            Some(_) => answered(self.api.replace(NAME, &params, &map)).await,
            None => answered(self.api.create(&params, &map)).await,
        };
        let now = match written {
            Ok(map) => Some(map),
            Err(KubeError::Conflict(_) | KubeError::NotFound(_)) => answered(self.api.get_opt(NAME)).await?,
            Err(error) => return Err(error),
        };
        self.world.see_fence(now.as_ref().and_then(read));
        Ok(())
    }
}

fn map(epoch: Epoch, seen: Option<&FenceSeen>) -> ConfigMap {
    let metadata = json!({
        "name": NAME,
        "labels": {names::MANAGED_BY: names::APPLICATION, names::COMPONENT: "fence"},
        "resourceVersion": seen.map(|fence| &fence.resource_version),
    });
    let map = json!({"metadata": metadata, "data": {KEY: epoch.to_string()}});
    serde_json::from_value(map).unwrap_or_default()
}
