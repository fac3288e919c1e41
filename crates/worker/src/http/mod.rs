//! The Open Inference Protocol v2 over HTTP. The only module that knows axum.

mod infer;

use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, FromRequest as _, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::ListenerExt as _;
use modelyard_core::Format;
use modelyard_engine::Engine;
use modelyard_grpc::Rest;
use modelyard_protocol::{
    BINARY_EXTENSION, Coding, ErrorBody, Framing, FramingError, IndexItem, IndexRequest, JSON_LENGTH, Live,
    ModelAction, ModelMetadata, ModelReady, Parameter, Parameters, Ready, ServerMetadata, V2Path, parse_path,
};
use serde::Serialize;
use tokio::net::TcpListener;
use tower::ServiceExt as _;

use crate::cli::ServeArgs;
use crate::compute::{BatchLimits, ComputePool, QueueFull};
use crate::drain::Traffic;
use crate::fetch::Cached;
use crate::metrics::{self, Metrics};
use crate::progress::Progress;
pub(crate) use infer::Inference;

/// What the worker serves, and how it goes.
pub(crate) struct Worker {
    identity: Arc<Identity>,
    max_body: usize,
    /// Set once.
    model: OnceLock<Loaded>,
    pub(crate) progress: Progress,
    pub(crate) traffic: Traffic,
    pub(crate) metrics: Arc<Metrics>,
}

pub(crate) struct Identity {
    name: String,
    version: String,
}

pub(crate) struct Loaded {
    pub(crate) format: Format,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) pool: ComputePool<Inference>,
    /// Keeps its artifact in the cache.
    pub(crate) _in_use: Option<Cached>,
}

/// What the protocol's `Ready` says, and why not.
#[derive(Serialize)]
struct NotReady {
    ready: bool,
    reason: String,
}

impl Worker {
    pub(crate) fn new(args: &ServeArgs) -> Self {
        Self {
            identity: Arc::new(Identity { name: args.model_name.clone(), version: args.model_version.clone() }),
            max_body: args.max_body,
            model: OnceLock::new(),
            progress: Progress::new(),
            traffic: Traffic::new(),
            metrics: Arc::new(Metrics::new()),
        }
    }

    /// From now on it is ready.
    pub(crate) fn loaded(&self, model: Loaded) {
        self.model.set(model).ok();
    }

    fn ready(&self) -> bool {
        self.model.get().is_some() && !self.traffic.draining()
    }

    fn not_ready(&self) -> NotReady {
        let reason = if self.traffic.draining() { "draining".into() } else { self.progress.get().to_string() };
        NotReady { ready: false, reason }
    }
}

/// Serves until `closed`, and then until no connection is left.
///
/// # Errors
/// A listener that fails.
pub(crate) async fn serve(
    listener: TcpListener,
    worker: Arc<Worker>,
    closed: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let listener = listener.tap_io(|stream| {
        // Answers are written whole; waiting for more to send would only delay them.
        stream.set_nodelay(true).ok();
    });
    axum::serve(listener, router(worker)).with_graceful_shutdown(closed).await
}

fn router(worker: Arc<Worker>) -> Router {
    let limit = DefaultBodyLimit::max(worker.max_body);
    Router::new().route("/metrics", get(prometheus)).fallback(protocol).layer(limit).with_state(worker)
}

/// Answers requests that did not come over a connection of its own.
#[derive(Clone)]
pub(crate) struct InProcess(Router);

impl InProcess {
    pub(crate) fn new(worker: Arc<Worker>) -> Self {
        Self(router(worker))
    }
}

impl Rest for InProcess {
    async fn ask(&self, request: axum::http::Request<Bytes>) -> axum::http::Response<Bytes> {
        let answer = match self.0.clone().oneshot(request.map(Body::from)).await {
            Ok(answer) => answer,
            Err(never) => match never {},
        };
        let (parts, body) = answer.into_parts();
        // It is whole already.
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
        Response::from_parts(parts, body)
    }
}

