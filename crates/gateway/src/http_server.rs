//! Listeners and connections from clients: one thread, one runtime, one listener per core and protocol.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use http::{Request, header};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::LocalSet;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::downstream::{self, Next, Rewind};
use crate::forward::{Sent, forward};
use crate::grpc_server::{self, HereOnly};
use crate::shared::{Shared, Worker};

/// For a client to send the head of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
const SWEEP_EVERY: Duration = Duration::from_secs(10);
const BACKLOG: i32 = 1024;

/// Starts the threads. They end when `stopping` says so and what was in flight is answered.
///
/// # Errors
/// If the address is taken.
pub(crate) fn start(
    config: &Config,
    shared: &Arc<Shared>,
    stopping: &watch::Receiver<bool>,
) -> anyhow::Result<Vec<JoinHandle<()>>> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = config.threads.unwrap_or(cores).max(1);
    let mut doors: Vec<Vec<Door>> =
        listeners(config.listen, threads)?.into_iter().map(|listener| vec![(listener, Speaks::Http)]).collect();
    if let Some(address) = config.grpc_listen {
        let calls = Arc::new(grpc_server::door(shared)?);
        for (doors, listener) in doors.iter_mut().zip(listeners(address, threads)?) {
            doors.push((listener, Speaks::Grpc(calls.clone())));
        }
    }
    let drain_timeout = config.drain_timeout.as_duration();
    let start = |doors: Vec<Door>| {
        let (shared, stopping) = (shared.clone(), stopping.clone());
        let serve = move || serve(doors, shared, stopping, drain_timeout);
        std::thread::Builder::new().name("gateway".into()).spawn(serve)
    };
    doors.into_iter().map(|doors| start(doors).context("no thread")).collect()
}

/// What is spoken at an address.
#[derive(Clone)]
enum Speaks {
    Http,
    Grpc(Arc<modelyard_grpc::Door>),
}

type Door = (TcpListener, Speaks);

/// Several listeners on one address share its connections (`SO_REUSEPORT`). So would those of a second gateway: a
/// first bind without that option tells whether there is one.
fn listeners(address: SocketAddr, count: usize) -> anyhow::Result<Vec<TcpListener>> {
    let taken = || format!("cannot listen on {address}: is another gateway running?");
    let probe = socket(address)?;
    probe.bind(&address.into()).with_context(taken)?;
    let address = probe.local_addr()?.as_socket().unwrap_or(address);
    drop(probe);
    let listen = |_| {
        let socket = socket(address)?;
        socket.set_reuse_port(true)?;
        socket.bind(&address.into()).with_context(taken)?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        anyhow::Ok(TcpListener::from(socket))
    };
    (0..count).map(listen).collect()
}

fn socket(address: SocketAddr) -> anyhow::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    Ok(socket)
}

fn serve(doors: Vec<Door>, shared: Arc<Shared>, mut stopping: watch::Receiver<bool>, drain_timeout: Duration) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return tracing::error!(%error, "a thread cannot serve"),
    };
    let worker = Rc::new(Worker::new(shared));
    LocalSet::new().block_on(&runtime, async move {
        worker.keep_time();
        let connections = TaskTracker::new();
        let for_connections = stopping.clone();
        let accepting = doors.into_iter().map(|door| accept(door, &worker, &for_connections, &connections));
        tokio::select! {
            _ = futures::future::join_all(accepting) => {}
            () = sweep(&worker) => {}
            _ = stopping.wait_for(|stop| *stop) => {}
        }
        worker.close();
        connections.close();
        tokio::time::timeout(drain_timeout, connections.wait()).await.ok();
    });
}

async fn sweep(worker: &Worker) {
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        worker.pool.sweep();
    }
}

async fn accept(
    (listener, speaks): Door,
    worker: &Rc<Worker>,
    stopping: &watch::Receiver<bool>,
    connections: &TaskTracker,
) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "a thread cannot listen"),
    };
    loop {
        match listener.accept().await {
            Ok((stream, client)) => {
                let connection = connection(stream, client, speaks.clone(), worker.clone(), stopping.clone());
                connections.spawn_local(connection);
            }
            Err(error) => {
                // Out of file descriptors, most likely: others must close before more can come.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn connection(
    stream: TcpStream,
    client: SocketAddr,
    speaks: Speaks,
    worker: Rc<Worker>,
    mut stopping: watch::Receiver<bool>,
) {
    stream.set_nodelay(true).ok();
    let _open = Open::count(&worker.shared);
    let Some(tls) = worker.shared.tls.clone() else { return speak(stream, client, speaks, worker, stopping).await };
    let shake = async {
        match speaks {
            Speaks::Http => tls.accept(stream).await,
            Speaks::Grpc(_) => tls.accept_http2(stream).await,
        }
    };
    let shaken = tokio::select! {
        shaken = shake => shaken,
        _ = stopping.wait_for(|stop| *stop) => return,
    };
    match shaken {
        Ok(stream) => speak(stream, client, speaks, worker, stopping).await,
        Err(error) => tracing::debug!(%error, %client, "no TLS"),
    }
}

async fn speak(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    client: SocketAddr,
    speaks: Speaks,
    worker: Rc<Worker>,
    stopping: watch::Receiver<bool>,
) {
    match speaks {
        Speaks::Http => requests(stream, client, worker, stopping).await,
        Speaks::Grpc(door) => grpc_server::calls(stream, client, worker, door, stopping).await,
    }
}

async fn requests(
    mut stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    client: SocketAddr,
    worker: Rc<Worker>,
    stopping: watch::Receiver<bool>,
) {
    let Next::Other(read) = downstream::serve(&mut stream, client.ip(), &worker).await else { return };
    // HTTP/2 without TLS, by prior knowledge (RFC 9113 §3.3); with TLS as it was agreed.
    let is_http2 = read.starts_with(PREFACE);
    let stream = Rewind::new(read, stream);
    if is_http2 {
        http2_requests(stream, client, worker, stopping).await
    } else {
        http1_requests(stream, client, worker, stopping).await
    }
}

/// How a client begins that speaks HTTP/2.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";

async fn http1_requests(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    client: SocketAddr,
    worker: Rc<Worker>,
    mut stopping: watch::Receiver<bool>,
) {
    let service = service_fn(|request: Request<Incoming>| {
        let worker = worker.clone();
        async move { Ok::<_, Infallible>(forward(&worker, request.map(Sent::Streamed), client.ip()).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    // A connection that breaks is its client's affair.
    tokio::select! {
        _ = connection.as_mut() => {}
        _ = stopping.wait_for(|stop| *stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await.ok();
        }
    }
}

async fn http2_requests(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    client: SocketAddr,
    worker: Rc<Worker>,
    mut stopping: watch::Receiver<bool>,
) {
    let service = service_fn(|request: Request<Incoming>| {
        let worker = worker.clone();
        async move {
            let mut answer = forward(&worker, request.map(Sent::Streamed), client.ip()).await;
            // It has no such header (RFC 9113 §8.2.2).
            answer.headers_mut().remove(header::CONNECTION);
            Ok::<_, Infallible>(answer)
        }
    });
    let connection =
        http2::Builder::new(HereOnly).timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => {}
        _ = stopping.wait_for(|stop| *stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await.ok();
        }
    }
}

/// Counts a connection while it lives.
struct Open(Arc<Shared>);

impl Open {
    fn count(shared: &Arc<Shared>) -> Self {
        shared.connections.fetch_add(1, Relaxed);
        Self(shared.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Relaxed);
    }
}
