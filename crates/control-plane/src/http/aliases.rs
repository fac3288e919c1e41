//! `PUT` and `DELETE /models/{m}/aliases/{a}`

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use bytes::Bytes;
use modelyard_api::ProblemDetails;
use modelyard_api::types::{AliasMoved, MoveAlias, RolledDeployment};
use modelyard_core::{AliasName, ModelName};

use super::extract::{At, By, json};
use crate::app::{App, now};
use crate::refusal::ApiResult;

/// Move an alias to a version. The deployments that follow it roll. Refused where their callers cannot use it.
#[utoipa::path(put, path = "/models/{m}/aliases/{a}", tag = "models", params(("m" = String, Path), ("a" = String, Path)),
    request_body = MoveAlias,
    responses((status = 200, body = AliasMoved), (status = 404, body = ProblemDetails),
        (status = 409, body = ProblemDetails)))]
pub(super) async fn move_alias(
    State(app): State<Arc<App>>,
    At((model, alias)): At<(ModelName, AliasName)>,
    By(actor): By,
    body: Bytes,
) -> ApiResult<Json<AliasMoved>> {
    let MoveAlias { version } = json(&body)?;
    let moved = app.store.move_alias(&model, &alias, &version, &actor, now()).await?;
    app.wake.written();
    let rolled = moved.rolled.into_iter().map(|(deployment, revision)| RolledDeployment { deployment, revision });
    Ok(Json(AliasMoved {
        model,
        alias,
        version,
        previous: moved.previous,
        rolled: rolled.collect(),
        warnings: moved.warnings,
    }))
}

/// Drop an alias. Refused while a deployment follows it.
#[utoipa::path(delete, path = "/models/{m}/aliases/{a}", tag = "models", params(("m" = String, Path), ("a" = String, Path)),
    responses((status = 204), (status = 404, body = ProblemDetails), (status = 409, body = ProblemDetails)))]
pub(super) async fn drop_alias(
    State(app): State<Arc<App>>,
    At((model, alias)): At<(ModelName, AliasName)>,
    By(actor): By,
) -> ApiResult<StatusCode> {
    app.store.drop_alias(&model, &alias, &actor, now()).await?;
    app.wake.written();
    Ok(StatusCode::NO_CONTENT)
}
