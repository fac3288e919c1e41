//! What TF Serving's and TorchServe's paths have beside inference: labels, which are aliases of a model here, and what is
//! told from the route table.

use http::request::Parts;
use http::{Method, StatusCode, Uri};
use modelyard_protocol::AnyPath;
use modelyard_protocol::tf_serving::{ModelStatus, Pin, State, TfAction, TfPath, VersionStatus};
use modelyard_protocol::torch_serve::Ping;

use crate::answer::{self, Answer};
use crate::own;
use crate::shared::Shared;
use crate::table::Table;

/// Replaces a label by the version that it stands for: workers know none. The refusal, if it stands for none.
pub(crate) fn resolve_label(parts: &mut Parts, table: &Table) -> Option<Answer> {
    let Some(AnyPath::TfServing(TfPath::Model { name, pin: Pin::Label(label), action })) =
        AnyPath::parse(parts.uri.path())
    else {
        return None;
    };
    // That there is no such deployment is told as for any other path.
    let route = table.routes.get(name)?;
    let Some(version) = route.aliases.get(label) else {
        let label: String = label.chars().take(80).collect();
        let message = format!("Unrecognized servable version label: {label}: the model has no such alias");
        return Some(answer::error(StatusCode::BAD_REQUEST, message));
    };
    let query = parts.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let path = format!("/v1/models/{name}/versions/{version}{}{query}", action.suffix());
    match Uri::try_from(path) {
        Ok(uri) => {
            parts.uri = uri;
            None
        }
        Err(_) => Some(answer::error(StatusCode::NOT_FOUND, format!("version {version} has no path"))),
    }
}

/// Whether a model's path is answered from the route table, without a worker.
pub(crate) fn is_told_here(path: AnyPath<'_>) -> bool {
    matches!(path, AnyPath::TfServing(TfPath::Model { action: TfAction::Status, .. }))
}

/// What TF Serving's paths ask that no worker is needed for.
pub(crate) fn tf_answer(path: TfPath<'_>, parts: &Parts, table: &Table) -> Answer {
    let is_get = parts.method == Method::GET || parts.method == Method::HEAD;
    match path {
        TfPath::Malformed => {
            let message = format!("Malformed request: {} {}", parts.method, parts.uri.path());
            answer::error(StatusCode::BAD_REQUEST, message)
        }
        _ if !is_get => {
            answer::error(StatusCode::METHOD_NOT_ALLOWED, format!("{} is not for {}", parts.method, parts.uri.path()))
        }
        TfPath::Models => own::models(table),
        TfPath::Model { name, pin, .. } => status(name, pin.version(), table),
    }
}

/// The versions that a deployment has in its routes; one that is in two workloads as it is in the one that is ready.
fn status(name: &str, version: Option<&str>, table: &Table) -> Answer {
    if table.version.sequence == 0 {
        return answer::error(StatusCode::SERVICE_UNAVAILABLE, "the gateway has no route table yet");
    }
    let Some(route) = table.routes.get(name) else {
        return answer::error(StatusCode::NOT_FOUND, format!("Could not find any versions of model {name}"));
    };
    let mut versions = Vec::<VersionStatus>::new();
    for variant in route.variants.iter().filter(|variant| version.is_none_or(|version| variant.version == version)) {
        let state = if variant.backends.is_empty() { State::Start } else { State::Available };
        match versions.iter_mut().find(|known| known.version == variant.version) {
            Some(known) if state == State::Available => known.state = state,
            Some(_) => {}
            None => versions.push(VersionStatus::new(&variant.version, state)),
        }
    }
    match version {
        Some(version) if versions.is_empty() => {
            answer::error(StatusCode::NOT_FOUND, format!("Could not find version {version} of model {name}"))
        }
        _ => answer::json(StatusCode::OK, &ModelStatus::new(name, versions)),
    }
}

/// TorchServe's health.
pub(crate) fn ping(shared: &Shared) -> Answer {
    let is_healthy = own::unready(shared).is_none();
    let status = if is_healthy { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR };
    answer::json(status, &Ping::new(is_healthy))
}
