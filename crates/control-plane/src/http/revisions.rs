//! `GET /deployments/{d}/revisions`, `/deployments/{d}/revisions/{n}`

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use modelyard_api::ProblemDetails;
use modelyard_api::types::{Page, Revision};
use modelyard_core::{DeploymentName, RevisionNumber};
use modelyard_store::RevisionRow;

use super::extract::{At, Paging, Query};
use crate::app::App;
use crate::refusal::ApiResult;

/// The revisions of a deployment, newest first.
#[utoipa::path(get, path = "/deployments/{d}/revisions", tag = "deployments", params(("d" = String, Path), Paging),
    responses((status = 200, body = Page<Revision>), (status = 404, body = ProblemDetails)))]
pub(super) async fn list_revisions(
    State(app): State<Arc<App>>,
    At(name): At<DeploymentName>,
    Query(paging): Query<Paging>,
) -> ApiResult<Json<Page<Revision>>> {
    let rows = app.store.revisions(&name, paging.limit(), paging.after()?).await?;
    let revisions: Vec<_> = rows.into_iter().map(resource).collect();
    Ok(Json(paging.page(revisions, |revision| revision.number.to_string())))
}

/// A revision: its spec, why it was made, by whom, and how its rollout ended.
#[utoipa::path(get, path = "/deployments/{d}/revisions/{n}", tag = "deployments",
    params(("d" = String, Path), ("n" = u64, Path)),
    responses((status = 200, body = Revision), (status = 404, body = ProblemDetails)))]
pub(super) async fn get_revision(
    State(app): State<Arc<App>>,
    At((name, number)): At<(DeploymentName, RevisionNumber)>,
) -> ApiResult<Json<Revision>> {
    Ok(Json(resource(app.store.revision(&name, number).await?)))
}

pub(super) fn resource(row: RevisionRow) -> Revision {
    let revision = row.revision;
    Revision {
        number: revision.number,
        version: revision.version.version,
        spec: revision.spec,
        cause: revision.cause,
        actor: revision.actor,
        created_at: revision.created_at,
        outcome: row.outcome,
        served_at: row.served_at,
    }
}
