//! The inference protocols over HTTP, on hyper itself: inference passes through no layer that it does not need.
//!
//! The Open Inference Protocol v2 is served here, TF Serving's and TorchServe's forms in `v1`. All of them are read, computed
//! and written by the same compute threads (`infer`, `form`).

mod answer;
mod body;
mod connection;
mod form;
mod infer;
mod listen;
mod repository;
mod v1;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use modelyard_core::Format;
use modelyard_engine::Engine;
use modelyard_grpc::Rest;
use modelyard_protocol::{
    AnyPath, BINARY_EXTENSION, Coding, Framing, GRPC_TIMEOUT, JSON_LENGTH, Live, ModelAction, ModelMetadata,
    ModelReady, Parameter, Parameters, Ready, ServerMetadata, TIMEOUT, V2Path, header_timeout, parse_repository_path,
};
use serde::Serialize;
use tokio::time::timeout_at;

use crate::compute::{BatchLimits, Overloaded};
use crate::drain::Traffic;
use crate::metrics::{self, Metrics};
use crate::models::{Loaded, Models, NotFound, Slot, Unready};
use crate::progress::Progress;
use answer::{Refusal, Response, json, must_be, with_body};
pub(crate) use body::Bodies;
use body::{Body, Sent};
pub(crate) use connection::{Manners, serve};
use form::Form;
pub(crate) use infer::Inference;
pub(crate) use listen::{listeners, raise_file_limit};

/// What the worker serves, and how it goes.
pub(crate) struct Worker {
    pub(crate) models: Models,
    pub(crate) bodies: Bodies,
    pub(crate) progress: Progress,
    pub(crate) traffic: Traffic,
    pub(crate) metrics: Arc<Metrics>,
}

/// What the protocol's `Ready` says, and why not.
#[derive(Serialize)]
struct NotReady {
    ready: bool,
    reason: String,
}

impl Worker {
    fn ready(&self) -> bool {
        self.models.has_started() && !self.traffic.draining()
    }

    fn not_ready(&self) -> NotReady {
        let reason = if self.traffic.draining() { "draining".into() } else { self.progress.get().to_string() };
        NotReady { ready: false, reason }
    }
}

/// Answers requests that did not come over a connection of its own.
#[derive(Clone)]
pub(crate) struct InProcess(Arc<Worker>);

impl InProcess {
    pub(crate) fn new(worker: Arc<Worker>) -> Self {
        Self(worker)
    }
}

impl Rest for InProcess {
    async fn ask(&self, request: Request<Bytes>) -> Response {
        answer(&self.0, request.map(Sent::Whole)).await
    }
}

