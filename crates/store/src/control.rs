//! What people ask of a rollout under way: pause, resume, promote.

use modelyard_core::event::{EventDraft, EventKind};
use modelyard_core::state::Control;
use modelyard_core::{Actor, DeploymentName, RevisionNumber, Timestamp};
use serde_json::json;
use sqlx::types::Json;

use crate::deployments::lock;
use crate::{Result, Store, StoreError, events};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlVerb {
    Pause,
    Resume,
    Promote,
}

impl Store {
    /// # Errors
    /// [`StoreError::Conflict`] if there is nothing to pause, resume or promote; [`StoreError::Stale`];
    /// [`StoreError::NotFound`].
    pub async fn control(
        &self,
        name: &DeploymentName,
        verb: ControlVerb,
        expected: Option<RevisionNumber>,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<()> {
        let mut tx = self.write().await?;
        let locked = lock(&mut tx, name, expected).await?;
        let number = locked.target.number;
        let conflict = |message: String| Err(StoreError::Conflict { message });
        if !locked.is_rolling() {
            return conflict(format!(
                "revision {number} of {name} already serves all traffic; there is no rollout under way"
            ));
        }
        let mut control = if locked.control.revision == number { locked.control } else { Control::default() };
        control.revision = number;
        let (kind, done) = match verb {
            ControlVerb::Pause if control.paused_by.is_some() => {
                return conflict(format!("the rollout of {name} is paused already"));
            }
            ControlVerb::Pause => {
                control.paused_by = Some(actor.clone());
                (EventKind::RolloutPaused, "paused")
            }
            ControlVerb::Resume if control.paused_by.is_none() => {
                return conflict(format!("the rollout of {name} is not paused"));
            }
            ControlVerb::Resume => {
                control.paused_by = None;
                (EventKind::RolloutResumed, "resumed")
            }
            ControlVerb::Promote => {
                control.paused_by = None;
                control.promoted_by = Some(actor.clone());
                (EventKind::RolloutPromoted, "promoted: it skips the remaining steps")
            }
        };
        sqlx::query!(
            "update deployments set control = $2, state_version = state_version + 1 where name = $1",
            name.as_str(),
            Json(&control) as _,
        )
        .execute(&mut *tx)
        .await?;
        let event = EventDraft {
            kind,
            actor: actor.clone(),
            model: Some(locked.target.version.model),
            deployment: Some(name.clone()),
            message: format!("the rollout to revision {number} was {done}"),
            data: json!({"revision": number}),
        };
        events::append(&mut tx, &event, now).await?;
        Ok(tx.commit().await?)
    }
}
