//! `DELETE` of models, versions and deployments

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use modelyard_api::ProblemDetails;
use modelyard_core::{DeploymentName, ModelName, VersionName};

use super::extract::{At, By, IfMatch};
use crate::app::{App, now};
use crate::apply::discard_unused;
use crate::refusal::ApiResult;

/// Delete a model. Refused while it has versions or deployments, which are named.
#[utoipa::path(delete, path = "/models/{m}", tag = "models", params(("m" = String, Path)),
    responses((status = 204), (status = 404, body = ProblemDetails), (status = 409, body = ProblemDetails)))]
pub(super) async fn delete_model(
    State(app): State<Arc<App>>,
    At(model): At<ModelName>,
    By(actor): By,
) -> ApiResult<StatusCode> {
    app.store.delete_model(&model, &actor, now()).await?;
    app.wake.written();
    Ok(StatusCode::NO_CONTENT)
}

/// Delete a version, and its artifact if no other version has it. Refused while something uses it, which is named.
#[utoipa::path(delete, path = "/models/{m}/versions/{v}", tag = "models",
    params(("m" = String, Path), ("v" = String, Path)),
    responses((status = 204), (status = 404, body = ProblemDetails), (status = 409, body = ProblemDetails)))]
pub(super) async fn delete_version(
    State(app): State<Arc<App>>,
    At((model, version)): At<(ModelName, VersionName)>,
    By(actor): By,
) -> ApiResult<StatusCode> {
    let digest = app.store.version(&model, &version).await?.version.digest;
    app.store.delete_version(&model, &version, &actor, now()).await?;
    app.wake.written();
    discard_unused(&app, vec![digest]).await;
    Ok(StatusCode::NO_CONTENT)
}

/// Delete a deployment: it is taken off the routes, then its workers drain and end. Its events stay.
#[utoipa::path(delete, path = "/deployments/{d}", tag = "deployments", params(("d" = String, Path)),
    responses((status = 204), (status = 404, body = ProblemDetails), (status = 412, body = ProblemDetails)))]
pub(super) async fn delete_deployment(
    State(app): State<Arc<App>>,
    At(name): At<DeploymentName>,
    By(actor): By,
    IfMatch(expected): IfMatch,
) -> ApiResult<StatusCode> {
    app.store.delete_deployment(&name, expected, &actor, now()).await?;
    app.wake.written();
    Ok(StatusCode::NO_CONTENT)
}
