//! Bodies of requests, read whole: within a size, within a time that grows with what has come, and within a memory
//! that all of them share.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::{Instant, timeout, timeout_at};

use super::answer::Refusal;

/// What keeps a slow sender's time from running out, in bytes per second.
const SLOWEST: u64 = 16 << 10;
/// What is announced is believed up to here: beyond it, memory is taken as bytes come.
const BELIEVED: usize = 64 << 10;
/// How long, and how much, is read of the body of a request that is refused.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 64 << 20;

/// The body of a request as it comes.
pub(crate) enum Sent {
    Streamed(Incoming),
    Whole(Bytes),
}

impl Sent {
    /// Reads on for a while after a request was refused: a client that still sends would not read why, but find its
    /// connection broken.
    pub(crate) fn discard(self) {
        let Self::Streamed(mut incoming) = self else { return };
        if incoming.is_end_stream() {
            return;
        }
        let read = async move {
            let mut left = LINGER_BYTES;
            while let Some(Ok(frame)) = incoming.frame().await {
                left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
                if left == 0 {
                    return;
                }
            }
        };
        tokio::spawn(timeout(LINGER, read));
    }
}

/// How bodies are read.
#[derive(Debug)]
pub(crate) struct Bodies {
    /// The largest, in bytes.
    limit: usize,
    /// How long one may make no progress.
    patience: Duration,
    /// What all of them that are held at once may have, in bytes.
    budget: usize,
    held: Arc<AtomicUsize>,
}

/// A body that is all there.
#[derive(Debug)]
pub(crate) struct Body {
    pub(crate) bytes: Bytes,
    _held: Held,
}

/// Its part of the memory for bodies, until it is dropped.
#[derive(Debug)]
struct Held {
    all: Arc<AtomicUsize>,
    own: usize,
}

impl Bodies {
    pub(crate) fn new(limit: usize, patience: Duration, budget: usize) -> Self {
        Self { limit, patience, budget: budget.max(limit), held: Arc::default() }
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// # Errors
    /// 413, 408 or 429; 400 if the client went away.
    pub(crate) async fn read(&self, sent: Sent) -> Result<Body, Refusal> {
        let mut held = Held { all: self.held.clone(), own: 0 };
        let incoming = match sent {
            Sent::Whole(bytes) => {
                self.hold(&mut held, bytes.len())?;
                return Ok(Body { bytes, _held: held });
            }
            Sent::Streamed(incoming) => incoming,
        };
        let announced = incoming.size_hint().exact().map(|length| usize::try_from(length).unwrap_or(usize::MAX));
        if announced.is_some_and(|length| length > self.limit) {
            Sent::Streamed(incoming).discard();
            return Err(self.too_large());
        }
        self.collect(incoming, announced, held).await
    }

    async fn collect(&self, mut incoming: Incoming, announced: Option<usize>, mut held: Held) -> Result<Body, Refusal> {
        let begun = Instant::now();
        let mut first = Bytes::new();
        let mut rest = BytesMut::new();
        loop {
            let received = first.len() + rest.len();
            if announced == Some(received) || incoming.is_end_stream() {
                break;
            }
            let until = begun + self.patience + Duration::from_millis(received as u64 * 1000 / SLOWEST);
            let Some(frame) = timeout_at(until, incoming.frame()).await.map_err(|_| too_slow(received))? else { break };
            let frame = frame.map_err(|error| bad(format!("the body did not come whole: {error}")))?;
            // Trailers say nothing here.
            let Ok(data) = frame.into_data() else { continue };
            if received + data.len() > self.limit {
                Sent::Streamed(incoming).discard();
                return Err(self.too_large());
            }
            if let Err(refusal) = self.hold(&mut held, data.len()) {
                Sent::Streamed(incoming).discard();
                return Err(refusal);
            }
            // What comes in one piece is not copied.
            if received == 0 {
                first = data;
                continue;
            }
            if rest.is_empty() {
                rest.reserve(announced.unwrap_or(0).clamp(received + data.len(), BELIEVED.max(received + data.len())));
                rest.extend_from_slice(&first);
                first = Bytes::new();
            }
            rest.extend_from_slice(&data);
        }
        let bytes = if rest.is_empty() { first } else { rest.freeze() };
        Ok(Body { bytes, _held: held })
    }

    fn hold(&self, held: &mut Held, more: usize) -> Result<(), Refusal> {
        let before = self.held.fetch_add(more, Ordering::Relaxed);
        held.own += more;
        if before + more <= self.budget {
            return Ok(());
        }
        let message = format!("the bodies of all requests in hand may have {} bytes together: try again", self.budget);
        Err(Refusal::new(StatusCode::TOO_MANY_REQUESTS, message))
    }

    fn too_large(&self) -> Refusal {
        let message = format!("the body is larger than {} bytes", self.limit);
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, message)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.all.fetch_sub(self.own, Ordering::Relaxed);
    }
}

fn too_slow(received: usize) -> Refusal {
    let message = format!("the body comes too slowly: {received} bytes of it are here");
    Refusal::new(StatusCode::REQUEST_TIMEOUT, message)
}

fn bad(message: String) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, message)
}
