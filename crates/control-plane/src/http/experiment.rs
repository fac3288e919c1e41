//! `GET /deployments/{d}/experiment`, `POST /deployments/{d}/experiment/conclude`

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use bytes::Bytes;
use http::StatusCode;
use modelyard_api::ProblemDetails;
use modelyard_api::types::{Conclude, Revision};
use modelyard_core::manifest::parse_strategy;
use modelyard_core::outcomes::ExperimentReport;
use modelyard_core::{DeploymentName, PerUnit, Strategy};
use modelyard_planner::experiment::{Shown, report};

use super::extract::{At, By, IfMatch, json};
use super::revisions;
use crate::app::{App, now};
use crate::exposures;
use crate::refusal::{ApiError, ApiResult};

/// What the experiment that runs, or that ran last, has shown: estimates and differences that may be looked at at any
/// time, who is ahead, and whether units were split as the weights say.
#[utoipa::path(get, path = "/deployments/{d}/experiment", tag = "experiments", params(("d" = String, Path)),
    responses((status = 200, body = ExperimentReport),
        (status = 404, description = "There is no such deployment, or it has had no experiment", body = ProblemDetails)))]
pub(super) async fn get_experiment(
    State(app): State<Arc<App>>,
    At(name): At<DeploymentName>,
) -> ApiResult<Json<ExperimentReport>> {
    let row = app.store.experiment(&name).await?;
    exposures::keep(&app).await?;
    let layout = row.experiment.layout();
    let exposures = app.store.exposures(&name, &layout.revisions).await?;
    let metrics = row.revision.spec.strategy.ab_test().map(|test| test.metrics.clone()).unwrap_or_default();
    let summed: Vec<_> = metrics.into_iter().filter(|m| m.per_unit == PerUnit::Sum).map(|m| m.name).collect();
    let first = layout.revisions.first().copied().unwrap_or(row.experiment.began);
    let tallies = app.store.tallies(&name, row.experiment.began, first, &summed).await?;
    Ok(Json(report(&Shown {
        deployment: &name,
        experiment: &row.experiment,
        revision: &row.revision,
        running: row.running,
        tallies: &tallies,
        exposures: &exposures,
    })))
}

/// End the experiment: a new revision gives all traffic to the version of the winner. Its workers run already, so by
/// default traffic moves at once; the other versions stay warm.
#[utoipa::path(post, path = "/deployments/{d}/experiment/conclude", tag = "experiments", params(("d" = String, Path)),
    request_body = Conclude,
    responses((status = 200, description = "The new revision", body = Revision), (status = 404, body = ProblemDetails),
        (status = 409, description = "No experiment runs", body = ProblemDetails),
        (status = 412, body = ProblemDetails),
        (status = 422, description = "It has no such variant", body = ProblemDetails)))]
pub(super) async fn conclude(
    State(app): State<Arc<App>>,
    At(name): At<DeploymentName>,
    By(actor): By,
    IfMatch(expected): IfMatch,
    body: Bytes,
) -> ApiResult<Json<Revision>> {
    let Conclude { winner, strategy } = json(&body)?;
    let strategy = strategy.map_or_else(|| Ok(Strategy::rolling()), |value| parse(&value))?;
    let row = app.store.conclude(&name, &winner, strategy, expected, &actor, now()).await?;
    app.wake.written();
    Ok(Json(revisions::resource(row)))
}

/// By the rules of manifests.
fn parse(strategy: &serde_json::Value) -> ApiResult<Strategy> {
    let refuse = |problems| ApiError::refused(StatusCode::UNPROCESSABLE_ENTITY, problems);
    match parse_strategy(&strategy.to_string()).map_err(refuse)? {
        Strategy::AbTest(_) => Err(ApiError::bad_request("an experiment is not concluded by another: apply that one")),
        strategy => Ok(strategy),
    }
}
