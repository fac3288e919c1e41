//! Apply: a batch of checked documents, all of them or none.

mod deployments;

use std::collections::BTreeMap;

use modelyard_core::event::{EventDraft, EventKind};
use modelyard_core::inputs::DesiredDeployment;
use modelyard_core::manifest::{DeploymentManifest, ModelManifest};
use modelyard_core::{Actor, DeploymentName, ModelVersion, RevisionNumber, Timestamp};
use serde_json::json;
use sqlx::types::Json;

use crate::error::{DocumentProblem, ProblemStatus};
use crate::{Result, Store, StoreError, Tx, desired, events, signed};

/// Documents to apply, each under an index that answers and problems name it by.
#[derive(Debug, Default)]
pub struct ApplyBatch {
    models: Vec<(usize, ModelManifest)>,
    versions: Vec<(usize, ModelVersion)>,
    deployments: Vec<Deployment>,
}

/// A deployment of a batch: its index, what it is to be, and the latest revision that it must have.
type Deployment = (usize, DeploymentManifest, Option<RevisionNumber>);

impl ApplyBatch {
    pub fn add_model(&mut self, document: usize, model: ModelManifest) {
        self.models.push((document, model));
    }

    pub fn add_version(&mut self, document: usize, version: ModelVersion) {
        self.versions.push((document, version));
    }

