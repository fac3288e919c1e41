//! Who answers: this control plane where it is in office, else the one that is, whose answer is passed on.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::{StreamExt, TryStreamExt};
use modelyard_store::Holder;
use tower::ServiceExt;

use super::guard::bearer;
use crate::app::now;
use crate::node::{Node, Place};
use crate::refusal::ApiError;

/// Names the control plane that passed a request on. It is passed on once: two that take each other to be in office do
/// not send it round in circles.
const FORWARDED: HeaderName = HeaderName::from_static("x-modelyard-forwarded-by");

/// Those of one connection (RFC 9110 §7.6.1), and the name of the server that was asked.
const OF_ONE_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::HOST,
];

pub(super) async fn dispatch(State(node): State<Arc<Node>>, request: Request) -> Response {
    match node.place() {
        Place::InOffice(api) => match api.router().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        },
        Place::Standby(holder) => match request.headers().get(FORWARDED).cloned() {
            None => match admit(&node, request.method(), request.headers()).await {
                Ok(()) => forward(node, &holder, request).await.unwrap_or_else(ApiError::into_response),
                Err(denied) => denied.into_response(),
            },
            Some(by) => {
                let by = String::from_utf8_lossy(by.as_bytes()).into_owned();
                nobody(&format!("{by} takes this control plane to be in office, but {} is", holder.identity))
            }
        },
        Place::Waiting(what) => nobody(&what),
    }
}

/// Whether the token that is shown, if one is needed here, is one. What it may do, the control plane in office knows;
/// but that one may listen on loopback, and take whatever this one passes on for its own machine's.
async fn admit(node: &Node, method: &Method, headers: &HeaderMap) -> Result<(), ApiError> {
    let access = node.access().ok_or_else(|| unavailable("who may ask is not known yet"))?;
    access.admit(bearer(headers), method.as_str(), None, now()).await?;
    Ok(())
}

fn nobody(what: &str) -> Response {
    unavailable(what).into_response()
}

pub(super) fn unavailable(what: &str) -> ApiError {
    let detail = format!("no control plane can answer right now: {what}. Nothing was changed. Try again");
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "no-control-plane", detail)
}

/// Both bodies are streams: uploads, route tables and followed events pass through as they come. They end when another
/// control plane takes office.
async fn forward(node: Arc<Node>, holder: &Holder, request: Request) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", |p| p.as_str());
    let has_body =
        parts.headers.contains_key(header::CONTENT_LENGTH) || parts.headers.contains_key(header::TRANSFER_ENCODING);
    let asked = node.peers.request(parts.method, &holder.address, path).map_err(|error| unreachable(holder, &error))?;
    let mut asked = asked.headers(end_to_end(&parts.headers));
    asked = asked.header(FORWARDED, HeaderValue::from_str(node.identity()).unwrap_or(HeaderValue::from_static("?")));
    if has_body {
        asked = asked.body(reqwest::Body::wrap_stream(body.into_data_stream()));
    }
    let answer = tokio::select! {
        answer = asked.send() => answer.map_err(|error| unreached(holder, &error))?,
        () = node.moved_on(holder.epoch) => return Err(given_up(holder)),
    };
    let (status, headers) = (answer.status(), end_to_end(answer.headers()));
    let is_endless = !headers.contains_key(header::CONTENT_LENGTH);
    let epoch = holder.epoch;
    let content = answer.bytes_stream().map_err(axum::Error::new);
    // What has a length must not seem to end before it does.
    let content = if is_endless {
        content.take_until(async move { node.moved_on(epoch).await }).boxed()
    } else {
        content.boxed()
    };
    Ok((status, headers, Body::from_stream(content)).into_response())
}

fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    let kept = headers.iter().filter(|(name, _)| !OF_ONE_HOP.contains(name));
    kept.map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn unreached(holder: &Holder, error: &reqwest::Error) -> ApiError {
    tracing::warn!(holder = holder.identity, address = holder.address, %error, "the control plane in office is not reached");
    let what =
        if error.is_connect() { "Nothing was changed" } else { "Whether it did anything is not known: look first" };
    let detail = format!(
        "the control plane in office ({} at {}) does not answer; if it is gone, another takes office within seconds. \
         {what}. Try again",
        holder.identity, holder.address
    );
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "no-control-plane", detail)
}

/// What it advertises leads nowhere.
fn unreachable(holder: &Holder, error: &anyhow::Error) -> ApiError {
    tracing::warn!(holder = holder.identity, address = holder.address, error = format!("{error:#}"), "no way to it");
    unavailable(&format!("there is no way to {} at {}: {error:#}", holder.identity, holder.address))
}

fn given_up(holder: &Holder) -> ApiError {
    let detail = format!(
        "{} went out of office before it answered. Whether it did anything is not known: look first, then try again",
        holder.identity
    );
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "no-control-plane", detail)
}
