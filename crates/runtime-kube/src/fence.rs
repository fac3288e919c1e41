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
/// A fence that others move at the same time is tried again so often.
const ATTEMPTS: usize = 8;

pub(crate) struct Fence {
    api: Api<ConfigMap>,
    world: Arc<World>,
    turn: Mutex<()>,
}

/// What the ConfigMap says. One that is there and says nothing is still one to be written as it was last seen.
pub(crate) fn read(map: &ConfigMap) -> Option<FenceSeen> {
    let epoch = map.data.as_ref().and_then(|data| data.get(KEY)?.parse().ok());
    Some(FenceSeen { epoch, resource_version: map.metadata.resource_version.clone()? })
}

impl Fence {
    pub(crate) fn new(api: Api<ConfigMap>, world: Arc<World>) -> Self {
        Self { api, world, turn: Mutex::default() }
    }

    /// Lets a writer pass, and keeps all earlier ones out from then on.
    ///
    /// # Errors
    /// [`RuntimeError::Fenced`] if a later epoch has been here, [`RuntimeError::Unavailable`] if it cannot be moved.
    pub(crate) async fn admit(&self, epoch: Epoch) -> Result<(), RuntimeError> {
        if self.passes(epoch)? {
            return Ok(());
        }
        let _turn = self.turn.lock().await;
        for _ in 0..ATTEMPTS {
            if self.passes(epoch)? {
                return Ok(());
            }
            self.advance(epoch).await?;
        }
        match self.passes(epoch)? {
            true => Ok(()),
            false => {
                Err(RuntimeError::Unavailable(format!("the ConfigMap {NAME} changes faster than it can be moved")))
            }
        }
    }

    /// Whether a writer that was let pass may go on, by what is known of the fence: no call is made.
    ///
    /// # Errors
    /// [`RuntimeError::Fenced`] if a later epoch has been here since.
    pub(crate) fn still(&self, epoch: Epoch) -> Result<(), RuntimeError> {
        self.passes(epoch).map(|_| ())
    }

    /// Looks at the fence itself, whatever its watch has told.
    ///
    /// # Errors
    /// As [`Self::still`], or if the API server does not answer.
    pub(crate) async fn look(&self, epoch: Epoch) -> Result<(), RuntimeError> {
        self.see().await?;
        self.still(epoch)
    }

    fn passes(&self, epoch: Epoch) -> Result<bool, RuntimeError> {
        match self.world.fence().and_then(|fence| fence.epoch) {
            Some(seen) if seen > epoch => Err(RuntimeError::Fenced { given: epoch, seen }),
            seen => Ok(seen == Some(epoch)),
        }
    }

    async fn see(&self) -> Result<(), KubeError> {
        let now = answered(self.api.get_opt(NAME)).await?;
        self.world.see_fence(now.as_ref().and_then(read));
        Ok(())
    }

    /// One attempt: afterwards the fence is seen as it is, moved by us or by somebody else.
    async fn advance(&self, epoch: Epoch) -> Result<(), RuntimeError> {
        let seen = self.world.fence();
        if seen.as_ref().is_some_and(|fence| fence.epoch.is_none()) {
            // What it said is lost, but each object bears its last writer's epoch, too.
            let latest = self.world.latest_epoch();
            if latest > epoch {
                return Err(RuntimeError::Fenced { given: epoch, seen: latest });
            }
            tracing::warn!(%epoch, "the ConfigMap {NAME} holds no epoch: somebody has changed it. It is written anew");
        }
        let map = map(epoch, seen.as_ref());
        let params = PostParams { field_manager: Some(names::FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let written = match seen {
            Some(_) => answered(self.api.replace(NAME, &params, &map)).await,
            None => answered(self.api.create(&params, &map)).await,
        };
        match written {
            Ok(map) => self.world.see_fence(read(&map)),
            Err(KubeError::Conflict(_) | KubeError::NotFound(_)) => self.see().await?,
            Err(error) => return Err(error.into()),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_without_an_epoch_is_one_that_is_there() {
        let mut map = map(Epoch(7), None);
        assert_eq!(read(&map), None, "it has not been written");
        map.metadata.resource_version = Some("1".into());
        let seen = |epoch| Some(FenceSeen { epoch, resource_version: "1".into() });
        assert_eq!(read(&map), seen(Some(Epoch(7))));
        map.data.get_or_insert_default().insert(KEY.into(), "seven".into());
        assert_eq!(read(&map), seen(None));
        map.data = None;
        assert_eq!(read(&map), seen(None));
    }
}
