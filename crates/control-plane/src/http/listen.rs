//! The admin API's listener where it serves TLS. Handshakes run beside one another: a client that says nothing holds
//! up nobody.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::Listener;
use modelyard_tls::{ServerTls, TlsStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

pub(super) struct TlsListener {
    tcp: TcpListener,
    tls: Arc<ServerTls>,
    /// Each ends with a connection, or with `None` where a client broke off.
    handshakes: JoinSet<Option<(TlsStream<TcpStream>, SocketAddr)>>,
}

impl TlsListener {
    pub(super) fn new(tcp: TcpListener, tls: Arc<ServerTls>) -> Self {
        Self { tcp, tls, handshakes: JoinSet::new() }
    }

    fn shake_hands(&mut self, stream: TcpStream, client: SocketAddr) {
        let tls = self.tls.clone();
        self.handshakes.spawn(async move {
            stream.set_nodelay(true).ok();
            let shaken = tls.accept(stream).await;
            shaken.inspect_err(|error| tracing::debug!(%error, %client, "no TLS")).ok().map(|stream| (stream, client))
        });
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            tokio::select! {
                accepted = self.tcp.accept() => match accepted {
                    Ok((stream, client)) => self.shake_hands(stream, client),
                    Err(error) => {
                        // Out of file descriptors, most likely: others must close before more can come.
                        tracing::warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                },
                Some(shaken) = self.handshakes.join_next() => {
                    if let Ok(Some(connection)) = shaken {
                        return connection;
                    }
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.tcp.local_addr()
    }
}
