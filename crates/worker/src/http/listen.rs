//! Sockets that listen.

use std::net::{SocketAddr, TcpListener};

use anyhow::Context as _;
use rustix::process::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Protocol, Socket, Type};

const BACKLOG: i32 = 4096;

/// As many listeners as asked for on one address, which share its connections (`SO_REUSEPORT`), and that address.
///
/// # Errors
/// If the address is taken, be it by a worker that would share it.
pub(crate) fn listeners(address: SocketAddr, count: usize) -> anyhow::Result<(Vec<TcpListener>, SocketAddr)> {
    let cannot = || format!("cannot listen on {address}");
    if count > 1 && address.port() != 0 {
        // A first bind that shares with nobody tells whether somebody is there.
        socket(address).and_then(|probe| probe.bind(&address.into())).with_context(cannot)?;
    }
    let mut address = address;
    let mut listeners = Vec::with_capacity(count);
    for _ in 0..count {
        let listen = || {
            let socket = socket(address)?;
            if count > 1 {
                socket.set_reuse_port(true)?;
            }
            socket.bind(&address.into())?;
            socket.listen(BACKLOG)?;
            socket.set_nonblocking(true)?;
            Ok::<_, std::io::Error>(TcpListener::from(socket))
        };
        let listener = listen().with_context(|| format!("cannot listen on {address}"))?;
        address = listener.local_addr()?;
        listeners.push(listener);
    }
    Ok((listeners, address))
}

fn socket(address: SocketAddr) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    Ok(socket)
}

/// Lets this process have as many connections as it may (the soft limit of file descriptors is often 1024).
pub(crate) fn raise_file_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of file descriptors stays as it is");
    }
}
