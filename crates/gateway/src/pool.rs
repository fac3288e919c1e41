//! Connections to backends that one thread keeps open for its next requests.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

const IDLE_PER_BACKEND: usize = 64;
/// Below the time after which workers close idle connections themselves.
const IDLE_FOR: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

pub(crate) type Connection = SendRequest<Upstream>;

/// A request's body on its way to a backend.
#[derive(Debug)]
pub(crate) enum Upstream {
    /// All of it; can be sent again.
    Whole(Option<Bytes>),
    /// What was read of it, and the rest as it comes in.
    Streamed { read: Option<Bytes>, rest: Incoming },
}

impl Body for Upstream {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Streamed { read, rest } => match read.take() {
                Some(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
                None => Pin::new(rest).poll_frame(cx),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::Streamed { read, rest } => read.is_none() && rest.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Self::Streamed { read, rest } => {
                let read = read.as_ref().map_or(0, |b| b.len() as u64);
                let rest = rest.size_hint();
                let mut hint = SizeHint::new();
                hint.set_lower(rest.lower() + read);
                if let Some(upper) = rest.upper() {
                    hint.set_upper(upper + read);
                }
                hint
            }
        }
    }
}

#[derive(Default)]
pub(crate) struct Pool(RefCell<HashMap<SocketAddr, Vec<Idle>>>);

struct Idle {
    connection: Connection,
    since: Instant,
}

impl Pool {
    /// An idle connection, if there is one that was not closed meanwhile.
    pub(crate) async fn idle(&self, address: SocketAddr) -> Option<Connection> {
        loop {
            let Idle { mut connection, since } = self.0.borrow_mut().get_mut(&address)?.pop()?;
            // Its driver may have yet to notice that the last answer is through.
            if since.elapsed() < IDLE_FOR && connection.ready().await.is_ok() {
                return Some(connection);
            }
        }
    }

    /// # Errors
    /// If nobody listens there, or nobody answers in time.
    pub(crate) async fn connect(&self, address: SocketAddr) -> std::io::Result<Connection> {
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await??;
        stream.set_nodelay(true)?;
        let (connection, driver) = http1::handshake(TokioIo::new(stream)).await.map_err(std::io::Error::other)?;
        tokio::task::spawn_local(async move {
            // Its end is seen by whoever uses the connection.
            driver.await.ok();
        });
        Ok(connection)
    }

    /// Keeps a connection for the next request.
    pub(crate) fn keep(&self, address: SocketAddr, connection: Connection) {
        if connection.is_closed() {
            return;
        }
        let mut idle = self.0.borrow_mut();
        let connections = idle.entry(address).or_default();
        if connections.len() < IDLE_PER_BACKEND {
            connections.push(Idle { connection, since: Instant::now() });
        }
    }

    /// Drops what was closed or unused for long.
    pub(crate) fn sweep(&self) {
        self.0.borrow_mut().retain(|_, connections| {
            connections.retain(|idle| !idle.connection.is_closed() && idle.since.elapsed() < IDLE_FOR);
            !connections.is_empty()
        });
    }
}
