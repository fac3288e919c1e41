//! Calls over gRPC, each answered as the request of the REST form that it becomes. See [`modelyard_grpc`].

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use modelyard_grpc::{Door, Rest};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use crate::answer;
use crate::forward::{Sent, forward};
use crate::shared::{Shared, Worker};

/// # Errors
/// None that anything but its own build could cause.
pub(crate) fn door(shared: &Shared) -> anyhow::Result<Door> {
    let max_message = usize::try_from(shared.max_body).unwrap_or(usize::MAX);
    Door::new(max_message).context("the services cannot be described")
}

/// One client's calls come as if it had sent requests.
#[derive(Clone)]
struct Client {
    worker: Rc<Worker>,
    address: IpAddr,
}

impl Rest for Client {
    async fn ask(&self, request: Request<Bytes>) -> Response<Bytes> {
        let answer = forward(&self.worker, request.map(Sent::Whole), self.address).await;
        let (mut parts, body) = answer.into_parts();
        match body.collect().await {
            Ok(body) => Response::from_parts(parts, body.to_bytes()),
            // An answer that is too long to be held broke off.
            Err(_) => {
                let broken = answer::error(StatusCode::BAD_GATEWAY, "the worker broke off");
                parts.status = broken.status();
                let body = broken.body().bytes().cloned().unwrap_or_default();
                Response::from_parts(parts, body)
            }
        }
    }
}

/// Tasks stay on the thread of their connection.
#[derive(Clone, Copy)]
pub(crate) struct HereOnly;

impl<F: Future + 'static> Executor<F> for HereOnly {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}

pub(crate) async fn calls(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    client: SocketAddr,
    worker: Rc<Worker>,
    door: Arc<Door>,
    mut stopping: watch::Receiver<bool>,
) {
    let client = Client { worker, address: client.ip() };
    let service = service_fn(|request: Request<Incoming>| {
        let (client, door) = (client.clone(), door.clone());
        async move {
            let (response, feed) = door.call(client, request).await;
            if let Some(feed) = feed {
                HereOnly.execute(feed);
            }
            Ok::<_, Infallible>(response)
        }
    });
    let connection =
        http2::Builder::new(HereOnly).timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
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
