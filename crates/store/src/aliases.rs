//! Aliases: movable names for versions, with their history. Deployments that follow one roll when it moves.

use modelyard_core::event::{EventDraft, EventKind};
use modelyard_core::inputs::Aliases;
use modelyard_core::state::Cause;
use modelyard_core::{Actor, AliasName, DeploymentName, ModelName, RevisionNumber, Timestamp, VersionName, VersionRef};
use serde_json::json;

use crate::deployments::{Locked, lock};
use crate::models::{AliasMoveRow, AliasRow};
use crate::revisions::{self, NewRevision};
use crate::schema::{self, Gate};
use crate::{Result, Store, StoreError, Tx, events, parse};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AliasMoved {
    pub previous: Option<VersionName>,
    /// The deployments that follow it, each with its new revision.
    pub rolled: Vec<(DeploymentName, RevisionNumber)>,
    /// What was accepted, and should be known of.
    pub warnings: Vec<String>,
}

impl Store {
    /// Where the aliases of all models point.
    ///
    /// # Errors
    /// If Postgres does not answer.
    pub async fn all_aliases(&self) -> Result<Aliases> {
        let mut all = Aliases::new();
        for row in sqlx::query!("select model, alias, version from aliases").fetch_all(&self.pool).await? {
            all.entry(parse(&row.model)?).or_default().insert(parse(&row.alias)?, parse(&row.version)?);
        }
        Ok(all)
    }

    pub(crate) async fn aliases(&self, model: &str) -> Result<Vec<AliasRow>> {
        let rows =
            sqlx::query!("select alias, version, updated_ms from aliases where model = $1 order by alias", model);
        let mut aliases = Vec::new();
        for row in rows.fetch_all(&self.pool).await? {
            let moves = sqlx::query!(
                "select version, actor, at_ms from alias_moves where model = $1 and alias = $2 order by id desc limit 50",
                model,
                row.alias,
            );
            let moves = moves.fetch_all(&self.pool).await?.into_iter().map(|m| {
                let (version, actor) = (m.version.as_deref().map(parse).transpose()?, parse(&m.actor)?);
                Ok(AliasMoveRow { version, at: Timestamp::from_millis(m.at_ms), actor })
            });
            aliases.push(AliasRow {
                alias: parse(&row.alias)?,
                version: parse(&row.version)?,
                updated_at: Timestamp::from_millis(row.updated_ms),
                moves: moves.collect::<Result<_>>()?,
            });
        }
        Ok(aliases)
    }

