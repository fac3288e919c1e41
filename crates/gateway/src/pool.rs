//! Connections to backends that one thread keeps open for its next requests.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::upstream::Connection;

const IDLE_PER_BACKEND: usize = 256;
/// Below the time after which workers close idle connections themselves.
const IDLE_FOR: Duration = Duration::from_secs(30);

#[derive(Default)]
pub(crate) struct Pool(RefCell<HashMap<SocketAddr, Vec<Idle>>>);

struct Idle {
    connection: Connection,
    since: Instant,
}

impl Pool {
    /// The idle connection that was used last, if there is one that was not closed meanwhile.
    pub(crate) fn idle(&self, address: SocketAddr) -> Option<Connection> {
        loop {
            let Idle { connection, since } = self.0.borrow_mut().get_mut(&address)?.pop()?;
            if since.elapsed() < IDLE_FOR && !connection.is_stale() {
                return Some(connection);
            }
        }
    }

    /// Keeps a connection for the next request.
    pub(crate) fn keep(&self, address: SocketAddr, connection: Connection) {
        let mut idle = self.0.borrow_mut();
        let connections = idle.entry(address).or_default();
        if connections.len() < IDLE_PER_BACKEND {
            connections.push(Idle { connection, since: Instant::now() });
        }
    }

    /// Drops what was closed or unused for long.
    pub(crate) fn sweep(&self) {
        self.0.borrow_mut().retain(|_, connections| {
            connections.retain(|idle| idle.since.elapsed() < IDLE_FOR && !idle.connection.is_stale());
            !connections.is_empty()
        });
    }
}
