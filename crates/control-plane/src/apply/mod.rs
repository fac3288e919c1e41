//! Apply: manifests in, all of them or none.
//!
//! parse -> pin artifacts to digests -> load each new one once -> try engines that are asked for -> one transaction -> words for people.

mod documents;
mod engines;
mod pin;
pub mod sources;
mod warnings;

use std::collections::BTreeMap;
use std::sync::Arc;

use http::StatusCode;
use modelyard_api::types::{Action, Applied, AppliedDocument, BundleFile};
use modelyard_core::inputs::Inputs;
use modelyard_core::manifest::Resource;
use modelyard_core::{Actor, Digest, RevisionNumber};
use modelyard_store::{ApplyBatch, ApplyOutcome, Change, StoreError};

use self::documents::{Documents, Located};
use self::pin::Pins;
use crate::app::{App, now};
use crate::refusal::{ApiError, ApiResult};

pub struct Options {
    pub dry_run: bool,
    /// The generation that the one deployment of the bundle must still have.
    pub expected: Option<RevisionNumber>,
    pub actor: Actor,
}

/// # Errors
/// All problems of all documents; a database or artifact store that fails. Nothing is applied then, and no artifact
/// stays that was stored for it.
pub async fn apply(app: &Arc<App>, files: &[BundleFile], options: Options) -> ApiResult<Applied> {
    let documents = documents::read(files)?;
    check_expected(&documents, &options)?;
    let mut pins = Pins::default();
    let applied = {
        let _registering = app.registration.read().await;
        register(app, &documents, &options, &mut pins).await
    };
    if applied.is_err() || options.dry_run {
        discard_unused(app, pins.stored_or_refused()).await;
    }
    applied
}

async fn register(app: &App, documents: &Documents<'_>, options: &Options, pins: &mut Pins) -> ApiResult<Applied> {
    let versions = pins.pin(app, documents, options.dry_run).await?;
    engines::check(app, documents, &versions).await?;
    let mut batch = ApplyBatch::default();
    for (index, located) in documents.all.iter().enumerate() {
        match &located.resource {
            Resource::Model(model) => batch.add_model(index, model.clone()),
            Resource::ModelVersion(_) => {
                if let Some(version) = versions.get(&index) {
                    batch.add_version(index, version.clone());
                }
            }
            Resource::ModelDeployment(deployment) => batch.add_deployment(index, deployment.clone(), options.expected),
        }
    }
    let outcome = app.store.apply(batch, options.dry_run, &options.actor, now()).await;
    let outcome = outcome.map_err(|error| refuse(documents, pins, error))?;
    if !options.dry_run {
        app.wake.written();
    }
    answer(app, documents, options, outcome).await
}

fn check_expected(documents: &Documents<'_>, options: &Options) -> ApiResult<()> {
    let is_deployment = |d: &&Located| matches!(d.resource, Resource::ModelDeployment(_));
    if options.expected.is_some() && documents.all.iter().filter(is_deployment).count() != 1 {
        return Err(ApiError::bad_request("If-Match names one generation: apply exactly one ModelDeployment with it"));
    }
    Ok(())
}

/// What the database refused, with the lines of the documents at fault.
fn refuse(documents: &Documents<'_>, pins: &mut Pins, error: StoreError) -> ApiError {
    let StoreError::Refused(found) = error else { return error.into() };
    let status =
        found.iter().map(|p| p.status.code()).min_by_key(|code| [412, 409].iter().position(|c| c == code).unwrap_or(2));
    let status = status.and_then(|code| StatusCode::from_u16(code).ok()).unwrap_or(StatusCode::UNPROCESSABLE_ENTITY);
    found.iter().for_each(|problem| pins.refuse(problem.document));
    let problems =
        found.into_iter().filter_map(|p| documents.all.get(p.document).map(|d| d.problem(&p.path, p.message)));
    ApiError::refused(status, problems.collect())
}

async fn answer(app: &App, documents: &Documents<'_>, options: &Options, outcome: ApplyOutcome) -> ApiResult<Applied> {
    let listed = outcome.documents.iter().filter_map(|done| documents.all.get(done.document).map(|d| (done, d)));
    let listed = listed.map(|(done, located)| AppliedDocument {
        kind: located.resource.kind().to_owned(),
        name: located.resource.name().to_owned(),
        file: located.file.clone(),
        action: action(done.change),
        revision: done.revision,
    });
    let mut warnings = warnings::of(documents, app.runtime.name());
    warnings.extend(
        outcome.warnings.iter().filter_map(|w| documents.all.get(w.document).map(|d| d.problem(&w.path, &w.message))),
    );
    let after = &outcome.desired_after;
    let words = after
        .iter()
        .flat_map(|(name, desired)| modelyard_planner::outline(name, outcome.desired_before.get(name), desired));
    Ok(Applied {
        dry_run: options.dry_run,
        plan: words.collect(),
        data: first_plan(app, &outcome).await,
        warnings,
        documents: listed.collect(),
    })
}

fn action(change: Change) -> Action {
    match change {
        Change::Created => Action::Created,
        Change::Updated => Action::Updated,
        Change::Unchanged => Action::Unchanged,
    }
}

/// What the reconciler is going to do first, by the same planner.
async fn first_plan(app: &App, outcome: &ApplyOutcome) -> serde_json::Value {
    let inputs = Inputs {
        now: now(),
        epoch: app.term.epoch(),
        deployments: outcome.desired_after.clone(),
        aliases: app.store.all_aliases().await.unwrap_or_default(),
        observation: app.runtime.observe().await.unwrap_or_default(),
        failures: BTreeMap::new(),
        drifts: BTreeMap::new(),
        evidence: app.gateways.evidence(),
        measurements: BTreeMap::new(),
        // Nothing of other deployments is to be removed by this plan.
        in_use: modelyard_core::Observed::Unknown { reason: "not asked".into() },
    };
    let mut plan = modelyard_planner::plan(&inputs);
    // Settled deployments are no news.
    plan.reports.clear();
    serde_json::to_value(&plan).unwrap_or_default()
}

/// Deletes artifacts that no registered version has.
pub async fn discard_unused(app: &App, digests: Vec<Digest>) {
    if digests.is_empty() {
        return;
    }
    let _no_registration = app.registration.write().await;
    for digest in digests {
        // Out of office, another control plane may be registering it this very moment.
        if app.term.check().is_err() {
            return;
        }
        // Kept when in doubt: the sweep comes by again.
        if let Ok(false) = app.store.digest_in_use(&digest).await
            && let Err(error) = app.artifacts.delete(&digest).await
        {
            tracing::warn!(%digest, %error, "an unused artifact could not be deleted");
        }
    }
}
