//! `GET /deployments`, `/deployments/{d}`

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use modelyard_api::ProblemDetails;
use modelyard_api::types::{Deployment, Page};
use modelyard_core::DeploymentName;
use modelyard_store::DeploymentRow;

use super::extract::{At, Paging, Query};
use crate::app::App;
use crate::refusal::ApiResult;

/// The deployments, by name, each with its status.
#[utoipa::path(get, path = "/deployments", tag = "deployments", params(Paging),
    responses((status = 200, body = Page<Deployment>)))]
pub(super) async fn list_deployments(
    State(app): State<Arc<App>>,
    Query(paging): Query<Paging>,
) -> ApiResult<Json<Page<Deployment>>> {
    let rows = app.store.list_deployments(paging.limit(), paging.after()?.as_ref()).await?;
    let deployments: Vec<_> = rows.into_iter().map(|row| resource(&app, row)).collect();
    Ok(Json(paging.page(deployments, |deployment| deployment.name.to_string())))
}

/// A deployment: what is asked of it, and its status: phase, variants, conditions, what it waits on.
#[utoipa::path(get, path = "/deployments/{d}", tag = "deployments", params(("d" = String, Path)),
    responses((status = 200, body = Deployment, headers(("etag" = String, description = "The generation, for If-Match"))),
        (status = 404, body = ProblemDetails)))]
pub(super) async fn get_deployment(
    State(app): State<Arc<App>>,
    At(name): At<DeploymentName>,
) -> ApiResult<impl IntoResponse> {
    let deployment = resource(&app, app.store.deployment(&name).await?);
    Ok(([(header::ETAG, format!("\"{}\"", deployment.generation))], Json(deployment)))
}

fn resource(app: &App, row: DeploymentRow) -> Deployment {
    let status = app.report(&row.name);
    Deployment {
        status,
        name: row.name,
        labels: row.labels,
        generation: row.revision.number,
        spec: row.revision.spec,
        version: row.revision.version.version,
        stable: row.stable,
        created_at: row.created_at,
    }
}
