//! The registry: models and their versions.

use std::collections::BTreeMap;

use modelyard_core::event::{EventDraft, EventKind};
use modelyard_core::{Actor, AliasName, Digest, ModelName, ModelVersion, Signature, Timestamp, VersionName};
use serde_json::json;
use sqlx::PgConnection;
use sqlx::types::Json;

use crate::revisions::VersionFields;
use crate::{Result, Store, StoreError, events, parse, unsigned};

type Labels = BTreeMap<String, String>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelRow {
    pub name: ModelName,
    pub generation: u64,
    pub labels: Labels,
    pub description: Option<String>,
    pub owner: Option<String>,
    pub aliases: Vec<AliasRow>,
    pub created_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AliasRow {
    pub alias: AliasName,
    pub version: VersionName,
    pub updated_at: Timestamp,
    /// Newest first; the first is where it points now.
    pub moves: Vec<AliasMoveRow>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AliasMoveRow {
    pub version: Option<VersionName>,
    pub at: Timestamp,
    pub actor: Actor,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionRow {
    pub version: ModelVersion,
    pub created_at: Timestamp,
}

impl Store {
    /// In order of name, those after `after`.
    pub async fn models(&self, limit: i64, after: Option<&ModelName>) -> Result<Vec<ModelRow>> {
        self.select_models(None, after.map_or("", ModelName::as_str), limit).await
    }

    /// # Errors
    /// [`StoreError::NotFound`]
    pub async fn model(&self, name: &ModelName) -> Result<ModelRow> {
        let found = self.select_models(Some(name.as_str()), "", 1).await?.pop();
        found.ok_or_else(|| StoreError::not_found("model", name))
    }

    async fn select_models(&self, name: Option<&str>, after: &str, limit: i64) -> Result<Vec<ModelRow>> {
        let rows = sqlx::query!(
            r#"select name, generation, labels as "labels: Json<Labels>", description, owner, created_ms from models
               where ($1::text is null or name = $1) and name > $2 order by name limit $3"#,
            name,
            after,
            limit,
        );
        let mut models = Vec::new();
        for row in rows.fetch_all(&self.pool).await? {
            models.push(ModelRow {
                aliases: self.aliases(&row.name).await?,
                name: parse(&row.name)?,
                generation: unsigned(row.generation),
                labels: row.labels.0,
                description: row.description,
                owner: row.owner,
                created_at: Timestamp::from_millis(row.created_ms),
            });
        }
        Ok(models)
    }

    /// In order of version, those after `after`.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is no such model.
    pub async fn versions(
        &self,
        model: &ModelName,
        limit: i64,
        after: Option<&VersionName>,
    ) -> Result<Vec<VersionRow>> {
        let rows = self.select_versions(model, None, after.map_or("", VersionName::as_str), limit).await?;
        if rows.is_empty() {
            self.model(model).await?;
        }
        Ok(rows)
    }

    /// # Errors
    /// [`StoreError::NotFound`]
    pub async fn version(&self, model: &ModelName, version: &VersionName) -> Result<VersionRow> {
        let found = self.select_versions(model, Some(version.as_str()), "", 1).await?.pop();
        found.ok_or_else(|| StoreError::not_found("version", format_args!("{version} of model {model}")))
    }

    pub async fn find_version(&self, model: &ModelName, version: &VersionName) -> Result<Option<ModelVersion>> {
        Ok(self.select_versions(model, Some(version.as_str()), "", 1).await?.pop().map(|row| row.version))
    }

    async fn select_versions(
        &self,
        model: &ModelName,
        version: Option<&str>,
        after: &str,
        limit: i64,
    ) -> Result<Vec<VersionRow>> {
        let mut connection = self.pool.acquire().await?;
        select_versions(&mut connection, model, version, after, limit).await
    }

    /// Whether a registered version has this artifact.
    pub async fn digest_in_use(&self, digest: &Digest) -> Result<bool> {
        let used = sqlx::query_scalar!(
            r#"select exists (select 1 from model_versions where digest = $1) as "used!""#,
            digest.to_string(),
        );
        Ok(used.fetch_one(&self.pool).await?)
    }

    /// # Errors
    /// [`StoreError::InUse`] while it has versions; [`StoreError::NotFound`].
    pub async fn delete_model(&self, name: &ModelName, actor: &Actor, now: Timestamp) -> Result<()> {
        let mut tx = self.write().await?;
        let versions =
            sqlx::query_scalar!("select version from model_versions where model = $1 order by version", name.as_str());
        let versions = versions.fetch_all(&mut *tx).await?;
        if !versions.is_empty() {
            let by = versions.into_iter().map(|version| format!("its version {version}")).collect();
            return Err(StoreError::InUse { what: format!("model {name}"), by });
        }
        let deleted = sqlx::query!("delete from models where name = $1", name.as_str()).execute(&mut *tx).await?;
        if deleted.rows_affected() == 0 {
            return Err(StoreError::not_found("model", name));
        }
        let event = EventDraft {
            kind: EventKind::ModelDeleted,
            actor: actor.clone(),
            model: Some(name.clone()),
            deployment: None,
            message: format!("model {name} was deleted"),
            data: json!({}),
        };
        events::append(&mut tx, &event, now).await?;
        Ok(tx.commit().await?)
    }

    /// # Errors
    /// [`StoreError::InUse`] while an alias points to it, or a deployment has it in its history and so may roll back to
    /// it; [`StoreError::NotFound`].
    pub async fn delete_version(
        &self,
        model: &ModelName,
        version: &VersionName,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<()> {
        let mut tx = self.write().await?;
        let (m, v) = (model.as_str(), version.as_str());
        let by = sqlx::query_scalar!(
            r#"select 'alias ' || alias as "user!" from aliases where model = $1 and version = $2
               union all
               select 'deployment ' || deployment || ' (revision ' || string_agg(number::text, ', ' order by number) || ')'
               from revisions
               where (model = $1 and version = $2)
                  or variants @> jsonb_build_array(jsonb_build_object(
                         'version', jsonb_build_object('model', $1::text, 'version', $2::text)))
               group by deployment
               order by 1"#,
            m,
            v,
        );
        let by = by.fetch_all(&mut *tx).await?;
        if !by.is_empty() {
            return Err(StoreError::InUse { what: format!("version {version} of model {model}"), by });
        }
        let deleted = sqlx::query!("delete from model_versions where model = $1 and version = $2", m, v);
        if deleted.execute(&mut *tx).await?.rows_affected() == 0 {
            return Err(StoreError::not_found("version", format_args!("{version} of model {model}")));
        }
        let event = EventDraft {
            kind: EventKind::VersionDeleted,
            actor: actor.clone(),
            model: Some(model.clone()),
            deployment: None,
            message: format!("version {version} of model {model} was deleted"),
            data: json!({"version": version}),
        };
        events::append(&mut tx, &event, now).await?;
        Ok(tx.commit().await?)
    }
}

/// A registered version, within a transaction.
pub(crate) async fn find(
    connection: &mut PgConnection,
    model: &ModelName,
    version: &VersionName,
) -> Result<Option<ModelVersion>> {
    let found = select_versions(connection, model, Some(version.as_str()), "", 1).await?.pop();
    Ok(found.map(|row| row.version))
}

async fn select_versions(
    connection: &mut PgConnection,
    model: &ModelName,
    version: Option<&str>,
    after: &str,
    limit: i64,
) -> Result<Vec<VersionRow>> {
    let rows = sqlx::query!(
        r#"select model, version, format, digest, size, signature as "signature: Json<Signature>", labels, metadata,
                  created_ms
           from model_versions where model = $1 and ($2::text is null or version = $2) and version > $3
           order by version limit $4"#,
        model.as_str(),
        version,
        after,
        limit,
    );
    let rows = rows.fetch_all(connection).await?.into_iter().map(|r| {
        let fields = VersionFields {
            model: r.model,
            version: r.version,
            format: r.format,
            digest: r.digest,
            size: r.size,
            signature: r.signature,
            labels: r.labels,
            metadata: r.metadata,
        };
        Ok(VersionRow { version: fields.version()?, created_at: Timestamp::from_millis(r.created_ms) })
    });
    rows.collect()
}
