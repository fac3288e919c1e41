//! Revisions of deployments: read, and made.

use std::collections::BTreeMap;

use modelyard_core::event::{EventDraft, EventKind};
use modelyard_core::state::{Cause, Outcome, Revision};
use modelyard_core::{
    Actor, DeploymentName, DeploymentSpec, ModelVersion, RevisionNumber, RevisionVariant, Signature, Timestamp,
    VersionName,
};
use serde_json::json;
use sqlx::types::Json;

use crate::{Result, Store, StoreError, Tx, events, parse, signed, unsigned};

/// A revision with how its rollout ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevisionRow {
    pub revision: Revision,
    pub outcome: Outcome,
    pub served_at: Option<Timestamp>,
}

/// A revision joined with its version, as the queries of this crate select it.
pub(crate) struct Row {
    pub(crate) number: i64,
    pub(crate) spec: Json<DeploymentSpec>,
    pub(crate) variants: Json<Vec<RevisionVariant>>,
    pub(crate) cause: Json<Cause>,
    pub(crate) actor: String,
    pub(crate) created_ms: i64,
    pub(crate) outcome: Json<Outcome>,
    pub(crate) served_ms: Option<i64>,
    pub(crate) version: VersionFields,
}

/// The columns of a version.
pub(crate) struct VersionFields {
    pub(crate) model: String,
    pub(crate) version: String,
    pub(crate) format: String,
    pub(crate) digest: String,
    pub(crate) size: i64,
    pub(crate) signature: Json<Signature>,
    pub(crate) labels: serde_json::Value,
    pub(crate) metadata: serde_json::Value,
}

impl VersionFields {
    pub(crate) fn version(self) -> Result<ModelVersion> {
        let strings = |value| serde_json::from_value(value).map_err(|e| StoreError::Internal(e.to_string()));
        Ok(ModelVersion {
            model: parse(&self.model)?,
            version: parse(&self.version)?,
            format: parse(&self.format)?,
            digest: parse(&self.digest)?,
            size: unsigned(self.size),
            signature: self.signature.0,
            labels: strings(self.labels)?,
            metadata: strings(self.metadata)?,
        })
    }
}

impl Row {
    pub(crate) fn revision(self) -> Result<RevisionRow> {
        let revision = Revision {
            number: RevisionNumber(unsigned(self.number)),
            spec: self.spec.0,
            version: self.version.version()?,
            variants: self.variants.0,
            cause: self.cause.0,
            actor: parse(&self.actor)?,
            created_at: Timestamp::from_millis(self.created_ms),
        };
        let served_at = self.served_ms.map(Timestamp::from_millis);
        Ok(RevisionRow { revision, outcome: self.outcome.0, served_at })
    }
}

impl Store {
    /// Newest first, those below `before`.
    pub async fn revisions(
        &self,
        name: &DeploymentName,
        limit: i64,
        before: Option<RevisionNumber>,
    ) -> Result<Vec<RevisionRow>> {
        let mut connection = self.pool.acquire().await?;
        let before = before.map_or(i64::MAX, |n| signed(n.0));
        let rows = select(&mut connection, name, 0, before, limit).await?;
        if rows.is_empty() {
            self.deployment(name).await?;
        }
        Ok(rows)
    }

    /// # Errors
    /// [`StoreError::NotFound`]
    pub async fn revision(&self, name: &DeploymentName, number: RevisionNumber) -> Result<RevisionRow> {
        let mut connection = self.pool.acquire().await?;
        one(&mut connection, name, number).await
    }
}

/// # Errors
/// [`StoreError::NotFound`]
pub(crate) async fn one(
    connection: &mut sqlx::PgConnection,
    name: &DeploymentName,
    number: RevisionNumber,
) -> Result<RevisionRow> {
    let n = signed(number.0);
    let found = select(connection, name, n, n.saturating_add(1), 1).await?.pop();
    found.ok_or_else(|| StoreError::not_found("revision", format_args!("{number} of deployment {name}")))
}

/// Revisions with numbers in `from..before`, newest first.
pub(crate) async fn select(
    connection: &mut sqlx::PgConnection,
    name: &DeploymentName,
    from: i64,
    before: i64,
    limit: i64,
) -> Result<Vec<RevisionRow>> {
    let rows = sqlx::query!(
        r#"select r.number, r.spec as "spec: Json<DeploymentSpec>", r.variants as "variants: Json<Vec<RevisionVariant>>",
                  r.cause as "cause: Json<Cause>", r.actor, r.created_ms,
                  r.outcome as "outcome: Json<Outcome>", r.served_ms,
                  v.model, v.version, v.format, v.digest, v.size, v.signature as "signature: Json<Signature>",
                  v.labels, v.metadata
           from revisions r join model_versions v using (model, version)
           where r.deployment = $1 and r.number >= $2 and r.number < $3
           order by r.number desc limit $4"#,
        name.as_str(),
        from,
        before,
        limit,
    )
    .fetch_all(connection)
    .await?;
    let rows = rows.into_iter().map(|r| Row {
        number: r.number,
        spec: r.spec,
        variants: r.variants,
        cause: r.cause,
        actor: r.actor,
        created_ms: r.created_ms,
        outcome: r.outcome,
        served_ms: r.served_ms,
        version: VersionFields {
            model: r.model,
            version: r.version,
            format: r.format,
            digest: r.digest,
            size: r.size,
            signature: r.signature,
            labels: r.labels,
            metadata: r.metadata,
        },
    });
    rows.map(Row::revision).collect()
}

