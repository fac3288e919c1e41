//! One request, from picking a variant to the answer. Read [`forward`] first.
//!
//! Inference is idempotent, so a request whose body is held whole can be asked again:
//! - of another backend of the variant, where no answer came, or is long in coming and its backend was taken out of the routes;
//! - of the fallback (the stable version), where a version on trial answered with an error. The stable version is the
//!   judge: if it can answer, the version on trial was wrong; if it refuses the request too, the caller was.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use modelyard_protocol::{ModelAction, V2Path, parse_path};

use crate::answer::{self, Answer, AnswerBody, REQUEST_ID, VARIANT, VERSION};
use crate::backend::BackendState;
use crate::own;
use crate::pick::{self, NotServed};
use crate::pool::{Connection, Upstream};
use crate::shared::Worker;
use crate::table::{CompiledRoute, CompiledVariant};

/// Backends of one variant that are asked before it is given up.
const TRIES: usize = 3;
/// A request that has been out for so long is asked again if its backend is taken out of the routes: a worker that ends
/// finishes what it has, and mostly sooner; one that hangs never does.
const PATIENCE_WITH_WITHDRAWN: Duration = Duration::from_secs(1);
/// Answers up to this length are held until they are whole, so that one that breaks off can be asked again.
const HELD_ANSWER: u64 = 1 << 20;

/// A request to a deployment, ready to be asked.
struct Ask<'a> {
    parts: &'a Parts,
    /// Asked again and again from here, if it is whole.
    body: Option<Bytes>,
    /// What is left of a body that is too long to hold. Goes to one backend only.
    rest: Option<Incoming>,
    client: IpAddr,
    request_id: HeaderValue,
}

impl Ask<'_> {
    fn is_replayable(&self) -> bool {
        self.rest.is_none()
    }
}

/// What came of asking a variant.
enum Outcome {
    Answered(Answer),
    /// No backend gave an answer. The message is for the caller.
    Failed(StatusCode, String),
}

impl Outcome {
    fn is_good(&self) -> bool {
        matches!(self, Self::Answered(answer) if answer.status().as_u16() < 400)
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Answered(answer) => answer.status(),
            Self::Failed(status, _) => *status,
        }
    }

    /// The answer, with the contract's headers.
    fn into_answer(self, variant: &CompiledVariant) -> Answer {
        let mut answer = match self {
            Self::Answered(answer) => answer,
            Self::Failed(status, message) => answer::error(status, message),
        };
        answer.headers_mut().insert(VARIANT, variant.name_header.clone());
        answer.headers_mut().insert(VERSION, variant.version_header.clone());
        answer
    }
}

