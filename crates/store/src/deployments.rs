//! Deployments: read, locked for a write, deleted.

use std::collections::BTreeMap;

use modelyard_core::event::{EventDraft, EventKind};
use modelyard_core::state::{Control, DeploymentState, Phase, Revision};
use modelyard_core::{Actor, DeploymentName, RevisionNumber, Timestamp};
use serde_json::json;
use sqlx::types::Json;

use crate::{Result, Store, StoreError, Tx, events, revisions, unsigned};

/// A deployment with its latest revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeploymentRow {
    pub name: DeploymentName,
    pub labels: BTreeMap<String, String>,
    pub revision: Revision,
    /// The revision that serves, or last served, all traffic.
    pub stable: Option<RevisionNumber>,
    pub created_at: Timestamp,
}

impl Store {
    /// # Errors
    /// [`StoreError::NotFound`]
    pub async fn deployment(&self, name: &DeploymentName) -> Result<DeploymentRow> {
        let row = sqlx::query!(
            r#"select labels as "labels: Json<BTreeMap<String, String>>", target, created_ms,
                      state as "state: Json<DeploymentState>" from deployments where name = $1"#,
            name.as_str(),
        );
        let row = row.fetch_optional(&self.pool).await?.ok_or_else(|| StoreError::not_found("deployment", name))?;
        let revision = self.revision(name, RevisionNumber(unsigned(row.target))).await?.revision;
        let created_at = Timestamp::from_millis(row.created_ms);
        Ok(DeploymentRow { name: name.clone(), labels: row.labels.0, revision, stable: row.state.0.stable, created_at })
    }

    /// In order of name, those after `after`.
    pub async fn list_deployments(&self, limit: i64, after: Option<&DeploymentName>) -> Result<Vec<DeploymentRow>> {
        let names = sqlx::query_scalar!(
            "select name from deployments where name > $1 order by name limit $2",
            after.map_or("", DeploymentName::as_str),
            limit,
        );
        let mut rows = Vec::new();
        for name in names.fetch_all(&self.pool).await? {
            match self.deployment(&crate::parse(&name)?).await {
                Ok(row) => rows.push(row),
                // Deleted since.
                Err(StoreError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(rows)
    }

    /// Its revisions go with it; its events stay.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Stale`]
    pub async fn delete_deployment(
        &self,
        name: &DeploymentName,
        expected: Option<RevisionNumber>,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<()> {
        let mut tx = self.write().await?;
        let locked = lock(&mut tx, name, expected).await?;
        sqlx::query!("delete from deployments where name = $1", name.as_str()).execute(&mut *tx).await?;
        let event = EventDraft {
            kind: EventKind::DeploymentDeleted,
            actor: actor.clone(),
            model: Some(locked.target.version.model),
            deployment: Some(name.clone()),
            message: format!("deployment {name} was deleted"),
            // It serves nothing from now on.
            data: json!({"weights": []}),
        };
        events::append(&mut tx, &event, now).await?;
        Ok(tx.commit().await?)
    }
}

/// A deployment as a writing transaction sees it.
pub(crate) struct Locked {
    pub(crate) name: DeploymentName,
    pub(crate) target: Revision,
    pub(crate) control: Control,
    pub(crate) state: DeploymentState,
}

impl Locked {
    /// The rollout to the target, if it is not done. A rollout that the reconciler has not begun is not done.
    pub(crate) fn is_rolling(&self) -> bool {
        let rollout = self.state.rollout.as_ref();
        !rollout.is_some_and(|r| r.revision == self.target.number && r.phase == Phase::Completed)
    }
}

/// # Errors
/// [`StoreError::NotFound`], [`StoreError::Stale`]
pub(crate) async fn lock(tx: &mut Tx, name: &DeploymentName, expected: Option<RevisionNumber>) -> Result<Locked> {
    let row = sqlx::query!(
        r#"select target, control as "control: Json<Control>", state as "state: Json<DeploymentState>"
           from deployments where name = $1"#,
        name.as_str(),
    );
    let row = row.fetch_optional(&mut **tx).await?.ok_or_else(|| StoreError::not_found("deployment", name))?;
    let actual = RevisionNumber(unsigned(row.target));
    if let Some(expected) = expected.filter(|expected| *expected != actual) {
        return Err(StoreError::stale(name.as_str(), expected, actual));
    }
    let target = revisions::one(tx, name, actual).await?.revision;
    Ok(Locked { name: name.clone(), target, control: row.control.0, state: row.state.0 })
}