/// A revision before it has a number.
pub(crate) struct NewRevision<'a> {
    pub(crate) deployment: &'a DeploymentName,
    pub(crate) spec: &'a DeploymentSpec,
    /// What `spec.version` means now.
    pub(crate) version: &'a VersionName,
    pub(crate) variants: &'a [RevisionVariant],
    pub(crate) cause: &'a Cause,
    pub(crate) actor: &'a Actor,
}

/// Makes the next revision of a deployment, and its target. The deployment's row must exist.
pub(crate) async fn create(tx: &mut Tx, new: &NewRevision<'_>, now: Timestamp) -> Result<RevisionNumber> {
    let made = create_all(tx, std::slice::from_ref(new), now).await?;
    let missing = || StoreError::Internal(format!("the revision of {} has no number", new.deployment));
    made.into_values().next().ok_or_else(missing)
}

/// The same for many deployments, of which none is named twice.
pub(crate) async fn create_all(
    tx: &mut Tx,
    new: &[NewRevision<'_>],
    now: Timestamp,
) -> Result<BTreeMap<DeploymentName, RevisionNumber>> {
    let numbers = next_numbers(tx, new).await?;
    let mut numbered = Vec::new();
    for new in new {
        let missing = || StoreError::Internal(format!("the revision of {} has no number", new.deployment));
        numbered.push((new, *numbers.get(new.deployment.as_str()).ok_or_else(missing)?));
    }
    let names: Vec<_> = new.iter().map(|n| n.deployment.as_str()).collect();
    let numbers: Vec<_> = numbered.iter().map(|(_, number)| *number).collect();
    sqlx::query!(
        "insert into revisions (deployment, number, model, version, spec, cause, actor, created_ms, outcome, variants)
         select r.deployment, r.number, r.model, r.version, r.spec, r.cause, r.actor, $8, $9, r.variants
         from unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::jsonb[], $6::jsonb[], $7::text[], $10::jsonb[])
              as r (deployment, number, model, version, spec, cause, actor, variants)",
        &names as &[&str],
        &numbers,
        &new.iter().map(|n| n.spec.model.as_str()).collect::<Vec<_>>() as &[&str],
        &new.iter().map(|n| n.version.as_str()).collect::<Vec<_>>() as &[&str],
        &new.iter().map(|n| Json(n.spec)).collect::<Vec<_>>() as &[Json<&DeploymentSpec>],
        &new.iter().map(|n| Json(n.cause)).collect::<Vec<_>>() as &[Json<&Cause>],
        &new.iter().map(|n| n.actor.as_str()).collect::<Vec<_>>() as &[&str],
        now.as_millis(),
        Json(Outcome::Pending) as _,
        &new.iter().map(|n| Json(n.variants)).collect::<Vec<_>>() as &[Json<&[RevisionVariant]>],
    )
    .execute(&mut **tx)
    .await?;
    sqlx::query!(
        "update deployments d set target = r.number, state_version = d.state_version + 1
         from unnest($1::text[], $2::bigint[]) as r (deployment, number) where d.name = r.deployment",
        &names as &[&str],
        &numbers,
    )
    .execute(&mut **tx)
    .await?;
    let created: Vec<_> =
        numbered.iter().map(|(new, number)| created(new, RevisionNumber(unsigned(*number)))).collect();
    events::append_all(tx, &created, now).await?;
    Ok(numbered.into_iter().map(|(new, n)| (new.deployment.clone(), RevisionNumber(unsigned(n)))).collect())
}

async fn next_numbers(tx: &mut Tx, new: &[NewRevision<'_>]) -> Result<BTreeMap<String, i64>> {
    let names: Vec<_> = new.iter().map(|n| n.deployment.to_string()).collect();
    let rows = sqlx::query!(
        "insert into revision_numbers (deployment, last) select name, 1 from unnest($1::text[]) as name
         on conflict (deployment) do update set last = revision_numbers.last + 1 returning deployment, last",
        &names,
    );
    Ok(rows.fetch_all(&mut **tx).await?.into_iter().map(|row| (row.deployment, row.last)).collect())
}

fn created(new: &NewRevision<'_>, number: RevisionNumber) -> EventDraft {
    EventDraft {
        kind: EventKind::RevisionCreated,
        actor: new.actor.clone(),
        model: Some(new.spec.model.clone()),
        deployment: Some(new.deployment.clone()),
        message: format!("revision {number} (version {}): {}", new.version, new.cause),
        data: json!({"revision": number, "version": new.version, "cause": new.cause}),
    }
}