    /// `expected`: the latest revision that the deployment must have. No deployment may be named twice.
    pub fn add_deployment(
        &mut self,
        document: usize,
        deployment: DeploymentManifest,
        expected: Option<RevisionNumber>,
    ) {
        self.deployments.push((document, deployment, expected));
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ApplyOutcome {
    /// In order of their indices.
    pub documents: Vec<AppliedDocument>,
    /// What was accepted, and should be known of.
    pub warnings: Vec<DocumentWarning>,
    /// The deployments of the batch, as they were and as they are.
    pub desired_before: BTreeMap<DeploymentName, DesiredDeployment>,
    pub desired_after: BTreeMap<DeploymentName, DesiredDeployment>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppliedDocument {
    pub document: usize,
    pub change: Change,
    /// Of a deployment: its latest revision.
    pub revision: Option<RevisionNumber>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentWarning {
    pub document: usize,
    /// Within the document: `spec.version`.
    pub path: String,
    pub message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Created,
    Updated,
    Unchanged,
}

impl Store {
    /// Applies the batch; a dry run does all of it and then takes it back.
    ///
    /// # Errors
    /// [`StoreError::Refused`] with the problems of all documents.
    pub async fn apply(&self, batch: ApplyBatch, dry_run: bool, actor: &Actor, now: Timestamp) -> Result<ApplyOutcome> {
        let mut tx = self.write().await?;
        let names: Vec<_> = batch.deployments.iter().map(|(_, d, _)| d.name.to_string()).collect();
        let desired_before = desired::select(&mut tx, Some(&names)).await?;
        let mut applying = Applying { tx, actor, now, done: Vec::new(), problems: Vec::new(), warnings: Vec::new() };
        for (document, model) in &batch.models {
            applying.model(*document, model).await?;
        }
        for (document, version) in &batch.versions {
            applying.version(*document, version).await?;
        }
        applying.deployments(&batch.deployments, &desired_before).await?;
        let Applying { mut tx, mut done, problems, warnings, .. } = applying;
        if !problems.is_empty() {
            return Err(StoreError::Refused(problems));
        }
        let desired_after = desired::select(&mut tx, Some(&names)).await?;
        if dry_run {
            tx.rollback().await?
        } else {
            tx.commit().await?
        }
        done.sort_by_key(|d| d.document);
        Ok(ApplyOutcome { documents: done, warnings, desired_before, desired_after })
    }
}

struct Applying<'a> {
    tx: Tx,
    actor: &'a Actor,
    now: Timestamp,
    done: Vec<AppliedDocument>,
    problems: Vec<DocumentProblem>,
    warnings: Vec<DocumentWarning>,
}

impl Applying<'_> {
    fn done(&mut self, document: usize, change: Change, revision: Option<RevisionNumber>) {
        self.done.push(AppliedDocument { document, change, revision });
    }

    fn problem(&mut self, document: usize, path: &str, status: ProblemStatus, message: String) {
        self.problems.push(DocumentProblem { document, path: path.to_owned(), message, status });
    }

    async fn model(&mut self, document: usize, model: &ModelManifest) -> Result<()> {
        let ModelManifest { name, labels, description, owner } = model;
        let known = sqlx::query!("select labels, description, owner from models where name = $1", name.as_str());
        let known = known.fetch_optional(&mut *self.tx).await?;
        let change = match known {
            None => Change::Created,
            Some(k) if k.labels == json!(labels) && k.description == *description && k.owner == *owner => {
                Change::Unchanged
            }
            Some(_) => Change::Updated,
        };
        self.done(document, change, None);
        if change == Change::Unchanged {
            return Ok(());
        }
        sqlx::query!(
            "insert into models (name, labels, description, owner, created_ms) values ($1, $2, $3, $4, $5)
             on conflict (name) do update
             set labels = $2, description = $3, owner = $4, generation = models.generation + 1",
            name.as_str(),
            Json(labels) as _,
            description.as_deref(),
            owner.as_deref(),
            self.now.as_millis(),
        )
        .execute(&mut *self.tx)
        .await?;
        let (kind, word) = match change {
            Change::Created => (EventKind::ModelCreated, "created"),
            _ => (EventKind::ModelUpdated, "updated"),
        };
        let event = EventDraft {
            kind,
            actor: self.actor.clone(),
            model: Some(name.clone()),
            deployment: None,
            message: format!("model {name} was {word}"),
            data: json!({"labels": labels, "description": description, "owner": owner}),
        };
        events::append(&mut self.tx, &event, self.now).await
    }

    async fn version(&mut self, document: usize, version: &ModelVersion) -> Result<()> {
        let (model, number) = (&version.model, &version.version);
        let known = sqlx::query!(
            "select format, digest, labels, metadata from model_versions where model = $1 and version = $2",
            model.as_str(),
            number.as_str(),
        );
        match known.fetch_optional(&mut *self.tx).await? {
            None => self.create_version(document, version).await,
            Some(known) if known.digest != version.digest.to_string() => {
                let message = format!(
                    "version {number} of {model} is already registered with sha256 {}, and this artifact has {}; versions \
                     are immutable: give it another version",
                    known.digest, version.digest
                );
                self.problem(document, "spec.version", ProblemStatus::Conflict, message);
                Ok(())
            }
            Some(known) if known.format != version.format.as_str() => {
                let message = format!(
                    "version {number} of {model} is already registered as {}; versions are immutable: give it another version",
                    known.format
                );
                self.problem(document, "spec.format", ProblemStatus::Conflict, message);
                Ok(())
            }
            Some(known) if known.labels == json!(version.labels) && known.metadata == json!(version.metadata) => {
                self.done(document, Change::Unchanged, None);
                Ok(())
            }
            Some(_) => {
                self.done(document, Change::Updated, None);
                sqlx::query!(
                    "update model_versions set labels = $3, metadata = $4 where model = $1 and version = $2",
                    model.as_str(),
                    number.as_str(),
                    Json(&version.labels) as _,
                    Json(&version.metadata) as _,
                )
                .execute(&mut *self.tx)
                .await?;
                Ok(())
            }
        }
    }

    async fn create_version(&mut self, document: usize, version: &ModelVersion) -> Result<()> {
        let (model, number) = (&version.model, &version.version);
        let exists = sqlx::query_scalar!("select 1 from models where name = $1", model.as_str());
        if exists.fetch_optional(&mut *self.tx).await?.is_none() {
            let message =
                format!("there is no model {model}: apply a Model with that name, or put one into the same file");
            self.problem(document, "spec.model", ProblemStatus::Invalid, message);
            return Ok(());
        }
        sqlx::query!(
            "insert into model_versions
                (model, version, format, digest, size, signature, labels, metadata, actor, created_ms)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
            model.as_str(),
            number.as_str(),
            version.format.as_str(),
            version.digest.to_string(),
            signed(version.size),
            Json(&version.signature) as _,
            Json(&version.labels) as _,
            Json(&version.metadata) as _,
            self.actor.as_str(),
            self.now.as_millis(),
        )
        .execute(&mut *self.tx)
        .await?;
        self.done(document, Change::Created, None);
        let event = EventDraft {
            kind: EventKind::VersionRegistered,
            actor: self.actor.clone(),
            model: Some(model.clone()),
            deployment: None,
            message: format!(
                "version {number} of {model} was registered ({}, {})",
                version.format,
                version.digest.short()
            ),
            data: json!({"version": number, "format": version.format, "sha256": version.digest, "size": version.size}),
        };
        events::append(&mut self.tx, &event, self.now).await
    }
}