/// Answers one request.
async fn answer(worker: &Worker, request: Request<Sent>) -> Response {
    let is_http1 = request.version() < http::Version::HTTP_2;
    let uri = request.uri().clone();
    let path = AnyPath::parse(uri.path());
    let answer = match path {
        Some(AnyPath::OpenInference(path)) => open_inference(worker, path, request).await,
        Some(AnyPath::TfServing(path)) => v1::tf_serving(worker, path, request).await,
        Some(AnyPath::TorchServe(path)) => v1::torch_serve(worker, path, request).await,
        None => other(worker, request).await,
    };
    let protocol = path.map(|path| path.protocol()).unwrap_or_default();
    let mut response = answer.unwrap_or_else(|refusal| refusal.said_in(protocol));
    if is_http1 && worker.traffic.draining() {
        // So that the caller's next request goes elsewhere.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn open_inference(worker: &Worker, path: V2Path<'_>, request: Request<Sent>) -> Result<Response, Refusal> {
    match path {
        V2Path::Model { name, version, action } => match worker.find(name, version) {
            Ok(slot) => model(worker, &slot, action, request).await,
            Err(refusal) => {
                request.into_body().discard();
                Err(refusal)
            }
        },
        V2Path::RepositoryIndex => repository::index(worker, request).await,
        path => server(worker, path, request.method()),
    }
}

async fn other(worker: &Worker, request: Request<Sent>) -> Result<Response, Refusal> {
    let path = request.uri().path().to_owned();
    if let Some((name, action)) = parse_repository_path(&path) {
        return repository::manage(worker, name, action, request).await;
    }
    if path == "/metrics" {
        return prometheus(worker, request.method());
    }
    if path == "/" {
        return v1::alive(request.method());
    }
    request.into_body().discard();
    Err(Refusal::new(StatusCode::NOT_FOUND, format!("there is nothing at {path}")))
}

fn prometheus(worker: &Worker, method: &Method) -> Result<Response, Refusal> {
    must_be(method, &Method::GET)?;
    let text = worker.metrics.encode();
    let text = text.map_err(|error| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    Ok(with_body(StatusCode::OK, metrics::CONTENT_TYPE, text.into()))
}

fn server(worker: &Worker, path: V2Path<'_>, method: &Method) -> Result<Response, Refusal> {
    must_be(method, &Method::GET)?;
    Ok(match path {
        V2Path::Live => json(StatusCode::OK, &Live { live: true }),
        V2Path::Ready if worker.ready() => json(StatusCode::OK, &Ready { ready: true }),
        V2Path::Ready => json(StatusCode::SERVICE_UNAVAILABLE, &worker.not_ready()),
        V2Path::Server | V2Path::RepositoryIndex | V2Path::Model { .. } => {
            let metadata = ServerMetadata {
                name: "modelyard-worker".into(),
                version: env!("CARGO_PKG_VERSION").into(),
                extensions: vec![BINARY_EXTENSION.into(), "model_repository".into()],
            };
            json(StatusCode::OK, &metadata)
        }
    })
}

async fn model(
    worker: &Worker,
    slot: &Arc<Slot>,
    action: ModelAction,
    request: Request<Sent>,
) -> Result<Response, Refusal> {
    match action {
        ModelAction::Ready => {
            must_be(request.method(), &Method::GET)?;
            let ready = worker.ready() && slot.can_be_asked();
            Ok(json(ready_status(ready), &ModelReady { name: slot.identity.name.clone(), ready }))
        }
        ModelAction::Metadata => {
            must_be(request.method(), &Method::GET)?;
            let loaded = worker.loaded(slot, None).await?;
            Ok(json(StatusCode::OK, &metadata(slot, &loaded)))
        }
        ModelAction::Infer => inference(worker, slot, request, Form::OpenInference).await,
    }
}

async fn inference(worker: &Worker, slot: &Arc<Slot>, request: Request<Sent>, form: Form) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    let is_put = form.may_be_put() && parts.method == Method::PUT;
    if let Err(refusal) = if is_put { Ok(()) } else { must_be(&parts.method, &Method::POST) } {
        body.discard();
        return Err(refusal);
    }
    let _in_flight = worker.traffic.begin();
    let answer = worker.infer(slot, &parts, body, form).await;
    let status = answer.as_ref().map_or_else(|refusal| refusal.status, http::Response::status);
    worker.metrics.answered(&slot.identity, status.as_u16());
    answer
}

fn metadata(slot: &Slot, model: &Loaded) -> ModelMetadata {
    let engine = model.lane.engine();
    let platform = match model.format {
        Format::Dense => engine.name().to_owned(),
        // As Triton calls it.
        Format::Tensorflow => "tensorflow_graphdef".to_owned(),
        format => format!("{format}_{}", engine.name()),
    };
    let signature = engine.signature().clone();
    ModelMetadata {
        name: slot.identity.name.clone(),
        versions: vec![slot.identity.version.clone()],
        platform,
        inputs: signature.inputs,
        outputs: signature.outputs,
        parameters: batching(model.lane.batching()).into_iter().chain(of_engine(&**engine)).collect(),
    }
}

/// What is known of an inference before its body is read.
struct Head {
    arrived: Instant,
    deadline: Option<Instant>,
    framing: Framing,
    accepted: Coding,
}

impl Worker {
    fn find(&self, name: &str, version: Option<&str>) -> Result<Arc<Slot>, Refusal> {
        self.models.find(name, version).map_err(|not_found| {
            let asked = version.map_or_else(|| name.to_owned(), |version| format!("{name} version {version}"));
            let message = match not_found {
                NotFound::Model(served) => format!("there is no model {asked} here: this worker serves {served}"),
                NotFound::Version(served) if self.models.is_repository() => {
                    format!("there is no model {asked} here: {name} has version {served}")
                }
                NotFound::Version(served) => {
                    format!("there is no model {asked} here: this worker serves {name} version {served}")
                }
                NotFound::Off => format!(
                    "model {name} was unloaded by request: POST /v2/repository/models/{name}/load serves it again"
                ),
            };
            Refusal::new(StatusCode::NOT_FOUND, message)
        })
    }

    /// The model, once it is loaded.
    async fn loaded(&self, slot: &Arc<Slot>, deadline: Option<Instant>) -> Result<Arc<Loaded>, Refusal> {
        self.models.ready(slot, deadline).await.map_err(|unready| match unready {
            Unready::Loading if self.models.is_repository() => {
                Refusal::new(StatusCode::SERVICE_UNAVAILABLE, format!("{slot} is still being loaded")).retry_after(1)
            }
            Unready::Loading => Refusal::new(StatusCode::SERVICE_UNAVAILABLE, self.progress.get().to_string()),
            Unready::Failed(reason) => {
                let message = format!("{slot} cannot be loaded: {reason}");
                Refusal::new(StatusCode::SERVICE_UNAVAILABLE, message).retry_after(10)
            }
            Unready::Full => {
                let message = format!("as many requests wait for {slot} to be loaded as may: try again");
                Refusal::new(StatusCode::TOO_MANY_REQUESTS, message)
            }
            Unready::Late => late(),
        })
    }

    async fn infer(&self, slot: &Arc<Slot>, parts: &Parts, body: Sent, form: Form) -> Result<Response, Refusal> {
        let head = match self.admit(slot, &parts.headers).await {
            Ok(head) => head,
            Err(refusal) => {
                body.discard();
                return Err(refusal);
            }
        };
        let Head { arrived, deadline, framing, accepted } = head;
        let body = by(deadline, self.bodies.read(body)).await??;
        let (identity, limit) = (slot.identity.clone(), self.bodies.limit());
        let inference = Inference { identity, body, form, framing, accepted, limit, arrived };
        // In use from here on.
        let model = self.loaded(slot, deadline).await?;
        let answer = model.lane.submit(inference, deadline).map_err(busy)?;
        let written = by(deadline, answer).await?.map_err(|_| match deadline {
            // The compute threads were sooner to see it.
            Some(deadline) if deadline <= Instant::now() => late(),
            _ => Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the worker failed on this request".into()),
        })??;
        Ok(written.into_response())
    }

    /// Whether a request whose head is here may go on. What is refused now costs little: its body is not looked at.
    async fn admit(&self, slot: &Arc<Slot>, headers: &HeaderMap) -> Result<Head, Refusal> {
        let arrived = Instant::now();
        let deadline = deadline(headers, arrived)?;
        let (framing, accepted) = codings(headers)?;
        match slot.look(|model| model.lane.admits(deadline)) {
            Some(admitted) => admitted.map_err(busy)?,
            None => drop(self.loaded(slot, deadline).await?),
        }
        Ok(Head { arrived, deadline, framing, accepted })
    }
}

/// When the caller no more waits, by what the headers say.
fn deadline(headers: &HeaderMap, arrived: Instant) -> Result<Option<Instant>, Refusal> {
    // What is no text is no length of time either.
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let timeout = header_timeout(text(TIMEOUT), text(GRPC_TIMEOUT));
    let timeout = timeout.map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, error.to_string()))?;
    match timeout {
        Some(Duration::ZERO) => Err(late()),
        timeout => Ok(timeout.map(|timeout| arrived + timeout)),
    }
}

