//! Asks a worker whether it is ready.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;

/// What a worker writes down once it listens.
#[derive(Deserialize)]
struct Status {
    pid: u32,
    address: SocketAddr,
}

/// Where the worker with that pid listens; `None` until it says so. An earlier worker's word does not count.
pub(crate) fn address(dir: &Path, pid: u32) -> Option<SocketAddr> {
    let bytes = std::fs::read(dir.join("status.json")).ok()?;
    let status: Status = serde_json::from_slice(&bytes).ok()?;
    (status.pid == pid).then_some(status.address)
}

/// `Ok` if the worker at `address` says within `timeout` that it is ready, else why not, in words.
pub(crate) async fn ready(address: SocketAddr, timeout: Duration) -> Result<(), String> {
    match tokio::time::timeout(timeout, ask(address)).await {
        Ok(Ok(StatusCode::OK)) => Ok(()),
        Ok(Ok(status)) => Err(format!("it answers its readiness probe with {status}")),
        Ok(Err(error)) => Err(format!("it does not answer its readiness probe: {error}")),
        Err(_) => Err(format!("it does not answer its readiness probe within {timeout:?}")),
    }
}

async fn ask(address: SocketAddr) -> Result<StatusCode, Box<dyn std::error::Error + Send + Sync>> {
    // A connection of its own: that new ones are accepted is part of being ready.
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get("/v2/health/ready")
        .header(header::HOST, address.to_string())
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())?;
    // The connection may end in the same breath as the answer comes; without an answer, the sender fails too.
    let drive = async {
        let _ended = connection.await.is_err();
        std::future::pending::<Infallible>().await
    };
    tokio::select! {
        response = sender.send_request(request) => Ok(response?.status()),
        never = drive => match never {},
    }
}
