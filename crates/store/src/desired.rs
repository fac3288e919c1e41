//! What is wanted, as the planner takes it: all deployments in one query, and so of one moment.

use std::collections::BTreeMap;

use modelyard_core::inputs::DesiredDeployment;
use modelyard_core::state::{Cause, Control, DeploymentState, Outcome};
use modelyard_core::{DeploymentName, DeploymentSpec, Epoch, RevisionNumber, Signature, StateVersion};
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
}

/// The deployments named, or all. Of the revisions: the target, those that the state names, and those that are still
/// pending.
pub(crate) async fn select(
    connection: &mut PgConnection,
    names: Option<&[String]>,
) -> Result<BTreeMap<DeploymentName, DesiredDeployment>> {
    let rows = sqlx::query!(
        r#"select d.name, d.target, d.control as "control: Json<Control>", d.state as "state: Json<DeploymentState>",
                  d.state_version, r.number, r.spec as "spec: Json<DeploymentSpec>", r.cause as "cause: Json<Cause>",
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
