//! The protocol over gRPC, for clients of a worker alone: the gateway speaks HTTP to it. See [`modelyard_grpc`].

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use modelyard_grpc::Door;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::drain::End;
use crate::http::InProcess;

/// Calls of one connection at once.
const STREAMS: u32 = 256;
/// A connection that is silent for so long is asked whether anybody is there.
const PROBE: Duration = Duration::from_secs(75);

/// Serves until the end, and then until no connection is left.
pub(crate) async fn serve(listener: TcpListener, door: Arc<Door>, rest: InProcess, mut end: watch::Receiver<End>) {
    let connections = TaskTracker::new();
    let for_connections = end.clone();
    let accept = async {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    connections.spawn(calls(stream, door.clone(), rest.clone(), for_connections.clone()));
                }
                Err(error) => {
                    // Out of file descriptors, most likely: others must close before more can come.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    };
    tokio::select! {
        () = accept => {}
        () = End::beyond(&mut end, End::Draining) => {}
    }
    connections.close();
    connections.wait().await;
}

async fn calls(stream: TcpStream, door: Arc<Door>, rest: InProcess, mut end: watch::Receiver<End>) {
    stream.set_nodelay(true).ok();
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let (door, rest) = (door.clone(), rest.clone());
        async move {
            let (response, feed) = door.call(rest, request).await;
            if let Some(feed) = feed {
                tokio::spawn(feed);
            }
            Ok::<_, Infallible>(response)
        }
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .keep_alive_interval(PROBE)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let begun = *end.borrow();
    // A connection that breaks is its client's affair.
    tokio::select! {
        _ = connection.as_mut() => {}
        // So that the caller's next request goes elsewhere.
        () = End::beyond(&mut end, begun) => {
            connection.as_mut().graceful_shutdown();
            connection.await.ok();
        }
    }
}
