//! TF Serving's and TorchServe's forms: what is asked of a model goes the way of every inference, what is told of it is
//! told here.

use std::sync::Arc;

use http::{Method, Request, StatusCode, header};
use modelyard_protocol::tf_serving::{self, ModelStatus, Pin, State, TfAction, TfPath, VersionStatus};
use modelyard_protocol::torch_serve::{Ping, TorchPath};

use super::answer::{Refusal, Response, json, must_be};
use super::body::Sent;
use super::form::{Form, Other};
use super::{Worker, inference, refuse};
use crate::models::Slot;

pub(super) async fn tf_serving(worker: &Worker, path: TfPath<'_>, request: Request<Sent>) -> Result<Response, Refusal> {
    let TfPath::Model { name, pin, action } = path else {
        if path == TfPath::Models {
            must_be(request.method(), &Method::GET)?;
            return Ok(json(StatusCode::OK, &serde_json::json!({ "models": worker.models.names() })));
        }
        let message = format!("Malformed request: {} {}", request.method(), request.uri().path());
        return Err(refuse(request, Refusal::new(StatusCode::BAD_REQUEST, message)));
    };
    let slot = match find(worker, name, pin, action, request.method()) {
        Ok(slot) => slot,
        Err(refusal) => return Err(refuse(request, refusal)),
    };
    match action {
        TfAction::Run(verb) => inference(worker, &slot, request, Form::Other(Other::TfServing(verb))).await,
        TfAction::Metadata => {
            let loaded = worker.loaded(&slot, None).await?;
            let (name, version) = (&slot.identity.name, &slot.identity.version);
            Ok(json(StatusCode::OK, &tf_serving::metadata(name, version, loaded.lane.engine().signature())))
        }
        TfAction::Status => {
            let state = match (worker.ready() && slot.can_be_asked(), worker.traffic.draining()) {
                (true, _) => State::Available,
                (false, true) => State::Unloading,
                (false, false) => State::Loading,
            };
            let status = VersionStatus::new(&slot.identity.version, state);
            Ok(json(StatusCode::OK, &ModelStatus::new(&slot.identity.name, vec![status])))
        }
    }
}

fn find(worker: &Worker, name: &str, pin: Pin<'_>, action: TfAction, method: &Method) -> Result<Arc<Slot>, Refusal> {
    let slot = worker.find(name, pin.version())?;
    if let Pin::Label(label) = pin {
        let message =
            format!("Unrecognized servable version label: {label} (a worker knows no aliases: ask the gateway)");
        return Err(Refusal::new(StatusCode::BAD_REQUEST, message));
    }
    let is_run = matches!(action, TfAction::Run(_));
    must_be(method, if is_run { &Method::POST } else { &Method::GET })?;
    Ok(slot)
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
            // `curl -T` puts.
            let may_be = |method: &Method| if method == Method::PUT { Ok(()) } else { must_be(method, &Method::POST) };
            let slot = match worker.find(name, version).and_then(|slot| may_be(request.method()).map(|()| slot)) {
                Ok(slot) => slot,
                Err(refusal) => return Err(refuse(request, refusal)),
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
