//! The gate that every request passes: nothing behind it sees a request that its token does not allow, or the token.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use modelyard_core::Digest;

use crate::access::rules;
use crate::app::{App, now};
use crate::refusal::ApiError;

/// The hash of the token by which a request was admitted, for those whose answers outlast it.
#[derive(Clone, Copy)]
pub(super) struct Shown(Digest);

/// Ends when an answer that goes on and on must end: with the term of office, or with the token that was shown for it.
pub(super) async fn must_end(app: Arc<App>, shown: Option<Extension<Shown>>) {
    let lapsed = async {
        match shown {
            Some(Extension(Shown(hash))) => app.access.lapsed(hash).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = app.term.ended() => {}
        () = lapsed => {}
    }
}

pub(super) async fn guard(
    State(app): State<Arc<App>>,
    route: Option<MatchedPath>,
    mut request: Request,
    next: Next,
) -> Response {
    let route = route.as_ref().map(MatchedPath::as_str);
    if route.is_some_and(|route| rules::OPEN.contains(&route)) {
        return next.run(request).await;
    }
    let shown = bearer(request.headers()).map(|token| Shown(Digest::of(token.as_bytes())));
    let admitted = app.access.admit(bearer(request.headers()), request.method().as_str(), route, now()).await;
    request.headers_mut().remove(header::AUTHORIZATION);
    match admitted {
        Ok(caller) => {
            if let Some(caller) = caller {
                request.extensions_mut().insert(caller);
            }
            if let Some(shown) = shown {
                request.extensions_mut().insert(shown);
            }
            next.run(request).await
        }
        Err(denied) => ApiError::from(denied).into_response(),
    }
}

/// The token of `authorization: Bearer TOKEN` (RFC 6750 §2.1).
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim()).filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bearer_token_is_read_and_other_schemes_are_none() {
        let read = |value: &str| {
            let headers: HeaderMap = [(header::AUTHORIZATION, value.parse().unwrap())].into_iter().collect();
            bearer(&headers).map(str::to_owned)
        };
        assert_eq!(read("Bearer my_1").as_deref(), Some("my_1"));
        assert_eq!(read("bearer  my_1 ").as_deref(), Some("my_1"));
        for none in ["Basic bXk=", "Bearer", "Bearer ", "my_1"] {
            assert_eq!(read(none), None, "{none}");
        }
    }
}
