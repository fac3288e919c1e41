//! HTTP/1.1 from clients, as long as their requests are plain: a head and a body that is short enough to be held. What is
//! not plain, or not HTTP/1.1 at all, is hyper's, with everything that was read and not answered yet.
//!
//! Nearly all requests for inferences are plain, and hyper costs more for one than the whole rest of the gateway. A
//! connection that waits for its client's next request holds no buffer.

mod answer;
mod request;
mod rewind;

use std::cell::{Cell, RefCell};
use std::io::ErrorKind;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::ready;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::Request;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, timeout_at};

use crate::forward::{Sent, forward};
use crate::shared::Worker;
use request::{Plain, Read};
pub(crate) use rewind::Rewind;

/// For a client to send the head of its next request, idle time included.
const HEAD_WITHIN: Duration = Duration::from_secs(30);
/// For a client to send a body that is held.
const BODY_WITHIN: Duration = Duration::from_secs(60);
/// What a client may send ahead of the answer that it waits for.
const MOST_AHEAD: usize = 64 << 10;
const SCRATCH: usize = 64 << 10;

/// What connections of one thread read into, one at a time.
pub(crate) struct Scratch(RefCell<Box<[u8]>>);

impl Default for Scratch {
    fn default() -> Self {
        Self(RefCell::new(vec![0; SCRATCH].into()))
    }
}

/// How a connection stands, for those outside who would end it.
#[derive(Debug, Default)]
pub(crate) struct State {
    idle: Cell<bool>,
    closing: Cell<bool>,
}

impl State {
    /// Whether no request is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.idle.get()
    }

    /// The answer that is under way is the last.
    pub(crate) fn close(&self) {
        self.closing.set(true);
    }
}

/// What becomes of a connection.
#[derive(Debug)]
pub(crate) enum Next {
    Closed,
    /// The rest is hyper's. These bytes were read, and not answered.
    Other(Bytes),
}

/// Answers plain requests until the connection ends, or one comes that is not.
pub(crate) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    client: IpAddr,
    worker: &Worker,
    state: &State,
) -> Next {
    let mut read = BytesMut::new();
    let most = worker.shared.replay_limit.min(usize::try_from(worker.shared.max_body).unwrap_or(usize::MAX));
    loop {
        let plain = match head(stream, worker, state, &mut read, most).await {
            Ok(Some(plain)) => plain,
            Ok(None) => return Next::Other(read.freeze()),
            Err(_) => return Next::Closed,
        };
        let Plain { parts, length } = plain;
        if whole(stream, worker, &mut read, length).await.is_err() {
            return Next::Closed;
        }
        let body = read.split_to(length).freeze();
        let method = parts.method.clone();
        let request = Request::from_parts(parts, Sent::Whole(body));
        let answering = forward(worker, request, client);
        let mut answering = std::pin::pin!(answering);
        let answer = loop {
            tokio::select! {
                biased;
                answer = &mut answering => break answer,
                // A client that is gone needs no answer. As with hyper, one that has ended its side is gone.
                came = read_some(stream, &worker.scratch, &mut read), if read.len() < MOST_AHEAD => match came {
                    Ok(()) => {}
                    Err(_) => return Next::Closed,
                },
            }
        };
        let is_last = state.closing.get() || answer::is_last(&answer);
        if answer::write(stream, &method, answer, is_last).await.is_err() || is_last {
            return Next::Closed;
        }
    }
}

/// The head of the next request; `None` if it is hyper's.
async fn head<S: AsyncRead + Unpin>(
    stream: &mut S,
    worker: &Worker,
    state: &State,
    read: &mut BytesMut,
    most: usize,
) -> std::io::Result<Option<Plain>> {
    let until = Instant::now() + HEAD_WITHIN;
    loop {
        if !read.is_empty() {
            match request::take(read, most) {
                Read::Plain(plain) => return Ok(Some(plain)),
                Read::Other => return Ok(None),
                Read::Partial => {}
            }
        }
        state.idle.set(read.is_empty());
        let came = timeout_at(until, read_some(stream, &worker.scratch, read)).await;
        state.idle.set(false);
        came.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))?;
    }
}

/// Reads on until the body is there.
async fn whole<S: AsyncRead + Unpin>(
    stream: &mut S,
    worker: &Worker,
    read: &mut BytesMut,
    length: usize,
) -> std::io::Result<()> {
    if read.len() >= length {
        return Ok(());
    }
    // Memory that is not written to is not used.
    read.reserve(length - read.len());
    let all = async {
        while read.len() < length {
            read_some(stream, &worker.scratch, read).await?;
        }
        Ok(())
    };
    tokio::time::timeout(BODY_WITHIN, all).await.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))
}

/// Reads what has come, at least a byte.
///
/// # Errors
/// Also at the end of the connection.
async fn read_some<S: AsyncRead + Unpin>(
    stream: &mut S,
    scratch: &Scratch,
    read: &mut BytesMut,
) -> std::io::Result<()> {
    std::future::poll_fn(|cx| {
        let mut scratch = scratch.0.borrow_mut();
        let mut came = ReadBuf::new(&mut scratch);
        ready!(Pin::new(&mut *stream).poll_read(cx, &mut came))?;
        if came.filled().is_empty() {
            return std::task::Poll::Ready(Err(ErrorKind::UnexpectedEof.into()));
        }
        read.extend_from_slice(came.filled());
        std::task::Poll::Ready(Ok(()))
    })
    .await
}
