//! What requests need at hand: of all threads, and of their own.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use modelyard_tls::ServerTls;

use crate::config::Config;
use crate::counters::Counters;
use crate::downstream::Scratch;
use crate::mirror::MirrorQueue;
use crate::pool::Pool;
use crate::table::Table;
use crate::timers::Timers;

/// What all threads share.
pub(crate) struct Shared {
    pub(crate) table: ArcSwap<Table>,
    pub(crate) counters: Counters,
    pub(crate) mirror: MirrorQueue,
    pub(crate) timeout: Duration,
    pub(crate) replay_limit: usize,
    pub(crate) max_body: u64,
    /// `None`: clients speak plaintext.
    pub(crate) tls: Option<Arc<ServerTls>>,
    /// Of clients, open now.
    pub(crate) connections: AtomicUsize,
    stopping: AtomicBool,
    started: Instant,
}

impl Shared {
    pub(crate) fn new(config: &Config, tls: Option<Arc<ServerTls>>, mirror: MirrorQueue) -> Self {
        Self {
            table: ArcSwap::default(),
            counters: Counters::default(),
            mirror,
            timeout: config.timeout,
            replay_limit: config.replay_limit,
            max_body: config.max_body,
            tls,
            connections: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
            started: Instant::now(),
        }
    }

    /// From now on it is not ready, and asks clients to connect elsewhere. It serves as before.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Relaxed);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Relaxed)
    }

    /// The gateway's own clock.
    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// What belongs to one thread.
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) pool: Pool,
    pub(crate) scratch: Scratch,
    pub(crate) timers: Timers,
    /// Answers that are under way are the last of their connections.
    closing: Cell<bool>,
}

impl Worker {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            pool: Pool::default(),
            scratch: Scratch::default(),
            timers: Timers::default(),
            closing: Cell::new(false),
        }
    }

    /// Lets its timers run, for as long as its thread does.
    pub(crate) fn keep_time(&self) {
        let timers = self.timers.clone();
        tokio::task::spawn_local(async move { timers.run().await });
    }

    /// Connections close: idle ones now, others when they have answered.
    pub(crate) fn close(&self) {
        self.closing.set(true);
        self.timers.end_idle();
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.get()
    }

    /// A random point in the whole of the traffic.
    pub(crate) fn dice_weight(&self) -> u16 {
        fastrand::u16(..crate::pick::WHOLE)
    }

    /// A random number below `n`, which is not 0.
    pub(crate) fn dice(&self, n: usize) -> usize {
        fastrand::usize(..n)
    }
}
