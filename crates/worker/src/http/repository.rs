//! The repository of models: what there is, and having models loaded and unloaded (Triton's model repository extension).

use http::{Method, Request, StatusCode};
use modelyard_protocol::{IndexRequest, LoadRequest, RepositoryAction};
use serde::de::DeserializeOwned;

use super::answer::{Refusal, Response, json, must_be};
use super::{Sent, Worker};
use crate::models::ManageError;

pub(super) async fn index(worker: &Worker, request: Request<Sent>) -> Result<Response, Refusal> {
    must_be(request.method(), &Method::POST)?;
    let asked: IndexRequest = body(worker, request).await?;
    let unready = (!worker.ready()).then(|| worker.not_ready().reason);
    let mut items = worker.models.index(unready.as_deref());
    items.retain(|item| item.is_ready() || !asked.ready);
    Ok(json(StatusCode::OK, &items))
}

pub(super) async fn manage(
    worker: &Worker,
    name: &str,
    action: RepositoryAction,
    request: Request<Sent>,
) -> Result<Response, Refusal> {
    must_be(request.method(), &Method::POST)?;
    let LoadRequest { parameters } = body(worker, request).await?;
    // What these ask for would be another model than the repository has.
    if let Some(given) = parameters.keys().find(|name| *name == "config" || name.starts_with("file:")) {
        let message =
            format!("the parameter `{given}` is not supported: put the model into the repository's directory");
        return Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, message));
    }
    match action {
        RepositoryAction::Load => worker.models.load(name).await?,
        RepositoryAction::Unload => worker.models.unload(name)?,
    }
    Ok(json(StatusCode::OK, &serde_json::Map::new()))
}

/// An empty body asks for nothing special.
async fn body<T: DeserializeOwned + Default>(worker: &Worker, request: Request<Sent>) -> Result<T, Refusal> {
    let body = worker.bodies.read(request.into_body()).await?.bytes;
    if body.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(&body).map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, error.to_string()))
}

impl From<ManageError> for Refusal {
    fn from(error: ManageError) -> Self {
        let status = match error {
            ManageError::Off => StatusCode::NOT_IMPLEMENTED,
            ManageError::Unknown(_) => StatusCode::NOT_FOUND,
            ManageError::Io(_) => StatusCode::INTERNAL_SERVER_ERROR,
            ManageError::Failed { .. } => StatusCode::BAD_REQUEST,
            ManageError::Slow(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, error.to_string())
    }
}
