//! `GET /events`

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::sse::{self, Sse};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use futures::{Stream, StreamExt, stream};
use modelyard_api::ProblemDetails;
use modelyard_api::types::Events;
use modelyard_core::event::Event;
use modelyard_core::{DeploymentName, Timestamp};
use modelyard_store::EventFilter;
use serde::Deserialize;
use utoipa::IntoParams;

use super::extract::Query;
use super::guard::{Shown, must_end};
use crate::app::App;
use crate::refusal::{ApiError, ApiResult};

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct EventsQuery {
    #[param(value_type = Option<String>)]
    deployment: Option<DeploymentName>,
    /// Only those at this time (RFC 3339) or later.
    #[param(value_type = Option<String>)]
    since: Option<Timestamp>,
    /// Per page, at most 1000.
    limit: Option<u32>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// A follower looks at least this often: another control plane may have written.
const LOOK_EVERY: Duration = Duration::from_secs(2);
const FOLLOW_BATCH: i64 = 500;

/// Who did what, why, and what the system decided; oldest first. With `Accept: text/event-stream` the answer goes on
/// with each event as it happens (from now on, unless `since` or `Last-Event-ID` says from when).
#[utoipa::path(get, path = "/events", tag = "events", params(EventsQuery),
    responses((status = 200, body = Events), (status = 400, body = ProblemDetails)))]
pub(super) async fn list_events(
    State(app): State<Arc<App>>,
    Query(query): Query<EventsQuery>,
    headers: HeaderMap,
    shown: Option<Extension<Shown>>,
) -> ApiResult<Response> {
    let bad_cursor = |_| ApiError::bad_request("cursor: it is not one of this list's");
    let after = query.cursor.as_ref().map(|c| c.parse::<i64>()).transpose().map_err(bad_cursor)?;
    let filter = EventFilter { deployment: query.deployment, since: query.since, after, ..EventFilter::default() };
    let wants_stream = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok());
    if wants_stream.is_some_and(|accept| accept.contains("text/event-stream")) {
        return follow(app, filter, &headers, shown).await;
    }
    let limit = i64::from(query.limit.unwrap_or(100).clamp(1, 1000));
    let events = app.store.events(&filter, limit).await?;
    let full = i64::try_from(events.len()).is_ok_and(|n| n == limit);
    let next = events.last().filter(|_| full).map(|event| event.id.to_string());
    Ok(Json(Events { items: events, next }).into_response())
}

async fn follow(
    app: Arc<App>,
    mut filter: EventFilter,
    headers: &HeaderMap,
    shown: Option<Extension<Shown>>,
) -> ApiResult<Response> {
    let last_seen = headers.get("last-event-id").and_then(|v| v.to_str().ok()).and_then(|id| id.parse().ok());
    filter.after = match (last_seen, filter.since) {
        (Some(id), _) => Some(id),
        (None, Some(_)) => filter.after,
        (None, None) => Some(app.store.last_event_id().await?),
    };
    // A follower that is cut off comes back, with the last id it saw, to whoever is in office then.
    let events = events_from(app.clone(), filter).take_until(must_end(app, shown)).map(|event| {
        let line = sse::Event::default().id(event.id.to_string()).event(event.what.kind.as_str());
        Ok::<_, Infallible>(line.json_data(&event).unwrap_or_default())
    });
    Ok(Sse::new(events).keep_alive(sse::KeepAlive::default()).into_response())
}

/// All events that pass the filter, those to come too. A database that does not answer is asked again.
fn events_from(app: Arc<App>, filter: EventFilter) -> impl Stream<Item = Event> {
    let mut writes = app.wake.follow_writes();
    writes.mark_changed();
    let batches = stream::unfold((app, filter, writes), async |(app, mut filter, mut writes)| {
        loop {
            // A wake that comes while we read is seen at the next turn.
            tokio::time::timeout(LOOK_EVERY, writes.changed()).await.ok();
            match app.store.events(&filter, FOLLOW_BATCH).await {
                Ok(events) if events.is_empty() => {}
                Ok(events) => {
                    filter.after = events.last().map(|event| event.id);
                    writes.mark_changed();
                    return Some((stream::iter(events), (app, filter, writes)));
                }
                Err(error) => {
                    tracing::debug!(%error, "events cannot be read; a follower waits");
                    tokio::time::sleep(LOOK_EVERY).await;
                }
            }
        }
    });
    batches.flatten()
}
