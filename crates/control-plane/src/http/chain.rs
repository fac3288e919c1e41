//! `GET /events/chain`, `/events/head`: what one needs to verify that no event was changed, removed or reordered.
//!
//! Nothing is verified here. Whoever doubts the database has no more reason to believe this program: the caller computes
//! the hashes (`cargo xtask events verify`).

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use modelyard_api::ProblemDetails;
use modelyard_api::types::{ChainedEvents, EventsHead};

use super::extract::{Paging, Query};
use crate::app::App;
use crate::refusal::ApiResult;

/// Events as the hash chain has them: every field that is hashed, as it is stored; in order of position. `cursor` is
/// the position after which to go on.
#[utoipa::path(get, path = "/events/chain", tag = "events", params(Paging),
    responses((status = 200, body = ChainedEvents), (status = 400, body = ProblemDetails)))]
pub(super) async fn list_chain(
    State(app): State<Arc<App>>,
    Query(paging): Query<Paging>,
) -> ApiResult<Json<ChainedEvents>> {
    let events = app.store.chained_events(paging.after()?, paging.limit()).await?;
    Ok(Json(paging.page(events, |event| event.position.to_string())))
}

/// How far the chain has come. Kept elsewhere, it vouches for all events up to it.
#[utoipa::path(get, path = "/events/head", tag = "events", responses((status = 200, body = EventsHead)))]
pub(super) async fn get_head(State(app): State<Arc<App>>) -> ApiResult<Json<EventsHead>> {
    Ok(Json(EventsHead { head: app.store.chain_head().await? }))
}
