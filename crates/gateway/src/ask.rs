//! Asking the backends of one variant, until one answers.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, StatusCode};
use hyper::body::Incoming;

use crate::answer::{self, Answer, VARIANT, VERSION};
use crate::backend::BackendState;
use crate::pick;
use crate::shared::Worker;
use crate::table::CompiledVariant;
use crate::upstream::{Body, Connection, Failure, Head};

/// Backends of one variant that are asked before it is given up.
const TRIES: usize = 3;
/// A request that has been out for so long is asked again if its backend is taken out of the routes: a worker that ends
/// finishes what it has, and mostly sooner; one that hangs never does.
const PATIENCE_WITH_WITHDRAWN: Duration = Duration::from_secs(1);

/// A request to a deployment, ready to be asked.
pub(crate) struct Ask<'a> {
    pub(crate) parts: &'a Parts,
    /// Asked again and again from here, if it is whole.
    pub(crate) body: Option<Bytes>,
    /// What is left of a body that is too long to hold. Goes to one backend only.
    pub(crate) rest: Option<Incoming>,
    pub(crate) client: IpAddr,
    pub(crate) request_id: HeaderValue,
}

impl Ask<'_> {
    pub(crate) fn is_replayable(&self) -> bool {
        self.rest.is_none()
    }
}

/// What came of asking a variant.
pub(crate) enum Outcome {
    Answered(Answer),
    /// No backend gave an answer. The message is for the caller.
    Failed(StatusCode, String),
}

impl Outcome {
    pub(crate) fn is_good(&self) -> bool {
        matches!(self, Self::Answered(answer) if answer.status().as_u16() < 400)
    }

    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Answered(answer) => answer.status(),
            Self::Failed(status, _) => *status,
        }
    }

    /// The answer, with the contract's headers.
    pub(crate) fn into_answer(self, variant: &CompiledVariant) -> Answer {
        let mut answer = match self {
            Self::Answered(answer) => answer,
            Self::Failed(status, message) => answer::error(status, message),
        };
        answer.headers_mut().insert(VARIANT, variant.name_header.clone());
        answer.headers_mut().insert(VERSION, variant.version_header.clone());
        answer
    }
}

/// Asks backends of one variant until one answers.
pub(crate) async fn ask_variant(worker: &Worker, variant: &CompiledVariant, mut ask: Ask<'_>) -> Outcome {
    variant.counters.requests.fetch_add(1, Relaxed);
    let mut tried: Vec<Arc<BackendState>> = Vec::new();
    let mut last = None;
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
                if !(busy && elsewhere) {
                    return Outcome::Answered(answer);
                }
                last = Some(Outcome::Answered(answer));
            }
            Err(Trouble::Unreachable) => {
                backend.unreachable(worker.shared.now_ms());
                last = Some(Outcome::Failed(StatusCode::BAD_GATEWAY, "the worker cannot be reached".into()));
            }
            Err(Trouble::Broken) => {
                backend.failed(worker.shared.now_ms());
                let broken = Outcome::Failed(StatusCode::BAD_GATEWAY, "the worker broke off".into());
                if !ask.is_replayable() {
                    return broken;
                }
                last = Some(broken);
            }
            // It is out of the routes already: nothing is held against it when it comes back.
            Err(Trouble::Withdrawn) => {}
            Err(Trouble::TooSlow) => {
                backend.failed(worker.shared.now_ms());
                return Outcome::Failed(StatusCode::GATEWAY_TIMEOUT, "the worker did not answer in time".into());
            }
        }
    }
    let none = || Outcome::Failed(StatusCode::SERVICE_UNAVAILABLE, "no worker of this version is ready".into());
    last.unwrap_or_else(none)
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
    if let Ok(done) = worker.timers.within(patience, &mut exchange).await {
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
        done = worker.timers.within(timeout - patience, exchange) => done.unwrap_or(Err(Trouble::TooSlow)),
        () = withdrawn => Err(Trouble::Withdrawn),
    }
}

/// One request over one connection: an idle one, or a new one where there is none or the idle one proves closed.
async fn exchange(worker: &Worker, backend: &BackendState, ask: &mut Ask<'_>) -> Result<Answer, Trouble> {
    let address = backend.address;
    if ask.is_replayable()
        && let Some(connection) = worker.pool.idle(address)
    {
        match send(worker, backend, connection, ask).await {
            // It could be closed while it was idle; to ask again is safe.
            Err(Failure::Stale) => {}
            Err(Failure::Broken) => return Err(Trouble::Broken),
            Ok(answer) => return Ok(answer),
        }
    }
    let connection = Connection::open(address).await.map_err(|_| Trouble::Unreachable)?;
    send(worker, backend, connection, ask).await.map_err(|_| Trouble::Broken)
}

async fn send(
    worker: &Worker,
    backend: &BackendState,
    connection: Connection,
    ask: &mut Ask<'_>,
) -> Result<Answer, Failure> {
    let body = match ask.rest.take() {
        Some(rest) => Body::Streamed { read: ask.body.take(), rest },
        None => Body::Whole(ask.body.clone()),
    };
    let head =
        Head { parts: ask.parts, authority: &backend.authority, client: ask.client, request_id: &ask.request_id };
    let (parts, body, connection) = connection.exchange(&head, body).await?;
    if let Some(connection) = connection {
        worker.pool.keep(backend.address, connection);
    }
    Ok(Answer::from_parts(parts, body))
}
