//! Stopping without loss: readiness says no at once, requests are answered until no more come.
//!
//! Those who route learn of it with a delay, so new requests are welcome while it lasts; the end is a quiet spell.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout_at};

/// How long no request must come before it is taken that none will.
const QUIET: Duration = Duration::from_millis(300);

/// How far the worker's end has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum End {
    NotYet,
    Draining,
    Closed,
}

impl End {
    /// Returns when the end has come further than `this`.
    pub(crate) async fn beyond(end: &mut watch::Receiver<Self>, this: Self) {
        // What is seen is locked: it must not be held on to.
        end.wait_for(|end| *end > this).await.ok();
    }
}

/// Counts the requests in flight.
#[derive(Debug)]
pub(crate) struct Traffic {
    draining: AtomicBool,
    in_flight: AtomicUsize,
    /// When a request last began or ended.
    last: Mutex<Instant>,
    idle: Notify,
}

/// One request, until it is dropped.
#[derive(Debug)]
pub(crate) struct InFlight<'a>(&'a Traffic);

impl Traffic {
    pub(crate) fn new() -> Self {
        Self {
            draining: AtomicBool::new(false),
            in_flight: AtomicUsize::new(0),
            last: Mutex::new(Instant::now()),
            idle: Notify::new(),
        }
    }

    pub(crate) fn begin(&self) -> InFlight<'_> {
        self.in_flight.fetch_add(1, Ordering::SeqCst);
        self.touch();
        InFlight(self)
    }

    pub(crate) fn draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// Ends when nothing is in flight and nothing came for a while, or after `limit`. Gives the number of requests
    /// still in flight.
    pub(crate) async fn drain(&self, limit: Duration) -> usize {
        self.draining.store(true, Ordering::SeqCst);
        self.touch();
        let deadline = Instant::now() + limit;
        loop {
            let ended = self.idle.notified();
            let in_flight = self.in_flight.load(Ordering::SeqCst);
            let now = Instant::now();
            let quiet_at = self.last() + QUIET;
            if now >= deadline || (in_flight == 0 && now >= quiet_at) {
                return in_flight;
            }
            if in_flight == 0 {
                sleep_until(quiet_at.min(deadline)).await;
            } else {
                timeout_at(deadline, ended).await.ok();
            }
        }
    }

    fn touch(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn last(&self) -> Instant {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.touch();
        if self.0.in_flight.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.idle.notify_one();
        }
    }
}