pub(crate) async fn forward(worker: &Worker, request: Request<Incoming>, client: IpAddr) -> Answer {
    let (parts, body) = request.into_parts();
    let request_id = request_id(&parts);
    let table = worker.shared.table.load_full();
    let mut answer = match parse_path(parts.uri.path()) {
        Some(V2Path::Model { name, version, action }) => match table.routes.get(name) {
            Some(route) if allows(action, &parts.method) => match hold(worker, body).await {
                Ok((body, rest)) => {
                    let ask = Ask { parts: &parts, body, rest, client, request_id: request_id.clone() };
                    ask_route(worker, route, version, ask).await
                }
                Err(refusal) => refusal,
            },
            Some(_) => answer::error(
                StatusCode::METHOD_NOT_ALLOWED,
                format!("{} is not for {}", parts.method, parts.uri.path()),
            ),
            None if table.version.sequence == 0 => {
                answer::error(StatusCode::SERVICE_UNAVAILABLE, "the gateway has no route table yet")
            }
            None => answer::error(StatusCode::NOT_FOUND, format!("there is no deployment {name}")),
        },
        Some(other) => own::protocol_answer(&other, &worker.shared),
        None => own::other_answer(parts.uri.path(), &worker.shared, &table).await,
    };
    if worker.shared.is_stopping() {
        answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    answer.headers_mut().insert(REQUEST_ID, request_id);
    answer
}

fn allows(action: ModelAction, method: &Method) -> bool {
    match action {
        ModelAction::Infer => method == Method::POST,
        ModelAction::Metadata | ModelAction::Ready => method == Method::GET || method == Method::HEAD,
    }
}

async fn ask_route(worker: &Worker, route: &CompiledRoute, version: Option<&str>, ask: Ask<'_>) -> Answer {
    let now_ms = worker.shared.now_ms();
    let picked = match version {
        Some(version) => match pick::by_version(route, version, now_ms) {
            Ok(picked) => picked,
            Err(NotServed) => return not_served(route, version),
        },
        None => pick::by_weight(route, worker.dice_weight(), now_ms),
    };
    let Some(variant) = picked else {
        return answer::error(StatusCode::SERVICE_UNAVAILABLE, "no worker of this deployment is ready");
    };
    // A caller who asked for a version gets that version's answer, whatever it is.
    let fallback = route.variants.iter().find(|v| v.fallback && version.is_none() && !std::ptr::eq(*v, variant));
    match fallback.filter(|_| ask.is_replayable()) {
        Some(fallback) => ask_on_trial(worker, variant, fallback, ask).await,
        None => {
            let outcome = ask_variant(worker, variant, ask).await;
            if outcome.status().is_server_error() {
                variant.counters.errors.fetch_add(1, Relaxed);
            }
            outcome.into_answer(variant)
        }
    }
}

fn not_served(route: &CompiledRoute, version: &str) -> Answer {
    let served: Vec<_> = route.variants.iter().map(|v| v.version.as_str()).collect();
    let message = format!("version {version} is not served here; served: {}", served.join(", "));
    answer::error(StatusCode::NOT_FOUND, message)
}

/// Asks a version on trial; where it fails, the fallback answers, and so tells whose fault it was.
async fn ask_on_trial(worker: &Worker, variant: &CompiledVariant, fallback: &CompiledVariant, ask: Ask<'_>) -> Answer {
    let again = Ask { body: ask.body.clone(), rest: None, request_id: ask.request_id.clone(), ..ask };
    let first = ask_variant(worker, variant, ask).await;
    if first.is_good() {
        return first.into_answer(variant);
    }
    let second = ask_variant(worker, fallback, again).await;
    let callers_fault = first.status().is_client_error() && second.status().is_client_error();
    if !callers_fault {
        variant.counters.errors.fetch_add(1, Relaxed);
    }
    if second.is_good() {
        variant.counters.rescued.fetch_add(1, Relaxed);
    } else if second.status().is_server_error() {
        fallback.counters.errors.fetch_add(1, Relaxed);
    }
    second.into_answer(fallback)
}

/// Asks backends of one variant until one answers.
async fn ask_variant(worker: &Worker, variant: &CompiledVariant, mut ask: Ask<'_>) -> Outcome {
    variant.counters.requests.fetch_add(1, Relaxed);
    let mut tried: Vec<Arc<BackendState>> = Vec::new();
    let mut last = Outcome::Failed(StatusCode::SERVICE_UNAVAILABLE, "no worker of this version is ready".into());
    while tried.len() < TRIES {
        let now_ms = worker.shared.now_ms();
        let untried = pick::backend(variant, &tried, now_ms, &mut |n| worker.dice(n));
        // With a single backend, its second try is over a new connection.
        let Some(backend) = untried.or(tried.first().filter(|_| tried.len() == 1)).cloned() else { break };
        tried.push(backend.clone());
        match ask_backend(worker, &backend, &mut ask, variant, &tried).await {
            Ok(answer) => {
                backend.succeeded();
                let busy = matches!(answer.status(), StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
                let elsewhere = variant.backends.len() > tried.len() && ask.is_replayable();
                last = Outcome::Answered(answer);
                if !(busy && elsewhere) {
                    return last;
                }
            }
            Err(Trouble::Unreachable) => {
                backend.unreachable(worker.shared.now_ms());
                last = Outcome::Failed(StatusCode::BAD_GATEWAY, "the worker cannot be reached".into());
            }
            Err(Trouble::Broken) => {
                backend.failed(worker.shared.now_ms());
                last = Outcome::Failed(StatusCode::BAD_GATEWAY, "the worker broke off".into());
                if !ask.is_replayable() {
                    return last;
                }
            }
            // It is out of the routes already: nothing is held against it when it comes back.
            Err(Trouble::Withdrawn) => {}
            Err(Trouble::TooSlow) => {
                backend.failed(worker.shared.now_ms());
                return Outcome::Failed(StatusCode::GATEWAY_TIMEOUT, "the worker did not answer in time".into());
            }
        }
    }
    last
}

enum Trouble {
    /// Nothing was sent.
    Unreachable,
    /// It was asked, and the exchange ended before the answer did.
    Broken,
    TooSlow,
    /// No answer yet, from a backend that is not in the routes any more. Others are.
    Withdrawn,
}

/// Counts a request as in flight while it lives.
struct InFlight<'b>(&'b BackendState);

impl<'b> InFlight<'b> {
    fn at(backend: &'b BackendState) -> Self {
        backend.in_flight.fetch_add(1, Relaxed);
        Self(backend)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}

async fn ask_backend(
    worker: &Worker,
    backend: &BackendState,
    ask: &mut Ask<'_>,
    variant: &CompiledVariant,
    tried: &[Arc<BackendState>],
) -> Result<Answer, Trouble> {
    let is_replayable = ask.is_replayable();
    let _in_flight = InFlight::at(backend);
    let asked = Instant::now();
    let exchange = async {
        let answer = exchange(worker, backend, ask).await?;
        variant.counters.answered(asked.elapsed());
        Ok(answer)
    };
    let mut exchange = std::pin::pin!(exchange);
    let timeout = worker.shared.timeout;
    let patience = PATIENCE_WITH_WITHDRAWN.min(timeout);
    // Most are answered before anybody has to care.
    if let Ok(done) = tokio::time::timeout(patience, &mut exchange).await {
        return done;
    }
    let withdrawn = async {
        backend.withdrawn().await;
        let is_good = |b: &Arc<BackendState>| !b.is_withdrawn() && !tried.iter().any(|t| Arc::ptr_eq(t, b));
        if !(is_replayable && variant.backends.iter().any(is_good)) {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        done = tokio::time::timeout(timeout - patience, exchange) => done.unwrap_or(Err(Trouble::TooSlow)),
        () = withdrawn => Err(Trouble::Withdrawn),
    }
}

/// One request over one connection: an idle one, or a new one where there is none or the idle one proves closed.
async fn exchange(worker: &Worker, backend: &BackendState, ask: &mut Ask<'_>) -> Result<Answer, Trouble> {
    let address = backend.address;
    let mut request = request_for(backend, ask);
    if let Some(connection) = worker.pool.idle(address).await {
        match send(worker, backend, connection, request).await {
            Ok(answer) => return Ok(answer),
            Err(Unsent::Whole(unsent)) => request = *unsent,
            Err(Unsent::Lost) if ask.is_replayable() => request = request_for(backend, ask),
            Err(Unsent::Lost) => return Err(Trouble::Broken),
        }
    }
    let connection = worker.pool.connect(address).await.map_err(|_| Trouble::Unreachable)?;
    send(worker, backend, connection, request).await.map_err(|_| Trouble::Broken)
}

/// A request that got no answer.
enum Unsent {
    /// Nothing of it left.
    Whole(Box<Request<Upstream>>),
    Lost,
}

async fn send(
    worker: &Worker,
    backend: &BackendState,
    mut connection: Connection,
    request: Request<Upstream>,
) -> Result<Answer, Unsent> {
    let answer = connection.try_send_request(request).await.map_err(|mut error| match error.take_message() {
        Some(request) => Unsent::Whole(Box::new(request)),
        None => Unsent::Lost,
    })?;
    let (mut parts, body) = answer.into_parts();
    answer::strip_hop_by_hop(&mut parts.headers);
    if body.size_hint().upper().is_none_or(|length| length > HELD_ANSWER) {
        return Ok(Answer::from_parts(parts, AnswerBody::Streamed(body)));
    }
    let whole = body.collect().await.map_err(|_| Unsent::Lost)?.to_bytes();
    worker.pool.keep(backend.address, connection);
    Ok(Answer::from_parts(parts, AnswerBody::Whole(Full::new(whole))))
}

fn request_for(backend: &BackendState, ask: &mut Ask<'_>) -> Request<Upstream> {
    let body = match ask.rest.take() {
        Some(rest) => Upstream::Streamed { read: ask.body.take(), rest },
        None => Upstream::Whole(ask.body.clone()),
    };
    let mut request = Request::new(body);
    *request.method_mut() = ask.parts.method.clone();
    let path = ask.parts.uri.path_and_query().cloned();
    *request.uri_mut() = path.map_or_else(|| http::Uri::from_static("/"), http::Uri::from);
    let headers = request.headers_mut();
    headers.clone_from(&ask.parts.headers);
    answer::strip_hop_by_hop(headers);
    headers.remove(header::EXPECT);
    headers.insert(REQUEST_ID, ask.request_id.clone());
    let address = |text: String| HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("unknown"));
    headers.insert(header::HOST, address(backend.address.to_string()));
    headers.append("x-forwarded-for", address(ask.client.to_string()));
    request
}

/// Reads the body as far as it is held; the rest of a longer one is left to stream.
async fn hold(worker: &Worker, mut body: Incoming) -> Result<(Option<Bytes>, Option<Incoming>), Answer> {
    let too_long = || {
        answer::error(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body is longer than {} bytes", worker.shared.max_body),
        )
    };
    if body.size_hint().lower() > worker.shared.max_body {
        return Err(too_long());
    }
    if body.is_end_stream() {
        return Ok((None, None));
    }
    let mut held = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            return Err(answer::error(StatusCode::BAD_REQUEST, "the body ended early"));
        };
        if let Ok(data) = frame.into_data() {
            // The usual body comes in one piece, and is not copied.
            if held.is_empty() && body.is_end_stream() {
                return Ok((Some(data), None));
            }
            held.extend_from_slice(&data);
        }
        if held.len() > worker.shared.replay_limit {
            return Ok((Some(held.freeze()), Some(body)));
        }
    }
    Ok((Some(held.freeze()), None))
}

/// The caller's own, if it is fit for a log; else a new one.
fn request_id(parts: &Parts) -> HeaderValue {
    let fit =
        |value: &&HeaderValue| (1..=128).contains(&value.len()) && value.as_bytes().iter().all(u8::is_ascii_graphic);
    parts.headers.get(&REQUEST_ID).filter(fit).cloned().unwrap_or_else(|| {
        let id = format!("{:032x}", fastrand::u128(..));
        HeaderValue::from_str(&id).unwrap_or(HeaderValue::from_static("none"))
    })
}
