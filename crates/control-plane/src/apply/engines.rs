//! The engines that deployments ask for, tried on the versions that they name, before anything is written: an engine
//! that cannot load its model is a mistake of the manifest, to be told at once and with its line.
//!
//! Execution providers are not tried: the machine that has them is the workers'.

use std::collections::BTreeMap;

use http::StatusCode;
use modelyard_core::manifest::{Problem, Resource};
use modelyard_core::{DeploymentSpec, EngineName, ModelName, ModelVersion, Strategy, VersionName, VersionRef};

use super::documents::{Documents, Located};
use crate::app::App;
use crate::inspect::InspectError;
use crate::refusal::{ApiError, ApiResult};

/// # Errors
/// The problems of all documents together.
pub(super) async fn check(
    app: &App,
    documents: &Documents<'_>,
    registering: &BTreeMap<usize, ModelVersion>,
) -> ApiResult<()> {
    let mut problems = Vec::new();
    for located in &documents.all {
        let Resource::ModelDeployment(deployment) = &located.resource else { continue };
        let Some(engine) = deployment.spec.engine.name else { continue };
        for (model, version) in versions(app, &deployment.spec).await? {
            let new = registering.values().find(|v| v.model == model && v.version == version).cloned();
            let known = match new {
                Some(new) => Some(new),
                None => app.store.find_version(&model, &version).await?,
            };
            // What there is not is refused by who registers.
            if let Some(known) = known {
                problems.extend(problem(app, located, engine, &known).await?);
            }
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(ApiError::refused(StatusCode::UNPROCESSABLE_ENTITY, problems)) }
}

async fn versions(app: &App, spec: &DeploymentSpec) -> ApiResult<Vec<(ModelName, VersionName)>> {
    let version = match &spec.version {
        VersionRef::Exact(version) => Some(version.clone()),
        VersionRef::Alias(alias) => match app.store.model(&spec.model).await {
            Ok(model) => model.aliases.into_iter().find(|row| row.alias == *alias).map(|row| row.version),
            // Who registers says so.
            Err(_) => None,
        },
    };
    Ok(match (&spec.strategy, version) {
        (Strategy::AbTest(test), Some(version)) => test.versions(&spec.model, &version),
        (_, version) => version.into_iter().map(|version| (spec.model.clone(), version)).collect(),
    })
}

async fn problem(
    app: &App,
    located: &Located<'_>,
    engine: EngineName,
    version: &ModelVersion,
) -> ApiResult<Option<Problem>> {
    let refuse = |why: String| {
        let message = format!("version {} of {} cannot be served by {engine}: {why}", version.version, version.model);
        Ok(Some(located.problem("spec.engine", message)))
    };
    if engine.format() != version.format {
        return refuse(format!("it is {}, and {engine} loads {}", version.format, engine.format()));
    }
    // A dry run may have heard of it only.
    if app.artifacts.size(&version.digest).await?.is_none() {
        return Ok(None);
    }
    let file = app.artifacts.copy(&version.digest).await?;
    match app.inspector.inspect_with(file.path(), version.format, &version.digest, Some(engine)).await {
        Ok(_) => Ok(None),
        // In a cluster, workers may have a library that the control plane has not.
        Err(InspectError::Refused { code, .. }) if code == "no-onnxruntime" && app.runtime.name() != "local" => {
            Ok(None)
        }
        Err(InspectError::NotRun(error)) => {
            tracing::error!(%error, "an engine cannot be tried");
            let detail = "artifacts cannot be loaded for inspection here; the control plane's log says why";
            Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail))
        }
        Err(error) => refuse(error.to_string()),
    }
}
