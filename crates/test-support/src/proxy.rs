//! A TCP proxy that can be cut: stands between a process and its database.

use std::net::{IpAddr, SocketAddr};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    Whole,
    /// Connections are closed, and new ones too.
    Cut,
    /// Connections stay open, and nothing comes through: a cable pulled, a packet filter.
    Silent,
}

pub struct Proxy {
    pub address: SocketAddr,
    line: watch::Sender<Line>,
    task: JoinHandle<()>,
}

impl Proxy {
    pub async fn start(to: SocketAddr) -> Self {
        Self::start_on(IpAddr::from([127, 0, 0, 1]), to).await
    }

    /// Where others than this machine's processes reach it.
    pub async fn start_on(address: IpAddr, to: SocketAddr) -> Self {
        let listener = TcpListener::bind((address, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let line = watch::Sender::new(Line::Whole);
        let state = line.subscribe();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(carry(stream, to, state.clone()));
            }
        });
        Self { address, line, task }
    }

    pub fn set(&self, line: Line) {
        self.line.send_replace(line);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn carry(mut from: TcpStream, to: SocketAddr, mut line: watch::Receiver<Line>) {
    if *line.borrow() == Line::Whole {
        let Ok(mut to) = TcpStream::connect(to).await else { return };
        tokio::select! {
            _ = copy_bidirectional(&mut from, &mut to) => return,
            _ = line.wait_for(|line| *line != Line::Whole) => {}
        }
        // What is silent stays so: its peers have lost track of what went through.
        hold(&mut line).await;
        drop(to);
    } else {
        hold(&mut line).await;
    }
}

async fn hold(line: &mut watch::Receiver<Line>) {
    line.wait_for(|line| *line != Line::Silent).await.ok();
}
