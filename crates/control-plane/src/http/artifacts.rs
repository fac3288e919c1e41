//! `PUT /artifacts`, `GET` and `HEAD /artifacts/{sha256}`
//!
//! Artifacts that lie in a bucket can be read from there, by a signed address that `GET` sends on to if asked: workers
//! then load them without passing them through here, and without credentials for the cloud.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::StreamExt as _;
use modelyard_api::ProblemDetails;
use modelyard_api::types::Artifact;
use modelyard_core::Digest;
use object_store::GetRange;
use serde::Deserialize;
use utoipa::IntoParams;

use super::extract::{At, Query};
use crate::app::App;
use crate::refusal::{ApiError, ApiResult};

/// How long the rest of an upload that is refused is read.
const LISTEN_ON: Duration = Duration::from_secs(5);

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct PutQuery {
    /// What the content must have; else it is refused.
    #[param(value_type = Option<String>)]
    sha256: Option<Digest>,
}

/// Upload an artifact. The body is its bytes, of any length; they are hashed as they stream in.
#[utoipa::path(put, path = "/artifacts", tag = "artifacts", params(PutQuery),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 201, body = Artifact), (status = 200, description = "It was there already", body = Artifact),
        (status = 422, description = "Another digest than given", body = ProblemDetails),
        (status = 507, description = "No space left", body = ProblemDetails)))]
pub(super) async fn put_artifact(
    State(app): State<Arc<App>>,
    Query(query): Query<PutQuery>,
    body: Body,
) -> ApiResult<(StatusCode, Json<Artifact>)> {
    let mut content = body.into_data_stream();
    let stored = match app.artifacts.put(&mut content, query.sha256).await {
        Ok(stored) => stored,
        Err(refused) => {
            // A client that still sends would not read why, but find its connection broken.
            tokio::spawn(tokio::time::timeout(LISTEN_ON, async move {
                while content.next().await.is_some_and(|c| c.is_ok()) {}
            }));
            return Err(refused.into());
        }
    };
    let status = if stored.new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(Artifact { sha256: stored.digest, size: stored.size })))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct GetQuery {
    /// Whether the answer may send on to where the artifact lies, if that can be read directly.
    #[serde(default)]
    redirect: bool,
}

/// Download an artifact, or a range of it.
#[utoipa::path(get, path = "/artifacts/{sha256}", tag = "artifacts", params(("sha256" = String, Path), GetQuery),
    responses((status = 200, content_type = "application/octet-stream"),
        (status = 206, description = "The range asked for", content_type = "application/octet-stream"),
        (status = 307, description = "It lies in a bucket: `Location` is signed and good for 15 minutes"),
        (status = 404, body = ProblemDetails), (status = 416, body = ProblemDetails)))]
pub(super) async fn get_artifact(
    State(app): State<Arc<App>>,
    At(digest): At<Digest>,
    Query(query): Query<GetQuery>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let size = app.artifacts.size(&digest).await?.ok_or(crate::artifacts::ArtifactError::NotFound(digest))?;
    if query.redirect
        && let Some(url) = app.artifacts.signed_url(&digest).await
    {
        // Whoever has the address may read: no cache may keep it.
        let headers = [(header::LOCATION, url.to_string()), (header::CACHE_CONTROL, "no-store".into())];
        return Ok((StatusCode::TEMPORARY_REDIRECT, headers).into_response());
    }
    let range = headers.get(header::RANGE).and_then(|v| v.to_str().ok()).and_then(parse_range);
    if let Some(range) = &range {
        range.as_range(size).map_err(|error| {
            ApiError::new(StatusCode::RANGE_NOT_SATISFIABLE, "range", format!("the artifact has {size} bytes: {error}"))
        })?;
    }
    let partial = range.is_some();
    let content = app.artifacts.get(&digest, range).await?;
    let length = content.range.end - content.range.start;
    let mut response = Body::from_stream(content.stream).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, length.into());
    describe(headers, &digest);
    if partial {
        let text = format!("bytes {}-{}/{}", content.range.start, content.range.end.saturating_sub(1), content.size);
        headers.extend(text.parse().ok().map(|value| (header::CONTENT_RANGE, value)));
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    Ok(response)
}

/// Whether an artifact is there, and its size.
#[utoipa::path(head, path = "/artifacts/{sha256}", tag = "artifacts", params(("sha256" = String, Path)),
    responses((status = 200), (status = 404)))]
pub(super) async fn head_artifact(State(app): State<Arc<App>>, At(digest): At<Digest>) -> ApiResult<Response> {
    let size = app.artifacts.size(&digest).await?.ok_or(crate::artifacts::ArtifactError::NotFound(digest))?;
    let mut response = Body::empty().into_response();
    response.headers_mut().insert(header::CONTENT_LENGTH, size.into());
    describe(response.headers_mut(), &digest);
    Ok(response)
}

fn describe(headers: &mut HeaderMap, digest: &Digest) {
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::ACCEPT_RANGES, header::HeaderValue::from_static("bytes"));
    headers.extend(format!("\"{digest}\"").parse().ok().map(|value| (header::ETAG, value)));
}

/// One range of bytes (RFC 9110 §14.1.2). Several, or what cannot be read, is ignored as the RFC allows.
fn parse_range(text: &str) -> Option<GetRange> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if first <= last => Some(GetRange::Bounded(first..last.saturating_add(1))),
        (Ok(first), Err(_)) if last.is_empty() => Some(GetRange::Offset(first)),
        (Err(_), Ok(suffix)) if first.is_empty() => Some(GetRange::Suffix(suffix)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_rfc_writes_them() {
        assert_eq!(parse_range("bytes=0-9"), Some(GetRange::Bounded(0..10)));
        assert_eq!(parse_range("bytes=5-"), Some(GetRange::Offset(5)));
        assert_eq!(parse_range("bytes=-5"), Some(GetRange::Suffix(5)));
        for ignored in ["bytes=9-0", "bytes=0-1,3-4", "lines=1-2", "bytes=a-b"] {
            assert_eq!(parse_range(ignored), None, "{ignored}");
        }
    }
}
