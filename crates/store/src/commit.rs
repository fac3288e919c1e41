//! Commits of the reconciler: a decision is written whole, by the control plane in office, on the state it was made
//! from, or not at all.

use modelyard_core::plan::{Commit, RollbackDraft};
use modelyard_core::state::{Cause, Outcome};
use modelyard_core::{Actor, DeploymentName, Epoch, RevisionNumber, Timestamp};
use sqlx::types::Json;

use crate::revisions::{self, NewRevision};
use crate::{Result, Store, StoreError, Tx, events, signed, unsigned};

impl Store {
    /// # Errors
    /// [`StoreError::Fenced`]; [`StoreError::Stale`] if the deployment was written to since the plan was made;
    /// [`StoreError::NotFound`] if it was deleted.
    pub async fn commit(&self, name: &DeploymentName, commit: &Commit, epoch: Epoch, now: Timestamp) -> Result<()> {
        let mut tx = self.write_in(Some(epoch)).await?;
        compare_and_set(&mut tx, name, commit).await?;
        if let Some(rollback) = &commit.rollback {
            create_rollback(&mut tx, name, rollback, now).await?;
        }
        for (number, outcome) in &commit.outcomes {
            record_outcome(&mut tx, name, *number, outcome).await?;
        }
        for event in &commit.events {
            events::append(&mut tx, event, now).await?;
        }
        Ok(tx.commit().await?)
    }
}

async fn compare_and_set(tx: &mut Tx, name: &DeploymentName, commit: &Commit) -> Result<()> {
    let expected = signed(commit.parent.0);
    let written = sqlx::query!(
        "update deployments set state = $3, state_version = state_version + 1 where name = $1 and state_version = $2",
        name.as_str(),
        expected,
        Json(&commit.state) as _,
    );
    if written.execute(&mut **tx).await?.rows_affected() == 1 {
        return Ok(());
    }
    let actual = sqlx::query_scalar!("select state_version from deployments where name = $1", name.as_str());
    match actual.fetch_optional(&mut **tx).await? {
        Some(actual) => {
            let what = format!("the state of deployment {name}");
            Err(StoreError::Stale { what, expected: commit.parent.0, actual: unsigned(actual) })
        }
        None => Err(StoreError::not_found("deployment", name)),
    }
}

/// A rollback that the system decided on: it already has its number, which the state and the events name.
async fn create_rollback(tx: &mut Tx, name: &DeploymentName, draft: &RollbackDraft, now: Timestamp) -> Result<()> {
    let copied = revisions::one(tx, name, draft.to).await?.revision;
    let cause = Cause::Rollback { from: draft.from, to: draft.to, reason: draft.reason.clone() };
    let (spec, version, actor) = (&copied.spec, &copied.version.version, &Actor::system());
    let new = NewRevision { deployment: name, spec, version, cause: &cause, actor };
    let number = revisions::create(tx, &new, now).await?;
    if number == draft.number {
        return Ok(());
    }
    // The state was just compared, so this cannot be; if it is, nothing of it may be written.
    Err(StoreError::stale(name.as_str(), draft.number, number))
}

async fn record_outcome(tx: &mut Tx, name: &DeploymentName, number: RevisionNumber, outcome: &Outcome) -> Result<()> {
    let served = match outcome {
        Outcome::Completed { at } => Some(at.as_millis()),
        _ => None,
    };
    sqlx::query!(
        "update revisions set outcome = $3, served_ms = coalesce($4, served_ms) where deployment = $1 and number = $2",
        name.as_str(),
        signed(number.0),
        Json(outcome) as _,
        served,
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}
