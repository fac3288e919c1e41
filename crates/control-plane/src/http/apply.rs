//! `POST /apply`

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use modelyard_api::ProblemDetails;
use modelyard_api::types::{Applied, Bundle, BundleFile};
use serde::Deserialize;
use utoipa::IntoParams;

use super::extract::{By, IfMatch, Query, json};
use crate::app::App;
use crate::apply;
use crate::refusal::{ApiError, ApiResult};

#[derive(Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query, rename_all = "camelCase")]
pub(super) struct ApplyQuery {
    /// Say what would happen, and do nothing.
    #[serde(default)]
    dry_run: bool,
}

/// Apply manifests: all documents, or none.
///
/// The body is a manifest (YAML or JSON, one or more documents) or, with the media type
/// `application/vnd.modelyard.bundle+json`, several files with the digests of their uploaded artifacts.
#[utoipa::path(post, path = "/apply", tag = "apply", params(ApplyQuery),
    request_body(content((Bundle = "application/vnd.modelyard.bundle+json"), (String = "application/yaml"))),
    responses((status = 200, body = Applied), (status = 409, body = ProblemDetails), (status = 412, body = ProblemDetails),
        (status = 422, description = "Documents at fault, each place named", body = ProblemDetails)))]
pub(super) async fn apply(
    State(app): State<Arc<App>>,
    Query(query): Query<ApplyQuery>,
    By(actor): By,
    IfMatch(expected): IfMatch,
    headers: HeaderMap,
    body: Bytes,
) -> ApiResult<Json<Applied>> {
    let media_type = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let files = if media_type.starts_with(Bundle::MEDIA_TYPE) {
        json::<Bundle>(&body)?.files
    } else {
        let text =
            String::from_utf8(body.to_vec()).map_err(|_| ApiError::bad_request("the manifest is not UTF-8 text"))?;
        vec![BundleFile { name: String::new(), text, artifacts: Default::default() }]
    };
    let options = apply::Options { dry_run: query.dry_run, expected, actor };
    // In a task of its own: a client that leaves in the middle does not leave half of it done.
    let task = tokio::spawn(async move { apply::apply(&app, &files, options).await });
    task.await.unwrap_or_else(|error| Err(ApiError::internal(&error))).map(Json)
}