    /// Points `alias` to `version`; deployments that follow it get a new revision in the same transaction.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is no such version; [`StoreError::Conflict`] if callers of a deployment that
    /// follows the alias cannot use it.
    pub async fn move_alias(
        &self,
        model: &ModelName,
        alias: &AliasName,
        version: &VersionName,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<AliasMoved> {
        let mut tx = self.write().await?;
        let (m, a, v) = (model.as_str(), alias.as_str(), version.as_str());
        let exists = sqlx::query_scalar!("select 1 from model_versions where model = $1 and version = $2", m, v);
        if exists.fetch_optional(&mut *tx).await?.is_none() {
            return Err(StoreError::not_found("version", format_args!("{version} of model {model}")));
        }
        let previous = sqlx::query_scalar!("select version from aliases where model = $1 and alias = $2", m, a);
        let previous: Option<VersionName> =
            previous.fetch_optional(&mut *tx).await?.as_deref().map(parse).transpose()?;
        if previous.as_ref() == Some(version) {
            return Ok(AliasMoved { previous, rolled: Vec::new(), warnings: Vec::new() });
        }
        sqlx::query!(
            "insert into aliases (model, alias, version, updated_ms) values ($1, $2, $3, $4)
             on conflict (model, alias) do update set version = $3, updated_ms = $4",
            m,
            a,
            v,
            now.as_millis(),
        )
        .execute(&mut *tx)
        .await?;
        record(&mut tx, model, alias, Some(version), previous.as_ref(), actor, now).await?;
        let mut following = Vec::new();
        for name in followers(&mut tx, model, alias).await? {
            let locked = lock(&mut tx, &name, None).await?;
            if locked.target.version.version != *version {
                following.push(locked);
            }
        }
        let warnings = gate(&mut tx, &following, (model.clone(), version.clone())).await?;
        let mut rolled = Vec::new();
        for Locked { name, target, .. } in following {
            let cause = Cause::AliasMoved { alias: alias.clone() };
            // An A/B test follows no alias, so there are no variants.
            let new =
                NewRevision { deployment: &name, spec: &target.spec, version, variants: &[], cause: &cause, actor };
            let number = revisions::create(&mut tx, &new, now).await?;
            rolled.push((name, number));
        }
        tx.commit().await?;
        Ok(AliasMoved { previous, rolled, warnings })
    }

    /// # Errors
    /// [`StoreError::InUse`] while deployments follow it; [`StoreError::NotFound`].
    pub async fn drop_alias(&self, model: &ModelName, alias: &AliasName, actor: &Actor, now: Timestamp) -> Result<()> {
        let mut tx = self.write().await?;
        let followers = followers(&mut tx, model, alias).await?;
        if !followers.is_empty() {
            let by = followers.into_iter().map(|name| format!("deployment {name}")).collect();
            return Err(StoreError::InUse { what: format!("alias {alias} of model {model}"), by });
        }
        let dropped = sqlx::query_scalar!(
            "delete from aliases where model = $1 and alias = $2 returning version",
            model.as_str(),
            alias.as_str(),
        );
        let Some(previous) = dropped.fetch_optional(&mut *tx).await? else {
            return Err(StoreError::not_found("alias", format_args!("{alias} of model {model}")));
        };
        record(&mut tx, model, alias, None, Some(&parse(&previous)?), actor, now).await?;
        Ok(tx.commit().await?)
    }
}

/// The schema gate for each deployment that follows; its warnings.
///
/// # Errors
/// [`StoreError::Conflict`] with all that is refused.
async fn gate(tx: &mut Tx, following: &[Locked], version: schema::Version) -> Result<Vec<String>> {
    let signatures = schema::signatures(tx, &[version.clone()].into()).await?;
    let Some(signature) = signatures.get(&version) else { return Ok(Vec::new()) };
    let (mut warnings, mut refused) = (Vec::new(), Vec::new());
    for Locked { name, target, state, .. } in following {
        let Some(stable) = state.stable else { continue };
        let live = revisions::one(tx, name, stable).await?.revision.version;
        match schema::gate(&live, &version, signature, target.spec.allow_schema_change) {
            Gate::Pass => {}
            Gate::PassWithWarning(message) => warnings.push(format!("deployment {name}: {message}")),
            Gate::Refuse(message) => refused.push(format!("deployment {name}: {message}")),
        }
    }
    if refused.is_empty() { Ok(warnings) } else { Err(StoreError::Conflict { message: refused.join("\n") }) }
}

/// Where an alias points, within a transaction.
pub(crate) async fn resolve(tx: &mut Tx, model: &ModelName, alias: &AliasName) -> Result<Option<VersionName>> {
    let version = sqlx::query_scalar!(
        "select version from aliases where model = $1 and alias = $2",
        model.as_str(),
        alias.as_str(),
    );
    version.fetch_optional(&mut **tx).await?.as_deref().map(parse).transpose()
}

/// The deployments whose latest revision follows the alias.
async fn followers(tx: &mut Tx, model: &ModelName, alias: &AliasName) -> Result<Vec<DeploymentName>> {
    let names = sqlx::query_scalar!(
        "select d.name from deployments d join revisions r on r.deployment = d.name and r.number = d.target
         where r.model = $1 and r.spec ->> 'version' = $2 order by d.name",
        model.as_str(),
        VersionRef::Alias(alias.clone()).to_string(),
    );
    names.fetch_all(&mut **tx).await?.iter().map(|name| parse(name)).collect()
}

async fn record(
    tx: &mut Tx,
    model: &ModelName,
    alias: &AliasName,
    version: Option<&VersionName>,
    previous: Option<&VersionName>,
    actor: &Actor,
    now: Timestamp,
) -> Result<()> {
    sqlx::query!(
        "insert into alias_moves (model, alias, version, actor, at_ms) values ($1, $2, $3, $4, $5)",
        model.as_str(),
        alias.as_str(),
        version.map(VersionName::as_str),
        actor.as_str(),
        now.as_millis(),
    )
    .execute(&mut **tx)
    .await?;
    let was = previous.map(|p| format!(" (was {p})")).unwrap_or_default();
    let (kind, message) = match version {
        Some(version) => (EventKind::AliasMoved, format!("alias {alias} of {model} points to version {version}{was}")),
        None => (EventKind::AliasDropped, format!("alias {alias} of {model} was dropped{was}")),
    };
    let data = json!({"alias": alias, "version": version, "previous": previous});
    let event = EventDraft { kind, actor: actor.clone(), model: Some(model.clone()), deployment: None, message, data };
    events::append(tx, &event, now).await
}
