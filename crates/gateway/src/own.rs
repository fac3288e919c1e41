//! What is asked of the gateway itself: whether it lives and is ready, what it serves, and its figures.

use std::sync::Arc;

use http::{HeaderValue, StatusCode, header};
use modelyard_protocol::{BINARY_EXTENSION, IndexItem, IndexRequest, Live, Ready, ServerMetadata, V2Path};

use crate::answer::{self, Answer};
use crate::metrics;
use crate::shared::Shared;
use crate::table::{CompiledVariant, Table};

/// The server's part of the Open Inference Protocol.
pub(crate) fn protocol_answer(path: &V2Path<'_>, shared: &Shared) -> Answer {
    match path {
        V2Path::Live => answer::json(StatusCode::OK, &Live { live: true }),
        V2Path::Ready => {
            let ready = unready(shared).is_none();
            answer::json(if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, &Ready { ready })
        }
        _ => {
            let extensions = vec![BINARY_EXTENSION.into(), "model_repository".into()];
            let (name, version) = ("modelyard-gateway".into(), env!("CARGO_PKG_VERSION").into());
            answer::json(StatusCode::OK, &ServerMetadata { name, version, extensions })
        }
    }
}

/// Paths that belong to no protocol.
pub(crate) async fn other_answer(path: &str, shared: &Arc<Shared>, table: &Table) -> Answer {
    match path {
        "/v2/models" => models(table),
        // What KServe's clients of V1 take for a server that lives.
        "/" => answer::json(StatusCode::OK, &serde_json::json!({ "status": "alive" })),
        "/livez" => answer::text(StatusCode::OK, "ok\n"),
        "/readyz" => match unready(shared) {
            None => answer::text(StatusCode::OK, "ok\n"),
            Some(why) => answer::text(StatusCode::SERVICE_UNAVAILABLE, why),
        },
        "/metrics" => figures(shared.clone()).await,
        _ => {
            let message =
                format!("{path} is not a path of the Open Inference Protocol v2, TF Serving's or TorchServe's");
            answer::error(StatusCode::NOT_FOUND, message)
        }
    }
}

/// Why no requests should be sent here.
pub(crate) fn unready(shared: &Shared) -> Option<&'static str> {
    if shared.is_stopping() {
        return Some("stopping\n");
    }
    (shared.table.load().version.sequence == 0).then_some("there is no route table yet\n")
}

/// The model repository extension's list: each version that a deployment has in its routes.
pub(crate) fn index(table: &Table, body: &[u8]) -> Answer {
    let asked = if body.is_empty() { Ok(IndexRequest::default()) } else { serde_json::from_slice(body) };
    let asked: IndexRequest = match asked {
        Ok(asked) => asked,
        Err(error) => {
            return answer::error(StatusCode::BAD_REQUEST, format!("the body is not a valid request: {error}"));
        }
    };
    if table.version.sequence == 0 {
        return answer::error(StatusCode::SERVICE_UNAVAILABLE, "the gateway has no route table yet");
    }
    let items = table.routes.iter().flat_map(|(name, route)| {
        let unready = |v: &CompiledVariant| v.backends.is_empty().then_some("no worker of this version is ready");
        route.variants.iter().map(move |v| IndexItem::new(name, &v.version, unready(v)))
    });
    let mut items: Vec<_> = items.filter(|item| item.is_ready() || !asked.ready).collect();
    // Of a version in two workloads, as it is in the one that is ready.
    items.sort_by(|a, b| (&a.name, &a.version, &a.state).cmp(&(&b.name, &b.version, &b.state)));
    items.dedup_by(|next, kept| (&next.name, &next.version) == (&kept.name, &kept.version));
    answer::json(StatusCode::OK, &items)
}

/// As KServe lists them.
pub(crate) fn models(table: &Table) -> Answer {
    let mut names: Vec<_> = table.routes.keys().collect();
    names.sort_unstable();
    answer::json(StatusCode::OK, &serde_json::json!({ "models": names }))
}

/// Written by a thread of its own: with many deployments it takes a while, in which this one has requests to serve.
async fn figures(shared: Arc<Shared>) -> Answer {
    match tokio::task::spawn_blocking(move || metrics::encode(&shared)).await {
        Ok(text) => {
            let mut answer = answer::text(StatusCode::OK, text);
            answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(metrics::CONTENT_TYPE));
            answer
        }
        Err(_) => answer::error(StatusCode::INTERNAL_SERVER_ERROR, "the figures could not be written"),
    }
}
