//! One model's way to the threads: its queue, and whether a request may join it.
//!
//! A request is refused if as many wait as may, or if its turn would come too late: later than the queue's limit in
//! time, or than its own deadline. When its turn would come is told from what a request of this model took of late, and
//! from the turns of other models that come before. Where nothing waits a request is let in whatever is expected, so an
//! estimate that is wrong is soon set right; and so are as many as there are threads, so that slow models have a queue
//! at all.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use modelyard_engine::Engine;
use prometheus_client::metrics::histogram::Histogram;
use tokio::sync::oneshot;

use super::{BatchLimits, ComputePool, Owned, Request, Unread, batch};

/// How much may wait for one model.
#[derive(Debug, Clone, Copy)]
pub(crate) struct QueueLimits {
    /// In requests.
    pub(crate) places: usize,
    /// How long a request may be expected to wait.
    pub(crate) wait: Duration,
}

pub(crate) struct LaneOptions {
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) queue: QueueLimits,
    /// Requests are batched if it is given, and the model's signature has nothing against it.
    pub(crate) batch: Option<BatchLimits>,
    /// Of this model alone: how long the engine took.
    pub(crate) inference: Option<Histogram>,
}

/// What jobs and those who submit know of a model.
pub(super) struct Model {
    pub(super) engine: Arc<dyn Engine>,
    pub(super) queue: QueueLimits,
    pub(super) batch: Option<BatchLimits>,
    pub(super) inference: Option<Histogram>,
    /// Why batching was switched off.
    pub(super) off: OnceLock<String>,
    /// How many requests wait.
    pub(super) waiting: AtomicUsize,
    /// What a request took of late, in nanoseconds of one thread; 0 if none was computed yet.
    pub(super) cost: AtomicU64,
}

/// Where requests for one model are submitted. What waits when it is dropped is computed still.
pub(crate) struct Lane<R: Request> {
    pool: Arc<Owned<R>>,
    id: usize,
    model: Arc<Model>,
    /// Why there are no batches, though they were asked for: what is so from the start.
    obstacle: Option<String>,
}

/// Too much waits already.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Overloaded {
    /// As many requests as may.
    Full,
    /// For so long, by what is expected.
    TooLong(Duration),
}

impl Model {
    pub(super) fn cost(&self) -> u64 {
        self.cost.load(Ordering::Relaxed)
    }

    /// Whether one more may join `waiting`, when those and other models' requests before it take `ahead` nanoseconds of
    /// `threads` threads.
    pub(super) fn admits(
        &self,
        waiting: usize,
        ahead: u64,
        threads: usize,
        now: Instant,
        deadline: Option<Instant>,
    ) -> Result<(), Overloaded> {
        if waiting >= self.queue.places {
            return Err(Overloaded::Full);
        }
        if waiting == 0 {
            return Ok(());
        }
        let wait = Duration::from_nanos(ahead / threads as u64);
        // Twice what is expected, since requests differ and cores are shared: what is let in and then not answered in
        // time was computed for nothing, and a queue half as long is never empty under overload.
        let expected = wait + Duration::from_nanos(self.cost());
        let is_late = deadline.is_some_and(|deadline| now + expected * 2 > deadline);
        let is_long = wait > self.queue.wait && waiting >= threads;
        if is_late || is_long { Err(Overloaded::TooLong(wait)) } else { Ok(()) }
    }
}

impl<R: Request> ComputePool<R> {
    /// Makes a way for requests of one more model.
    pub(crate) fn lane(&self, options: LaneOptions) -> Lane<R> {
        let LaneOptions { engine, queue, batch, inference } = options;
        let obstacle = batch.and_then(|_| batch::obstacle(engine.signature()));
        if let Some(obstacle) = &obstacle {
            tracing::warn!("requests are not batched: {obstacle}");
        }
        let model = Arc::new(Model {
            engine,
            queue,
            // Batches of one row are none.
            batch: batch.filter(|limits| obstacle.is_none() && limits.rows > 1),
            inference,
            off: OnceLock::new(),
            waiting: AtomicUsize::new(0),
            cost: AtomicU64::new(0),
        });
        let id = self.0.0.lock().open(&model, Instant::now());
        Lane { pool: self.0.clone(), id, model, obstacle }
    }
}

impl<R: Request> Lane<R> {
    /// Whether a request that is yet to be received would be let in now. It takes no place.
    ///
    /// # Errors
    /// If not.
    pub(crate) fn admits(&self, deadline: Option<Instant>) -> Result<(), Overloaded> {
        let (waiting, threads) = (self.model.waiting.load(Ordering::Relaxed), self.pool.0.threads);
        if waiting == 0 {
            return Ok(());
        }
        let ahead = self.model.cost().saturating_mul(waiting as u64);
        self.model.admits(waiting, ahead, threads, Instant::now(), deadline)
    }

    /// Has `request` computed by a compute thread. The receiver gets nothing if that panics or the deadline passes
    /// before its turn; a request is not computed if the receiver is dropped by then.
    ///
    /// # Errors
    /// If the queue is too long.
    pub(crate) fn submit(
        &self,
        request: R,
        deadline: Option<Instant>,
    ) -> Result<oneshot::Receiver<R::Answer>, Overloaded> {
        let (answer, receiver) = oneshot::channel();
        let unread = Unread { request, answer, arrived: Instant::now(), deadline };
        let shared = &self.pool.0;
        let mut hall = shared.lock();
        hall.submit(self.id, unread)?;
        shared.wake(hall);
        Ok(receiver)
    }

    /// How requests are batched, if they are, or why they are not, though that was asked for.
    pub(crate) fn batching(&self) -> Option<Result<BatchLimits, &str>> {
        match (self.model.batch, &self.obstacle, self.model.off.get()) {
            (_, Some(obstacle), _) => Some(Err(obstacle)),
            (Some(_), None, Some(reason)) => Some(Err(reason)),
            (limits, None, _) => limits.map(Ok),
        }
    }

    pub(crate) fn engine(&self) -> &Arc<dyn Engine> {
        &self.model.engine
    }
}

impl<R: Request> Drop for Lane<R> {
    fn drop(&mut self) {
        let shared = &self.pool.0;
        let mut hall = shared.lock();
        hall.close_lane(self.id);
        shared.wake(hall);
    }
}