async fn by<T>(deadline: Option<Instant>, work: impl Future<Output = T>) -> Result<T, Refusal> {
    match deadline {
        None => Ok(work.await),
        Some(deadline) => timeout_at(deadline.into(), work).await.map_err(|_| late()),
    }
}

fn late() -> Refusal {
    Refusal::new(StatusCode::GATEWAY_TIMEOUT, "Deadline exceeded".into())
}

fn busy(overloaded: Overloaded) -> Refusal {
    let too_many = |message| Refusal::new(StatusCode::TOO_MANY_REQUESTS, message);
    match overloaded {
        Overloaded::Full => too_many("as many requests wait here as may: try again".into()),
        Overloaded::TooLong(wait) => {
            too_many(format!("requests wait here for {} ms: try again", wait.as_millis())).retry_after(wait.as_secs())
        }
    }
}

/// How the request's body is to be read, and how its answer may be written.
fn codings(headers: &HeaderMap) -> Result<(Framing, Coding), Refusal> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let framing = Framing::read(header(JSON_LENGTH), header(header::CONTENT_ENCODING.as_str()))?;
    Ok((framing, header(header::ACCEPT_ENCODING.as_str()).map_or(Coding::Identity, Coding::accepted)))
}

/// What a model's metadata says of its engine.
fn of_engine(engine: &dyn Engine) -> impl Iterator<Item = (String, Parameter)> {
    let name = ("engine", engine.name().to_owned());
    let all = std::iter::once(name).chain(engine.details());
    all.map(|(name, value)| (name.to_owned(), Parameter::String(value)))
}

/// What a model's metadata says of batching, where it was asked for.
fn batching(state: Option<Result<BatchLimits, &str>>) -> Parameters {
    let named = |name: &str, value: Parameter| (name.to_owned(), value);
    match state {
        None => Parameters::new(),
        Some(Ok(limits)) => [
            named("max_batch_size", Parameter::Uint(limits.rows as u64)),
            named("max_batch_delay_ms", Parameter::Uint(u64::try_from(limits.delay.as_millis()).unwrap_or(u64::MAX))),
        ]
        .into(),
        Some(Err(reason)) => [named("not_batched", Parameter::String(reason.to_owned()))].into(),
    }
}

fn ready_status(ready: bool) -> StatusCode {
    if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}
