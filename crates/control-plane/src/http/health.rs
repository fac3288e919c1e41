//! Liveness, readiness, and figures for Prometheus: each control plane's own, in office or not.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::dispatch::unavailable;
use super::guard::bearer;
use crate::app::now;
use crate::metrics;
use crate::node::{Node, Place};
use crate::refusal::ApiError;

pub(super) async fn healthz() -> &'static str {
    "ok"
}

/// Ready: the first reconcile is done, or another control plane is known to be in office. A database that has gone away
/// since makes nobody unready: gateways that start still get the table, and people are told what is the matter.
pub(super) async fn readyz(State(node): State<Arc<Node>>) -> (StatusCode, String) {
    let not_yet = |why: String| (StatusCode::SERVICE_UNAVAILABLE, why);
    let found = match node.place() {
        Place::Waiting(what) => return not_yet(what.to_string()),
        Place::Standby(holder) => format!("ok: standing by for {}", holder.identity),
        Place::InOffice(api) if api.app().gateways.published().version.sequence == 0 => {
            return not_yet("the first reconcile is not done".into());
        }
        Place::InOffice(_) => "ok".into(),
    };
    match node.store.ping().await {
        Ok(()) => (StatusCode::OK, found),
        Err(error) => (StatusCode::OK, format!("{found}; the database does not answer: {error}")),
    }
}

/// For whoever may read, as the rest of the API is.
pub(super) async fn metrics(State(node): State<Arc<Node>>, headers: HeaderMap) -> Response {
    let Some(access) = node.access() else { return unavailable("who may ask is not known yet").into_response() };
    if let Err(denied) = access.admit(bearer(&headers), "GET", Some("/metrics"), now()).await {
        return ApiError::from(denied).into_response();
    }
    let text = match node.place() {
        Place::InOffice(api) => metrics::encode(api.app()),
        Place::Waiting(_) | Place::Standby(_) => metrics::out_of_office(),
    };
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response()
}
