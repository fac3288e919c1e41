//! `POST /deployments/{d}/outcomes`

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use bytes::Bytes;
use http::StatusCode;
use modelyard_api::ProblemDetails;
use modelyard_api::types::{Outcomes, OutcomesTaken, PostOutcomes, RefusedOutcome};
use modelyard_core::outcomes::NewOutcome;
use modelyard_core::{DeploymentName, Timestamp};
use modelyard_store::{ExperimentRow, OutcomeRow};

use super::extract::{At, json};
use crate::app::{App, now};
use crate::refusal::{ApiError, ApiResult};

/// How many refusals are told; their number is told whole.
const MOST_REFUSALS: usize = 100;

/// Tell what came of requests within an A/B test: it is joined to the variant that they were assigned to. May be posted
/// again: an outcome counts once. Those that belong to nothing are refused, each with its reason; the others are taken.
#[utoipa::path(post, path = "/deployments/{d}/outcomes", tag = "experiments", params(("d" = String, Path)),
    request_body = PostOutcomes,
    responses((status = 200, body = OutcomesTaken),
        (status = 404, description = "There is no such deployment, or it has had no experiment", body = ProblemDetails),
        (status = 413, description = "More than 10,000 at once", body = ProblemDetails),
        (status = 422, description = "None of them could be taken", body = ProblemDetails)))]
pub(super) async fn post_outcomes(
    State(app): State<Arc<App>>,
    At(name): At<DeploymentName>,
    body: Bytes,
) -> ApiResult<Json<OutcomesTaken>> {
    let outcomes = parse(&body)?;
    let row = app.store.experiment(&name).await?;
    let at = now();
    let mut refused = Vec::new();
    let mut taken = Vec::new();
    for (index, outcome) in outcomes.iter().enumerate() {
        match join(&row, outcome, at) {
            Ok(outcome) => taken.push(outcome),
            Err(message) => refused.push(RefusedOutcome { index, message }),
        }
    }
    if let (true, Some(first)) = (taken.is_empty(), refused.first()) {
        let detail = format!("none of {} could be taken; the first: {}", outcomes.len(), first.message);
        return Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", detail));
    }
    let accepted = app.store.record_outcomes(&name, row.experiment.began, &taken).await?;
    let (known, refused_count) = (taken.len() as u64 - accepted.min(taken.len() as u64), refused.len() as u64);
    refused.truncate(MOST_REFUSALS);
    Ok(Json(OutcomesTaken { accepted, known, refused, refused_count }))
}

/// One outcome, or a list of them: told apart by the field, so that a mistake is named for what was meant.
fn parse(body: &[u8]) -> ApiResult<Vec<NewOutcome>> {
    let value: serde_json::Value = json(body)?;
    let outcomes = match value.get("outcomes") {
        Some(_) => json::<Outcomes>(body)?.outcomes,
        None => vec![json::<NewOutcome>(body)?],
    };
    if outcomes.len() > Outcomes::MOST {
        let detail = format!("{} outcomes at once; post at most {}", outcomes.len(), Outcomes::MOST);
        return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", detail));
    }
    Ok(outcomes)
}

fn join(row: &ExperimentRow, outcome: &NewOutcome, now: Timestamp) -> Result<OutcomeRow, String> {
    if !outcome.has_fit_value() {
        return Err(format!("{} is beyond what a value may be ({:e})", outcome.value, NewOutcome::LARGEST_VALUE));
    }
    let test = row.revision.spec.strategy.ab_test();
    if let Some(test) = test.filter(|test| !test.takes(&outcome.metric)) {
        let names: Vec<_> = test.metrics.iter().map(|metric| metric.name.as_str()).collect();
        return Err(format!("the manifest names no metric {}; it has {}", outcome.metric, names.join(", ")));
    }
    let joined = row.experiment.join(outcome, now).map_err(|error| error.to_string())?;
    Ok(OutcomeRow { joined, metric: outcome.metric.clone(), value: outcome.value, at: outcome.at.unwrap_or(now) })
}
