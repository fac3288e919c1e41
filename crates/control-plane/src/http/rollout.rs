//! `GET /deployments/{d}/rollout`

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use modelyard_api::ProblemDetails;
use modelyard_api::types::{RecordedVerdict, Rollout};
use modelyard_core::event::{Event, EventKind};
use modelyard_core::verdict::Verdict;
use modelyard_core::{DeploymentName, RevisionNumber};
use modelyard_store::EventFilter;
use serde::Deserialize;

use super::extract::At;
use crate::app::App;
use crate::refusal::ApiResult;

/// The walk to the latest revision: its phase, its verdicts with their numbers, what it waits on.
#[utoipa::path(get, path = "/deployments/{d}/rollout", tag = "rollout", params(("d" = String, Path)),
    responses((status = 200, body = Rollout), (status = 404, body = ProblemDetails)))]
pub(super) async fn get_rollout(State(app): State<Arc<App>>, At(name): At<DeploymentName>) -> ApiResult<Json<Rollout>> {
    of(&app, &name).await.map(Json)
}

pub(super) async fn of(app: &App, name: &DeploymentName) -> ApiResult<Rollout> {
    let row = app.store.deployment(name).await?;
    let number = row.revision.number;
    let revision = app.store.revision(name, number).await?;
    let filter = EventFilter {
        deployment: Some(name.clone()),
        kind: Some(EventKind::AnalysisDecided),
        since: Some(row.revision.created_at),
        ..EventFilter::default()
    };
    let events = app.store.events(&filter, 1000).await?;
    let status = app.report(name).filter(|report| report.observed_revision == number);
    Ok(Rollout {
        deployment: name.clone(),
        revision: number,
        version: row.revision.version.version,
        cause: row.revision.cause,
        phase: status.as_ref().map(|report| report.phase),
        outcome: revision.outcome,
        status,
        verdicts: events.into_iter().filter_map(|event| recorded(event, number)).collect(),
    })
}

/// The data of an `AnalysisDecided` event.
#[derive(Deserialize)]
struct Decided {
    revision: RevisionNumber,
    step: u32,
    verdict: Verdict,
}

fn recorded(event: Event, of: RevisionNumber) -> Option<RecordedVerdict> {
    let decided: Decided = serde_json::from_value(event.what.data).ok()?;
    let Decided { revision, step, verdict } = decided;
    (revision == of).then_some(RecordedVerdict { at: event.at, step, verdict })
}
