//! Connections from clients: HTTP/1.1, or HTTP/2 by prior knowledge, on the same port.
//!
//! Threads of their own serve them, each with its listener and its runtime: a connection never changes its thread.
//! Whatever a client does or leaves undone has an end: nothing is waited for longer than `patience`.

use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustix::net::sockopt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::{Sent, Worker, answer};
use crate::drain::End;

/// What the head of a request may have, in bytes.
const HEAD: usize = 64 << 10;
/// Header fields of a request.
const FIELDS: usize = 100;
/// Requests of one connection of HTTP/2 at once.
const STREAMS: u32 = 256;
/// What a connection of HTTP/2 may have sent that nobody has read yet, in bytes.
const WINDOW: u32 = 1 << 20;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FULL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\nconnection: close\r\n\
      content-length: 50\r\n\r\n{\"error\":\"as many connections are open as may be\"}";

/// How connections are treated.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manners {
    /// How long nothing may come of a request that was begun, or of the next one, and nothing of an answer be taken.
    pub(crate) patience: Duration,
    /// How many may be open.
    pub(crate) most: usize,
}

/// What the connections of one thread share.
struct Door {
    worker: Arc<Worker>,
    manners: Manners,
    open: Arc<AtomicUsize>,
}

/// Starts one thread for each listener. They end when `end` is [`End::Closed`] and no connection is left.
///
/// # Errors
/// If a thread cannot be started.
pub(crate) fn serve(
    listeners: Vec<TcpListener>,
    worker: &Arc<Worker>,
    manners: Manners,
    end: &watch::Receiver<End>,
) -> io::Result<Vec<JoinHandle<()>>> {
    let open = Arc::<AtomicUsize>::default();
    let start = |listener| {
        let (worker, open, end) = (worker.clone(), open.clone(), end.clone());
        let work = move || on_this_thread(listener, Door { worker, manners, open }, end);
        std::thread::Builder::new().name("http".into()).spawn(work)
    };
    listeners.into_iter().map(start).collect()
}

fn on_this_thread(listener: TcpListener, door: Door, mut end: watch::Receiver<End>) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return tracing::error!(%error, "a thread cannot serve"),
    };
    runtime.block_on(async move {
        let connections = TaskTracker::new();
        let for_connections = end.clone();
        tokio::select! {
            () = accept(listener, Arc::new(door), &for_connections, &connections) => {}
            () = End::beyond(&mut end, End::Draining) => {}
        }
        connections.close();
        connections.wait().await;
    });
}

async fn accept(listener: TcpListener, door: Arc<Door>, end: &watch::Receiver<End>, connections: &TaskTracker) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "a thread cannot listen"),
    };
    loop {
        match listener.accept().await {
            Ok((stream, _)) => match Open::count(&door) {
                Some(open) => {
                    connections.spawn(connection(stream, open, door.clone(), end.clone()));
                }
                // What does not fit into its buffer now is not said.
                None => drop(stream.try_write(FULL)),
            },
            Err(error) => {
                // Out of file descriptors, most likely: others must close before more can come.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, _open: Open, door: Arc<Door>, mut end: watch::Receiver<End>) {
    // Answers are written whole; waiting for more to send would only delay them.
    stream.set_nodelay(true).ok();
    // An answer that nobody takes, and a client that is gone without a word, end here; these are no reason to refuse.
    let patience = u32::try_from(door.manners.patience.as_millis()).unwrap_or(u32::MAX);
    sockopt::set_tcp_user_timeout(&stream, patience).ok();
    sockopt::set_tcp_keepidle(&stream, Duration::from_secs(60)).ok();
    sockopt::set_socket_keepalive(&stream, true).ok();
    let is_http2 = tokio::select! {
        first = timeout(door.manners.patience, speaks_http2(&stream)) => first,
        () = End::beyond(&mut end, End::Draining) => return,
    };
    match is_http2 {
        Ok(Ok(Some(true))) => http2(stream, &door, end).await,
        Ok(Ok(Some(false))) => http1(stream, &door, end).await,
        // It left, or never said anything.
        Ok(Ok(None) | Err(_)) | Err(_) => {}
    }
}

/// `None`: it was closed. Clients of HTTP/2 send the preface whole; what comes in smaller pieces is no request either.
async fn speaks_http2(stream: &TcpStream) -> io::Result<Option<bool>> {
    let mut first = [0; PREFACE.len()];
    let count = stream.peek(&mut first).await?;
    Ok((count > 0).then_some(count > 3 && first[..count] == PREFACE[..count]))
}

async fn http1(stream: TcpStream, door: &Door, mut end: watch::Receiver<End>) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(door.manners.patience)
        .max_header_size(HEAD)
        .max_headers(FIELDS)
        .serve_connection(TokioIo::new(stream), service_fn(|request| respond(door.worker.clone(), request)));
    let mut connection = std::pin::pin!(connection);
    // A connection that breaks is its client's affair.
    tokio::select! {
        _ = connection.as_mut() => {}
        () = End::beyond(&mut end, End::Draining) => {
            connection.as_mut().graceful_shutdown();
            connection.await.ok();
        }
    }
}

async fn http2(stream: TcpStream, door: &Door, mut end: watch::Receiver<End>) {
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(u32::try_from(HEAD).unwrap_or(u32::MAX))
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .keep_alive_interval(door.manners.patience)
        .serve_connection(TokioIo::new(stream), service_fn(|request| respond(door.worker.clone(), request)));
    let mut connection = std::pin::pin!(connection);
    let begun = *end.borrow();
    tokio::select! {
        _ = connection.as_mut() => {}
        // So that the caller's next request goes elsewhere.
        () = End::beyond(&mut end, begun) => {
            connection.as_mut().graceful_shutdown();
            connection.await.ok();
        }
    }
}

async fn respond(
    worker: Arc<Worker>,
    request: http::Request<Incoming>,
) -> Result<http::Response<Full<bytes::Bytes>>, Infallible> {
    Ok(answer(&worker, request.map(Sent::Streamed)).await.map(Full::new))
}

/// Counts a connection while it lives.
struct Open(Arc<AtomicUsize>);

impl Open {
    /// `None` if there are as many as may be.
    fn count(door: &Door) -> Option<Self> {
        let open = Self(door.open.clone());
        (open.0.fetch_add(1, Ordering::Relaxed) < door.manners.most).then_some(open)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
