//! Liveness, readiness, and figures for Prometheus.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;

use crate::app::App;
use crate::metrics;

pub(super) async fn healthz() -> &'static str {
    "ok"
}

/// Ready: Postgres answers, and the first reconcile is done.
pub(super) async fn readyz(State(app): State<Arc<App>>) -> (StatusCode, String) {
    if let Err(error) = app.store.ping().await {
        return (StatusCode::SERVICE_UNAVAILABLE, format!("the database does not answer: {error}"));
    }
    if app.gateways.published().version.sequence == 0 {
        return (StatusCode::SERVICE_UNAVAILABLE, "the first reconcile is not done".into());
    }
    (StatusCode::OK, "ok".into())
}

pub(super) async fn metrics(State(app): State<Arc<App>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics::encode(&app))
}
