//! What handlers take from requests: who asks, what generation they expect, which page they want. Path segments are
//! parsed into names, with our own errors.

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::request::Parts;
use modelyard_api::types::Page;
use modelyard_core::{Actor, RevisionNumber};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use utoipa::IntoParams;

use crate::access::Caller;
use crate::refusal::ApiError;

/// Who asks, for the events: the holder of the token. Where nobody needs one (on loopback), the header
/// `x-modelyard-actor`: a claim, not a proof.
pub(super) struct By(pub(super) Actor);

impl<S: Sync> FromRequestParts<S> for By {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        if let Some(caller) = parts.extensions.get::<Caller>() {
            return Ok(Self(caller.actor()));
        }
        let claimed = parts.headers.get("x-modelyard-actor").and_then(|v| v.to_str().ok()).unwrap_or("anonymous");
        claimed.parse().map(Self).map_err(|error| ApiError::bad_request(format!("x-modelyard-actor: {error}")))
    }
}

/// `If-Match: <generation>`: the write is refused with 412 if the deployment has moved on.
pub(super) struct IfMatch(pub(super) Option<RevisionNumber>);

impl<S: Sync> FromRequestParts<S> for IfMatch {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        if_match(&parts.headers).map(Self)
    }
}

fn if_match(headers: &HeaderMap) -> Result<Option<RevisionNumber>, ApiError> {
    let Some(value) = headers.get("if-match") else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(None);
    }
    let digits = text.trim_start_matches("W/").trim_matches('"');
    let refuse = |_| ApiError::bad_request(format!("If-Match: `{text}` is not a generation; use a number such as 3"));
    digits.parse().map(Some).map_err(refuse)
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(super) struct Paging {
    /// Items per page, at most 1000.
    limit: Option<u32>,
    /// `next` of the page before.
    pub(super) cursor: Option<String>,
}

impl Paging {
    pub(super) fn limit(&self) -> i64 {
        i64::from(self.limit.unwrap_or(100).clamp(1, 1000))
    }

    /// A page of `items`. A full one may have a next, which goes on after its last item's `key`.
    pub(super) fn page<T>(&self, items: Vec<T>, key: impl Fn(&T) -> String) -> Page<T> {
        let full = i64::try_from(items.len()).is_ok_and(|n| n >= self.limit());
        let next = items.last().filter(|_| full).map(key);
        Page { items, next }
    }

    /// The cursor as the name or number that the list is ordered by.
    pub(super) fn after<T: std::str::FromStr>(&self) -> Result<Option<T>, ApiError> {
        let parse = |cursor: &String| {
            cursor.parse().map_err(|_| ApiError::bad_request(format!("cursor: `{cursor}` is not one of this list's")))
        };
        self.cursor.as_ref().map(parse).transpose()
    }
}

/// Path segments as names.
pub(super) struct At<T>(pub(super) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for At<T> {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match axum::extract::Path::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            Err(error) => Err(ApiError::not_found(format!("there is nothing by that name: {}", error.body_text()))),
        }
    }
}

/// The query string, with our own errors.
pub(super) struct Query<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match axum::extract::Query::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Query(value)) => Ok(Self(value)),
            Err(error) => Err(ApiError::bad_request(error.body_text())),
        }
    }
}

/// A JSON body. An empty one is `T`'s default where the handler asks for `Option`.
pub(super) fn json_body<T: DeserializeOwned + Default>(body: &[u8]) -> Result<T, ApiError> {
    if body.is_empty() {
        return Ok(T::default());
    }
    json(body)
}

pub(super) fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body)
        .map_err(|error| ApiError::bad_request(format!("the body is not as it should be: {error}")))
}
