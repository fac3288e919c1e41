//! `POST /deployments/{d}/rollback`

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use bytes::Bytes;
use modelyard_api::ProblemDetails;
use modelyard_api::types::{Revision, Rollback};
use modelyard_core::DeploymentName;

use super::extract::{At, By, IfMatch, json_body};
use super::revisions;
use crate::app::{App, now};
use crate::refusal::ApiResult;

/// Roll back: a new revision that copies an old one. While that one's version is warm, traffic is back on it at the
/// next reconcile, within milliseconds.
#[utoipa::path(post, path = "/deployments/{d}/rollback", tag = "rollout", params(("d" = String, Path)),
    request_body = Rollback,
    responses((status = 200, description = "The new revision", body = Revision), (status = 404, body = ProblemDetails),
        (status = 409, description = "There is nothing to go back to", body = ProblemDetails),
        (status = 412, body = ProblemDetails)))]
pub(super) async fn rollback(
    State(app): State<Arc<App>>,
    At(name): At<DeploymentName>,
    By(actor): By,
    IfMatch(expected): IfMatch,
    body: Bytes,
) -> ApiResult<Json<Revision>> {
    let Rollback { to_revision, reason } = json_body(&body)?;
    let reason = reason.unwrap_or_else(|| format!("asked for by {actor}"));
    let row = app.store.rollback(&name, to_revision, &reason, expected, &actor, now()).await?;
    app.wake.written();
    Ok(Json(revisions::resource(row)))
}
