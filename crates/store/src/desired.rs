//! What is wanted, as the planner takes it. Each deployment is of one moment; a commit compares what it was made from.

use std::collections::{BTreeMap, BTreeSet};

use modelyard_core::inputs::DesiredDeployment;
use modelyard_core::state::{Cause, Control, DeploymentState, Outcome};
use modelyard_core::{DeploymentName, DeploymentSpec, Epoch, RevisionNumber, RevisionVariant, Signature, StateVersion};
use sqlx::PgConnection;
use sqlx::types::Json;

use crate::office::check_term;
use crate::revisions::{Row, VersionFields};
use crate::{Result, Store, parse, unsigned};

impl Store {
    /// # Errors
    /// [`StoreError::Fenced`] if another control plane has taken office.
    pub async fn desired(&self, epoch: Epoch) -> Result<BTreeMap<DeploymentName, DesiredDeployment>> {
        let mut connection = self.pool.acquire().await?;
        check_term(&mut connection, epoch).await?;
        select(&mut connection, None).await
    }

    /// Brings `known`, as an earlier call left it, up to date: what was not written to since is not read again. On an
    /// error it stays as it was.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if another control plane has taken office.
    pub async fn refresh_desired(
        &self,
        epoch: Epoch,
        known: &mut BTreeMap<DeploymentName, DesiredDeployment>,
    ) -> Result<()> {
        if known.is_empty() {
            *known = self.desired(epoch).await?;
            return Ok(());
        }
        let mut connection = self.pool.acquire().await?;
        check_term(&mut connection, epoch).await?;
        let rows = sqlx::query!("select name, target, state_version from deployments");
        let mut unchanged = BTreeSet::new();
        let mut changed = Vec::new();
        for row in rows.fetch_all(&mut *connection).await? {
            // Versions begin anew with a deployment that is made again; its numbers of revisions do not.
            let at = (RevisionNumber(unsigned(row.target)), StateVersion(unsigned(row.state_version)));
            let name: DeploymentName = parse(&row.name)?;
            if known.get(&name).is_some_and(|d| (d.target, d.parent) == at) {
                unchanged.insert(name);
            } else {
                changed.push(row.name);
            }
        }
        let news = if changed.is_empty() { BTreeMap::new() } else { select(&mut connection, Some(&changed)).await? };
        known.retain(|name, _| unchanged.contains(name));
        known.extend(news);
        Ok(())
    }
}

/// The deployments named, or all. Of the revisions: the target, those that the state names, and those that are still
/// pending.
pub(crate) async fn select(
    connection: &mut PgConnection,
    names: Option<&[String]>,
) -> Result<BTreeMap<DeploymentName, DesiredDeployment>> {
    let rows = sqlx::query!(
        r#"select d.name, d.target, d.control as "control: Json<Control>", d.state as "state: Json<DeploymentState>",
                  d.state_version, r.number, r.spec as "spec: Json<DeploymentSpec>",
                  r.variants as "variants: Json<Vec<RevisionVariant>>", r.cause as "cause: Json<Cause>",
                  r.actor, r.created_ms, r.outcome as "outcome: Json<Outcome>", r.served_ms,
                  v.model, v.version, v.format, v.digest, v.size, v.signature as "signature: Json<Signature>",
                  v.labels, v.metadata
           from deployments d
           join revisions r on r.deployment = d.name and (
                r.number = d.target
                or r.outcome ->> 'kind' = 'pending'
                or r.number = (d.state ->> 'stable')::bigint
                or r.number = (d.state -> 'rollout' ->> 'revision')::bigint
                or exists (select 1 from jsonb_array_elements(d.state -> 'warm') w
                           where (w ->> 'revision')::bigint = r.number))
           join model_versions v on v.model = r.model and v.version = r.version
           where $1::text[] is null or d.name = any ($1)"#,
        names,
    )
    .fetch_all(connection)
    .await?;
    let mut all = BTreeMap::<DeploymentName, DesiredDeployment>::new();
    for r in rows {
        let desired = all.entry(parse(&r.name)?).or_insert_with(|| DesiredDeployment {
            target: RevisionNumber(unsigned(r.target)),
            revisions: BTreeMap::new(),
            control: r.control.0,
            state: r.state.0,
            parent: StateVersion(unsigned(r.state_version)),
        });
        let row = Row {
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
        };
        let revision = row.revision()?.revision;
        desired.revisions.insert(revision.number, revision);
    }
    Ok(all)
}
