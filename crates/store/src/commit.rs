//! Commits of the reconciler: a decision is written whole, by the control plane in office, on the state it was made
//! from, or not at all.

use std::collections::{BTreeMap, BTreeSet};

use modelyard_core::event::EventDraft;
use modelyard_core::plan::{Commit, RollbackDraft};
use modelyard_core::state::{Cause, DeploymentState, Outcome};
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
        events::append_all(&mut tx, &commit.events, now).await?;
        Ok(tx.commit().await?)
    }

    /// Events that come of no decision.
    ///
    /// # Errors
    /// [`StoreError::Fenced`]; a database that fails.
    pub async fn note(&self, events: &[EventDraft], epoch: Epoch, now: Timestamp) -> Result<()> {
        let mut tx = self.write_in(Some(epoch)).await?;
        events::append_all(&mut tx, events, now).await?;
        Ok(tx.commit().await?)
    }

    /// Many decisions in one transaction, each whole or not at all. Answers with those that were refused, as
    /// [`Store::commit`] would have. A decision that makes a revision is for that one.
    ///
    /// # Errors
    /// [`StoreError::Fenced`]; a database that fails. Nothing is written then.
    pub async fn commit_all(
        &self,
        commits: &BTreeMap<&DeploymentName, &Commit>,
        epoch: Epoch,
        now: Timestamp,
    ) -> Result<BTreeSet<DeploymentName>> {
        let mut tx = self.write_in(Some(epoch)).await?;
        let makes_none = commits.iter().filter(|(_, commit)| commit.rollback.is_none());
        let written = compare_and_set_all(&mut tx, makes_none).await?;
        let is_written = |name: &DeploymentName| written.contains(name.as_str());
        let decided = || commits.iter().filter(|(name, _)| is_written(name));
        record_outcomes(&mut tx, decided()).await?;
        events::append_all(&mut tx, decided().flat_map(|(_, commit)| &commit.events), now).await?;
        tx.commit().await?;
        Ok(commits.keys().filter(|name| !is_written(name)).map(|name| (*name).clone()).collect())
    }
}

type Named<'c> = (&'c &'c DeploymentName, &'c &'c Commit);

/// The names of those that were at the state expected.
async fn compare_and_set_all<'c>(tx: &mut Tx, commits: impl Iterator<Item = Named<'c>>) -> Result<BTreeSet<String>> {
    let (mut names, mut parents, mut states, mut targets) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (name, commit) in commits {
        names.push(name.to_string());
        parents.push(signed(commit.parent.0));
        states.push(Json(&commit.state));
        targets.push(commit.made_for().map(|target| signed(target.0)));
    }
    let written = sqlx::query_scalar!(
        "update deployments d set state = c.state, state_version = d.state_version + 1
         from unnest($1::text[], $2::bigint[], $3::jsonb[], $4::bigint[]) as c (name, parent, state, target)
         where d.name = c.name and d.state_version = c.parent and d.target = coalesce(c.target, d.target)
         returning d.name",
        &names,
        &parents,
        &states as &[Json<&DeploymentState>],
        &targets as &[Option<i64>],
    );
    Ok(written.fetch_all(&mut **tx).await?.into_iter().collect())
}

async fn record_outcomes<'c>(tx: &mut Tx, commits: impl Iterator<Item = Named<'c>>) -> Result<()> {
    let (mut names, mut numbers, mut outcomes, mut served) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (name, commit) in commits {
        for (number, outcome) in &commit.outcomes {
            names.push(name.to_string());
            numbers.push(signed(number.0));
            outcomes.push(Json(outcome));
            served.push(served_at(outcome));
        }
    }
    sqlx::query!(
        "update revisions r set outcome = o.outcome, served_ms = coalesce(o.served_ms, r.served_ms)
         from unnest($1::text[], $2::bigint[], $3::jsonb[], $4::bigint[]) as o (deployment, number, outcome, served_ms)
         where r.deployment = o.deployment and r.number = o.number",
        &names,
        &numbers,
        &outcomes as &[Json<&Outcome>],
        &served as &[Option<i64>],
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

async fn compare_and_set(tx: &mut Tx, name: &DeploymentName, commit: &Commit) -> Result<()> {
    let expected = signed(commit.parent.0);
    let written = sqlx::query!(
        "update deployments set state = $3, state_version = state_version + 1
         where name = $1 and state_version = $2 and target = coalesce($4::bigint, target)",
        name.as_str(),
        expected,
        Json(&commit.state) as _,
        commit.made_for().map(|target| signed(target.0)),
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
    let new = NewRevision { deployment: name, spec, version, variants: &copied.variants, cause: &cause, actor };
    let number = revisions::create(tx, &new, now).await?;
    if number == draft.number {
        return Ok(());
    }
    // The state was just compared, so this cannot be; if it is, nothing of it may be written.
    Err(StoreError::stale(name.as_str(), draft.number, number))
}

async fn record_outcome(tx: &mut Tx, name: &DeploymentName, number: RevisionNumber, outcome: &Outcome) -> Result<()> {
    let served = served_at(outcome);
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

/// When it came to serve all traffic, if it did.
fn served_at(outcome: &Outcome) -> Option<i64> {
    match outcome {
        Outcome::Completed { at } => Some(at.as_millis()),
        Outcome::Pending | Outcome::Superseded { .. } | Outcome::RolledBack { .. } => None,
    }
}
