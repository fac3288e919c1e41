//! HTTP/1.1 from clients, as long as their requests are plain: a head and a body that is short enough to be held. What is
//! not plain, or not HTTP/1.1 at all, is hyper's, with everything that was read and not answered yet.
//!
//! Nearly all requests for inferences are plain, and hyper costs more for one than the whole rest of the gateway. A
//! connection that waits for its client's next request holds no buffer.

mod answer;
mod request;
mod rewind;

use std::cell::RefCell;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::ready;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::Request;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::forward::{Sent, forward};
use crate::shared::Worker;
use request::{Plain, Read};
pub(crate) use rewind::Rewind;

/// For a client to begin its next request, and then to send the rest of its head.
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

/// What becomes of a connection.
#[derive(Debug)]
pub(crate) enum Next {
    Closed,
    /// The rest is hyper's. These bytes were read, and not answered.
    Other(Bytes),
}

/// Answers plain requests until the connection ends, or one comes that is not.
pub(crate) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, client: IpAddr, worker: &Worker) -> Next {
    let mut read = BytesMut::new();
    let most = worker.shared.replay_limit.min(usize::try_from(worker.shared.max_body).unwrap_or(usize::MAX));
    loop {
        let plain = match head(stream, worker, &mut read, most).await {
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
        let is_last = worker.is_closing() || answer::is_last(&answer);
        if answer::write(stream, &method, answer, is_last).await.is_err() || is_last {
            return Next::Closed;
        }
    }
}

/// The head of the next request; `None` if it is hyper's.
async fn head<S: AsyncRead + Unpin>(
    stream: &mut S,
    worker: &Worker,
    read: &mut BytesMut,
    most: usize,
) -> std::io::Result<Option<Plain>> {
    let mut begun: Option<Instant> = None;
    loop {
        if !read.is_empty() {
            match request::take(read, most) {
                Read::Plain(plain) => return Ok(Some(plain)),
                Read::Other => return Ok(None),
                Read::Partial => {}
            }
        }
        let (timers, is_idle) = (&worker.timers, read.is_empty());
        if is_idle && worker.is_closing() {
            return Err(ErrorKind::ConnectionAborted.into());
        }
        let came = read_some(stream, &worker.scratch, read);
        let came = match begun {
            None => timers.idle_within(HEAD_WITHIN, came).await,
            Some(begun) => timers.within(HEAD_WITHIN.saturating_sub(begun.elapsed()), came).await,
        };
        came.unwrap_or(Err(ErrorKind::TimedOut.into()))?;
        begun.get_or_insert_with(Instant::now);
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
    worker.timers.within(BODY_WITHIN, all).await.unwrap_or(Err(ErrorKind::TimedOut.into()))
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
