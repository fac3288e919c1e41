//! TF Serving's and TorchServe's forms: what is asked of a model goes the way of every inference, what is told of it is
//! told here.

use std::collections::BTreeSet;

use http::{Method, Request, StatusCode, header};
use modelyard_protocol::tf_serving::{self, ModelStatus, Pin, State, TfAction, TfPath, VersionStatus};
use modelyard_protocol::torch_serve::{Ping, TorchPath};

use super::answer::{Refusal, Response, json, must_be};
use super::body::Sent;
use super::form::{Form, Other};
use super::{Worker, inference};
use crate::models::Slot;

pub(super) async fn tf_serving(worker: &Worker, path: TfPath<'_>, request: Request<Sent>) -> Result<Response, Refusal> {
    let TfPath::Model { name, pin, action } = path else {
        return told(worker, path, request);
    };
    let slot = match (worker.find(name, pin.version()), pin) {
        (Ok(slot), Pin::Any | Pin::Version(_)) => slot,
        (found, _) => {
            request.into_body().discard();
            found?;
            let message = "Unrecognized servable version label: a worker knows no aliases, ask the gateway";
            return Err(Refusal::new(StatusCode::BAD_REQUEST, message.into()));
        }
    };
    match action {
        TfAction::Run(verb) => inference(worker, &slot, request, Form::Other(Other::TfServing(verb))).await,
        TfAction::Metadata => {
            must_be(request.method(), &Method::GET)?;
            let loaded = worker.loaded(&slot, None).await?;
            let signature = loaded.lane.engine().signature();
            Ok(json(StatusCode::OK, &tf_serving::metadata(&slot.identity.name, &slot.identity.version, signature)))
        }
        TfAction::Status => {
            must_be(request.method(), &Method::GET)?;
            let version = VersionStatus::new(&slot.identity.version, state(worker, &slot));
            Ok(json(StatusCode::OK, &ModelStatus::new(&slot.identity.name, vec![version])))
        }
    }
}

fn state(worker: &Worker, slot: &Slot) -> State {
    match (worker.traffic.draining(), worker.ready() && slot.can_be_asked()) {
        (true, _) => State::Unloading,
        (false, true) => State::Available,
        (false, false) => State::Loading,
    }
}

/// What is asked of no model.
fn told(worker: &Worker, path: TfPath<'_>, request: Request<Sent>) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    body.discard();
    if path != TfPath::Models {
        let message = format!("Malformed request: {} {}", parts.method, parts.uri.path());
        return Err(Refusal::new(StatusCode::BAD_REQUEST, message));
    }
    must_be(&parts.method, &Method::GET)?;
    let names: BTreeSet<_> = worker.models.index(None).into_iter().map(|item| item.name).collect();
    Ok(json(StatusCode::OK, &serde_json::json!({ "models": names })))
}

pub(super) async fn torch_serve(
    worker: &Worker,
    path: TorchPath<'_>,
    request: Request<Sent>,
) -> Result<Response, Refusal> {
    match path {
        TorchPath::Ping => {
            must_be(request.method(), &Method::GET)?;
            let ready = worker.ready();
            let status = if ready { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR };
            Ok(json(status, &Ping::new(ready)))
        }
        TorchPath::Predictions { name, version } => {
            let slot = match worker.find(name, version) {
                Ok(slot) => slot,
                Err(refusal) => {
                    request.into_body().discard();
                    return Err(refusal);
                }
            };
            let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
            let content_type = content_type.map(ToOwned::to_owned);
            inference(worker, &slot, request, Form::Other(Other::TorchServe { content_type })).await
        }
    }
}

/// What KServe's clients of V1 take for a server that lives.
pub(super) fn alive(method: &Method) -> Result<Response, Refusal> {
    must_be(method, &Method::GET)?;
    Ok(json(StatusCode::OK, &serde_json::json!({ "status": "alive" })))
}
