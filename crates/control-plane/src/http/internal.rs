//! The link to gateways: route tables out, as a stream that stays open; evidence in. Not part of the public API.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::{StreamExt, stream};
use modelyard_core::{EvidenceReport, RouteTable};

use super::extract::json;
use super::guard::{Shown, must_end};
use crate::app::App;
use crate::refusal::ApiResult;

/// A gateway that hears nothing for longer takes the link for broken.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// Tells a gateway that the lease has lapsed, and another control plane may be in office: it should look around.
const OFFICE: HeaderName = HeaderName::from_static("x-modelyard-office");

/// Each line is a whole route table, the latest; an empty line is a heartbeat. The stream ends with the term of office, or
/// with the token.
pub(super) async fn routes(State(app): State<Arc<App>>, shown: Option<Extension<Shown>>) -> Response {
    let mut tables = app.gateways.follow();
    tables.mark_changed();
    let standing = standing(&app);
    let lines = stream::unfold(tables, async |mut tables| {
        let line = match tokio::time::timeout(HEARTBEAT, tables.changed()).await {
            Ok(Ok(())) => line(&tables.borrow_and_update()),
            Ok(Err(_)) => return None,
            Err(_) => Bytes::from_static(b"\n"),
        };
        Some((Ok::<_, Infallible>(line), tables))
    });
    let lines = lines.take_until(must_end(app, shown));
    ([(header::CONTENT_TYPE, "application/x-ndjson")], standing, Body::from_stream(lines)).into_response()
}

fn standing(app: &App) -> HeaderMap {
    let lapsed = app.term.check().is_err().then_some((OFFICE, HeaderValue::from_static("lapsed")));
    lapsed.into_iter().collect()
}

/// Nothing is told before the first table of this term is published: an empty one would take everything off the air.
fn line(table: &RouteTable) -> Bytes {
    if table.version.sequence == 0 {
        return Bytes::from_static(b"\n");
    }
    let mut line = serde_json::to_vec(table).unwrap_or_default();
    line.push(b'\n');
    line.into()
}

pub(super) async fn evidence(State(app): State<Arc<App>>, body: Bytes) -> ApiResult<(StatusCode, HeaderMap)> {
    let report: EvidenceReport = json(&body)?;
    if app.gateways.report(report) {
        app.wake.look();
    }
    Ok((StatusCode::NO_CONTENT, standing(&app)))
}
