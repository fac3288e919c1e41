//! `GET /deployments/{d}/served?at=TIME`

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use modelyard_api::ProblemDetails;
use modelyard_api::types::{Served, ServedWeight};
use modelyard_core::{DeploymentName, Timestamp};
use serde::Deserialize;
use utoipa::IntoParams;

use super::extract::{At, Query};
use crate::app::{App, now};
use crate::refusal::ApiResult;

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ServedQuery {
    /// RFC 3339; now, if it is not given.
    #[param(value_type = Option<String>)]
    at: Option<Timestamp>,
}

#[derive(Default, Deserialize)]
struct Weights {
    weights: Vec<ServedWeight>,
}

/// Which versions served at a time, with which weights. Answered for deleted deployments too.
#[utoipa::path(get, path = "/deployments/{d}/served", tag = "deployments", params(("d" = String, Path), ServedQuery),
    responses((status = 200, body = Served), (status = 400, body = ProblemDetails)))]
pub(super) async fn get_served(
    State(app): State<Arc<App>>,
    At(deployment): At<DeploymentName>,
    Query(query): Query<ServedQuery>,
) -> ApiResult<Json<Served>> {
    let at = query.at.unwrap_or_else(now);
    let event = app.store.served_at(&deployment, at).await?;
    let since = event.as_ref().map(|event| event.at);
    let data = event.map(|event| event.what.data).unwrap_or_default();
    let weights = serde_json::from_value::<Weights>(data).unwrap_or_default().weights;
    Ok(Json(Served { deployment, at, since, weights }))
}
