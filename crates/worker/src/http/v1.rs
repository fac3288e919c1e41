//! TF Serving's and TorchServe's forms: what is asked of a model goes the way of every inference, what is told of it is
//! told here.

use axum::extract::Request;
use axum::http::{Method, StatusCode, header};
use axum::response::Response;
use modelyard_protocol::tf_serving::{self, ModelStatus, Pin, State, TfAction, TfPath, VersionStatus};
use modelyard_protocol::torch_serve::{Ping, TorchPath};

use super::form::{Form, Other};
use super::{Identity, Refusal, Worker, inference, json, must_be};

pub(super) async fn tf_serving(worker: &Worker, path: TfPath<'_>, request: Request) -> Result<Response, Refusal> {
    let TfPath::Model { name, pin, action } = path else {
        if path == TfPath::Models {
            must_be(request.method(), &Method::GET)?;
            return Ok(json(StatusCode::OK, &serde_json::json!({ "models": [worker.identity.name] })));
        }
        let message = format!("Malformed request: {} {}", request.method(), request.uri().path());
        return Err(Refusal::new(StatusCode::BAD_REQUEST, message));
    };
    worker.find(name, pin.version())?;
    if let Pin::Label(label) = pin {
        let message =
            format!("Unrecognized servable version label: {label} (a worker knows no aliases: ask the gateway)");
        return Err(Refusal::new(StatusCode::BAD_REQUEST, message));
    }
    match action {
        TfAction::Run(verb) => {
            must_be(request.method(), &Method::POST)?;
            inference(worker, request, Form::Other(Other::TfServing(verb))).await
        }
        TfAction::Metadata => {
            must_be(request.method(), &Method::GET)?;
            let Identity { name, version } = &*worker.identity;
            let metadata = tf_serving::metadata(name, version, worker.model()?.engine.signature());
            Ok(json(StatusCode::OK, &metadata))
        }
        TfAction::Status => {
            must_be(request.method(), &Method::GET)?;
            let Identity { name, version } = &*worker.identity;
            let state = match (worker.ready(), worker.traffic.draining()) {
                (true, _) => State::Available,
                (false, true) => State::Unloading,
                (false, false) => State::Loading,
            };
            Ok(json(StatusCode::OK, &ModelStatus::new(name, vec![VersionStatus::new(version, state)])))
        }
    }
}

pub(super) async fn torch_serve(worker: &Worker, path: TorchPath<'_>, request: Request) -> Result<Response, Refusal> {
    match path {
        TorchPath::Ping => {
            must_be(request.method(), &Method::GET)?;
            let ready = worker.ready();
            let status = if ready { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR };
            Ok(json(status, &Ping::new(ready)))
        }
        TorchPath::Predictions { name, version } => {
            worker.find(name, version)?;
            // `curl -T` puts.
            if request.method() != Method::PUT {
                must_be(request.method(), &Method::POST)?;
            }
            let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
            let content_type = content_type.map(ToOwned::to_owned);
            inference(worker, request, Form::Other(Other::TorchServe { content_type })).await
        }
    }
}

/// What KServe's clients of V1 take for a server that lives.
pub(super) fn alive(method: &Method) -> Result<Response, Refusal> {
    must_be(method, &Method::GET)?;
    Ok(json(StatusCode::OK, &serde_json::json!({ "status": "alive" })))
}
