//! `POST /deployments/{d}/pause`, `resume`, `promote`, `abort`

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use modelyard_api::ProblemDetails;
use modelyard_api::types::Rollout;
use modelyard_core::{Actor, DeploymentName, RevisionNumber};
use modelyard_store::ControlVerb;

use super::extract::{At, By, IfMatch};
use super::rollout;
use crate::app::{App, now};
use crate::refusal::ApiResult;

/// Hold the rollout where it is. A failing analysis still rolls it back.
#[utoipa::path(post, path = "/deployments/{d}/pause", tag = "rollout", params(("d" = String, Path)),
    responses((status = 200, body = Rollout), (status = 409, body = ProblemDetails), (status = 412, body = ProblemDetails)))]
pub(super) async fn pause(
    State(app): State<Arc<App>>,
    At(name): At<DeploymentName>,
    By(actor): By,
    IfMatch(expected): IfMatch,
) -> ApiResult<Json<Rollout>> {
    control(&app, &name, ControlVerb::Pause, expected, &actor).await
}

/// Let a paused rollout go on.
#[utoipa::path(post, path = "/deployments/{d}/resume", tag = "rollout", params(("d" = String, Path)),
    responses((status = 200, body = Rollout), (status = 409, body = ProblemDetails), (status = 412, body = ProblemDetails)))]
pub(super) async fn resume(
    State(app): State<Arc<App>>,
    At(name): At<DeploymentName>,
    By(actor): By,
    IfMatch(expected): IfMatch,
) -> ApiResult<Json<Rollout>> {
    control(&app, &name, ControlVerb::Resume, expected, &actor).await
}

/// Give the new version all traffic now, without the remaining steps.
#[utoipa::path(post, path = "/deployments/{d}/promote", tag = "rollout", params(("d" = String, Path)),
    responses((status = 200, body = Rollout), (status = 409, body = ProblemDetails), (status = 412, body = ProblemDetails)))]
pub(super) async fn promote(
    State(app): State<Arc<App>>,
    At(name): At<DeploymentName>,
    By(actor): By,
    IfMatch(expected): IfMatch,
) -> ApiResult<Json<Rollout>> {
    control(&app, &name, ControlVerb::Promote, expected, &actor).await
}

/// Give up the rollout: back to the revision that last served all traffic, as a rollback is.
#[utoipa::path(post, path = "/deployments/{d}/abort", tag = "rollout", params(("d" = String, Path)),
    responses((status = 200, body = Rollout), (status = 409, body = ProblemDetails), (status = 412, body = ProblemDetails)))]
pub(super) async fn abort(
    State(app): State<Arc<App>>,
    At(name): At<DeploymentName>,
    By(actor): By,
    IfMatch(expected): IfMatch,
) -> ApiResult<Json<Rollout>> {
    app.store.abort(&name, expected, &actor, now()).await?;
    app.wake.written();
    rollout::of(&app, &name).await.map(Json)
}

async fn control(
    app: &Arc<App>,
    name: &DeploymentName,
    verb: ControlVerb,
    expected: Option<RevisionNumber>,
    actor: &Actor,
) -> ApiResult<Json<Rollout>> {
    app.store.control(name, verb, expected, actor, now()).await?;
    app.wake.written();
    rollout::of(app, name).await.map(Json)
}