async fn prometheus(State(worker): State<Arc<Worker>>) -> Response {
    match worker.metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn protocol(State(worker): State<Arc<Worker>>, request: Request) -> Response {
    let answer = match parse_path(request.uri().path()) {
        Some(V2Path::Model { name, version, action }) => match worker.find(name, version) {
            Ok(()) => model(&worker, action, request).await,
            Err(refusal) => Err(refusal),
        },
        Some(V2Path::RepositoryIndex) => index(&worker, request).await,
        Some(path) => server(&worker, path, request.method()),
        None => Err(Refusal::new(StatusCode::NOT_FOUND, format!("there is nothing at {}", request.uri().path()))),
    };
    let mut response = answer.unwrap_or_else(IntoResponse::into_response);
    if worker.traffic.draining() {
        // So that the caller's next request goes elsewhere.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
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

/// The one model that there is.
async fn index(worker: &Worker, request: Request) -> Result<Response, Refusal> {
    must_be(request.method(), &Method::POST)?;
    let body = Bytes::from_request(request, &()).await.map_err(|e| Refusal::new(e.status(), e.body_text()))?;
    let asked = if body.is_empty() { Ok(IndexRequest::default()) } else { serde_json::from_slice(&body) };
    let asked = asked.map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, error.to_string()))?;
    let unready = (!worker.ready()).then(|| worker.not_ready().reason);
    let item = IndexItem::new(&worker.identity.name, &worker.identity.version, unready.as_deref());
    let items: Vec<_> = Some(item).into_iter().filter(|item| item.is_ready() || !asked.ready).collect();
    Ok(json(StatusCode::OK, &items))
}

async fn model(worker: &Worker, action: ModelAction, request: Request) -> Result<Response, Refusal> {
    match action {
        ModelAction::Ready => {
            must_be(request.method(), &Method::GET)?;
            let ready = worker.ready();
            Ok(json(ready_status(ready), &ModelReady { name: worker.identity.name.clone(), ready }))
        }
        ModelAction::Metadata => {
            must_be(request.method(), &Method::GET)?;
            Ok(json(StatusCode::OK, &worker.metadata()?))
        }
        ModelAction::Infer => {
            must_be(request.method(), &Method::POST)?;
            let _in_flight = worker.traffic.begin();
            let answer = worker.infer(request).await;
            let status = answer.as_ref().map_or_else(|refusal| refusal.status, Response::status);
            worker.metrics.answered(status.as_u16());
            answer
        }
    }
}

impl Worker {
    fn find(&self, name: &str, version: Option<&str>) -> Result<(), Refusal> {
        let Identity { name: own, version: serves } = &*self.identity;
        let found = name == own && version.is_none_or(|version| version == serves);
        if found {
            return Ok(());
        }
        let asked = version.map_or_else(|| name.to_owned(), |version| format!("{name} version {version}"));
        let message = format!("there is no model {asked} here: this worker serves {own} version {serves}");
        Err(Refusal::new(StatusCode::NOT_FOUND, message))
    }

    fn model(&self) -> Result<&Loaded, Refusal> {
        let loading = || Refusal::new(StatusCode::SERVICE_UNAVAILABLE, self.progress.get().to_string());
        self.model.get().ok_or_else(loading)
    }

    fn metadata(&self) -> Result<ModelMetadata, Refusal> {
        let model = self.model()?;
        let platform = match model.format {
            Format::Dense => model.engine.name().to_owned(),
            // As Triton calls it.
            Format::Tensorflow => "tensorflow_graphdef".to_owned(),
            format => format!("{format}_{}", model.engine.name()),
        };
        let signature = model.engine.signature().clone();
        Ok(ModelMetadata {
            name: self.identity.name.clone(),
            versions: vec![self.identity.version.clone()],
            platform,
            inputs: signature.inputs,
            outputs: signature.outputs,
            parameters: batching(model.pool.batching()).into_iter().chain(engine(&*model.engine)).collect(),
        })
    }

    async fn infer(&self, request: Request) -> Result<Response, Refusal> {
        let model = self.model()?;
        let (framing, accepted) = codings(request.headers())?;
        let body = Bytes::from_request(request, &()).await.map_err(|rejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => {
                let message = format!("the body is larger than {} bytes", self.max_body);
                Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, message)
            }
            status => Refusal::new(status, rejection.body_text()),
        })?;
        let inference = Inference { identity: self.identity.clone(), body, framing, accepted, limit: self.max_body };
        let answer = model.pool.submit(inference);
        let answer = answer.map_err(|QueueFull| {
            Refusal::new(StatusCode::TOO_MANY_REQUESTS, "as many requests wait here as may: try again".into())
        })?;
        let written = answer.await.map_err(|_| {
            Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the worker failed on this request".into())
        })??;
        Ok(written.into_response())
    }
}

/// How the request's body is to be read, and how its answer may be written.
fn codings(headers: &HeaderMap) -> Result<(Framing, Coding), Refusal> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let framing = Framing::read(header(JSON_LENGTH), header(header::CONTENT_ENCODING.as_str()))?;
    Ok((framing, header(header::ACCEPT_ENCODING.as_str()).map_or(Coding::Identity, Coding::accepted)))
}

/// What a model's metadata says of its engine.
fn engine(engine: &dyn Engine) -> impl Iterator<Item = (String, Parameter)> {
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

/// Why there is no answer, as the protocol says it.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    message: String,
}

impl Refusal {
    fn new(status: StatusCode, message: String) -> Self {
        Self { status, message }
    }
}

impl From<FramingError> for Refusal {
    fn from(error: FramingError) -> Self {
        let status = match error {
            FramingError::JsonLength | FramingError::Broken(_) => StatusCode::BAD_REQUEST,
            FramingError::Coding(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            FramingError::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
        };
        Self::new(status, error.to_string())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = json(self.status, &ErrorBody { error: self.message });
        if self.status == StatusCode::TOO_MANY_REQUESTS {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

fn must_be(method: &Method, expected: &Method) -> Result<(), Refusal> {
    // The server leaves the body out of answers to HEAD.
    if method == expected || (method == Method::HEAD && expected == Method::GET) {
        return Ok(());
    }
    Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, format!("use {expected} here, not {method}")))
}

fn ready_status(ready: bool) -> StatusCode {
    if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

fn json(status: StatusCode, body: &impl Serialize) -> Response {
    (status, axum::Json(body)).into_response()
}
