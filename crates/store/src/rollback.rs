//! Rollbacks that people ask for: a new revision that copies an old one. From there the path is that of any revision.

use modelyard_core::state::{Cause, Revision};
use modelyard_core::{Actor, DeploymentName, RevisionNumber, Timestamp};

use crate::deployments::{Locked, lock};
use crate::revisions::{self, NewRevision, RevisionRow};
use crate::{Result, Store, StoreError, Tx, signed};

impl Store {
    /// To revision `to`; by default to the last one that served all traffic.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if there is nothing to go back to; [`StoreError::Stale`]; [`StoreError::NotFound`].
    pub async fn rollback(
        &self,
        name: &DeploymentName,
        to: Option<RevisionNumber>,
        reason: &str,
        expected: Option<RevisionNumber>,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<RevisionRow> {
        let mut tx = self.write().await?;
        let locked = lock(&mut tx, name, expected).await?;
        let to = match to {
            Some(number) => revisions::one(&mut tx, name, number).await?.revision,
            None => last_that_served(&mut tx, &locked).await?,
        };
        let target = &locked.target;
        if !locked.is_rolling() && is_same(&to, target) {
            let message = format!("revision {} of {name} is what serves now; there is nothing to roll back", to.number);
            return Err(StoreError::Conflict { message });
        }
        back_to(tx, &locked, &to, reason, actor, now).await
    }

    /// Gives up the rollout under way.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if none is under way, or nothing served before it.
    pub async fn abort(
        &self,
        name: &DeploymentName,
        expected: Option<RevisionNumber>,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<RevisionRow> {
        let mut tx = self.write().await?;
        let locked = lock(&mut tx, name, expected).await?;
        if !locked.is_rolling() {
            let number = locked.target.number;
            let message = format!(
                "revision {number} of {name} already serves all traffic; there is no rollout to abort. Use rollback"
            );
            return Err(StoreError::Conflict { message });
        }
        let to = last_that_served(&mut tx, &locked).await?;
        back_to(tx, &locked, &to, &format!("aborted by {actor}"), actor, now).await
    }
}

async fn back_to(
    mut tx: Tx,
    locked: &Locked,
    to: &Revision,
    reason: &str,
    actor: &Actor,
    now: Timestamp,
) -> Result<RevisionRow> {
    let cause = Cause::Rollback { from: locked.target.number, to: to.number, reason: reason.to_owned() };
    let (deployment, version) = (&locked.name, &to.version.version);
    let new = NewRevision { deployment, spec: &to.spec, version, variants: &to.variants, cause: &cause, actor };
    let number = revisions::create(&mut tx, &new, now).await?;
    let row = revisions::one(&mut tx, deployment, number).await?;
    tx.commit().await?;
    Ok(row)
}

fn is_same(a: &Revision, b: &Revision) -> bool {
    a.spec == b.spec && a.version.version == b.version.version
}

/// In mid-rollout: the stable revision. Else the latest one that served all traffic and is not what serves now.
async fn last_that_served(tx: &mut Tx, locked: &Locked) -> Result<Revision> {
    if locked.is_rolling()
        && let Some(stable) = locked.state.stable
    {
        return Ok(revisions::one(tx, &locked.name, stable).await?.revision);
    }
    let served = sqlx::query_scalar!(
        "select number from revisions where deployment = $1 and number < $2 and served_ms is not null
         order by number desc",
        locked.name.as_str(),
        signed(locked.target.number.0),
    );
    for number in served.fetch_all(&mut **tx).await? {
        let revision = revisions::one(tx, &locked.name, RevisionNumber(crate::unsigned(number))).await?.revision;
        if !is_same(&revision, &locked.target) {
            return Ok(revision);
        }
    }
    let message =
        format!("no other revision of {} has served all traffic; there is nothing to roll back to", locked.name);
    Err(StoreError::Conflict { message })
}
