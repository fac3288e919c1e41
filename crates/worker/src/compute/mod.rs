//! The threads that compute, apart from those that serve connections: inference on the latter would starve them.
//!
//! The queue before them is short and bounded: what does not fit is refused at once, since a client can try elsewhere
//! better than wait here. A request whose client has left is not computed. Where batching is asked for and the model
//! has it, requests are computed together (`batch`, `queue`); else each by itself, in order of arrival.

mod batch;
mod queue;
#[cfg(test)]
mod tests;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use modelyard_engine::{Engine, InferError};
use modelyard_protocol::Tensor;
use tokio::sync::oneshot;

use crate::metrics::Metrics;
use batch::Batching;

/// A request in three steps, of which the one in the middle is the engine's. All are done by compute threads: reading
/// and writing JSON is computing too.
pub(crate) trait Request: Send + 'static {
    /// What is left of it while the engine has its tensors.
    type Reply: Send + 'static;
    type Answer: Send + 'static;

    /// What the engine is asked, or why it is not.
    fn read(self, engine: &dyn Engine) -> Result<(Call, Self::Reply), Self::Answer>;

    fn write(reply: Self::Reply, result: Result<Vec<Tensor>, InferError>) -> Self::Answer;
}

/// What an engine is asked.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) inputs: Vec<Tensor>,
    /// The names of those wanted; all if it is empty.
    pub(crate) outputs: Vec<String>,
}

/// How requests may be computed together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BatchLimits {
    /// The most rows of a batch.
    pub(crate) rows: usize,
    /// How long the first request of a batch may wait for others.
    pub(crate) delay: Duration,
}

/// Compute threads that share an engine. They end when the pool is dropped.
pub(crate) struct ComputePool<R: Request> {
    queue: Queue<R>,
    metrics: Arc<Metrics>,
    /// Why there are no batches, though they were asked for: what is so from the start.
    obstacle: Option<String>,
}

enum Queue<R: Request> {
    Single(SyncSender<Unread<R>>),
    Batching(Arc<Batching<R>>),
}

/// A request as it came.
struct Unread<R: Request> {
    request: R,
    answer: oneshot::Sender<R::Answer>,
    arrived: Instant,
}

/// As many requests wait as may.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct QueueFull;

impl<R: Request> ComputePool<R> {
    /// Requests are batched if `limits` are given, and the model's signature has nothing against it.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub(crate) fn start(
        engine: &Arc<dyn Engine>,
        threads: usize,
        places: usize,
        limits: Option<BatchLimits>,
        metrics: &Arc<Metrics>,
    ) -> io::Result<Self> {
        let obstacle = limits.and_then(|_| batch::obstacle(engine.signature()));
        if let Some(obstacle) = &obstacle {
            tracing::warn!("requests are not batched: {obstacle}");
        }
        // Batches of one row are none.
        let limits = limits.filter(|limits| obstacle.is_none() && limits.rows > 1);
        let queue = if let Some(limits) = limits {
            let batching = Arc::new(Batching::new(threads, places, limits, metrics.clone()));
            spawn(threads, || {
                let (engine, batching) = (engine.clone(), batching.clone());
                move || engine.enter(&mut || batching.work(&*engine))
            })?;
            Queue::Batching(batching)
        } else {
            let (queue, unread) = sync_channel(places);
            let unread = Arc::new(Mutex::new(unread));
            spawn(threads, || {
                let (engine, unread, metrics) = (engine.clone(), unread.clone(), metrics.clone());
                move || engine.enter(&mut || compute(&*engine, &unread, &metrics))
            })?;
            Queue::Single(queue)
        };
        Ok(Self { queue, metrics: metrics.clone(), obstacle })
    }

    /// Has `request` computed by a compute thread. The receiver gets nothing if that panics; a request is not computed if
    /// the receiver is dropped before its turn.
    ///
    /// # Errors
    /// If the queue is full.
    pub(crate) fn submit(&self, request: R) -> Result<oneshot::Receiver<R::Answer>, QueueFull> {
        let (answer, receiver) = oneshot::channel();
        let unread = Unread { request, answer, arrived: Instant::now() };
        match &self.queue {
            Queue::Batching(batching) => batching.submit(unread)?,
            Queue::Single(queue) => {
                self.metrics.queued.inc();
                if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = queue.try_send(unread) {
                    self.metrics.queued.dec();
                    return Err(QueueFull);
                }
            }
        }
        Ok(receiver)
    }

    /// How requests are batched, if they are, or why they are not, though that was asked for.
    pub(crate) fn batching(&self) -> Option<Result<BatchLimits, &str>> {
        match (&self.queue, &self.obstacle) {
            (Queue::Batching(batching), _) => Some(batching.state()),
            (Queue::Single(_), Some(obstacle)) => Some(Err(obstacle)),
            (Queue::Single(_), None) => None,
        }
    }
}

impl<R: Request> Drop for ComputePool<R> {
    fn drop(&mut self) {
        if let Queue::Batching(batching) = &self.queue {
            batching.close();
        }
    }
}

fn spawn<F: FnOnce() + Send + 'static>(threads: usize, mut work: impl FnMut() -> F) -> io::Result<()> {
    for number in 0..threads {
        thread::Builder::new().name(format!("compute-{number}")).spawn(work())?;
    }
    Ok(())
}

/// Computes one request after the other.
fn compute<R: Request>(engine: &dyn Engine, queue: &Mutex<Receiver<Unread<R>>>, metrics: &Metrics) {
    loop {
        let unread = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Unread { request, answer, arrived }) = unread else { return };
        metrics.queued.dec();
        if answer.is_closed() {
            continue;
        }
        metrics.queue_time.observe(arrived.elapsed().as_secs_f64());
        metrics.busy.inc();
        unless_panic(|| {
            let answered = match request.read(engine) {
                Ok((call, reply)) => R::write(reply, infer(engine, call, metrics)),
                Err(refusal) => refusal,
            };
            answer.send(answered).ok();
        });
        metrics.busy.dec();
    }
}

fn infer(engine: &dyn Engine, call: Call, metrics: &Metrics) -> Result<Vec<Tensor>, InferError> {
    let begun = Instant::now();
    let result = engine.infer(call.inputs, &call.outputs);
    metrics.inference.observe(begun.elapsed().as_secs_f64());
    result
}

/// What panics costs its request the answer, and no thread.
fn unless_panic<T>(work: impl FnOnce() -> T) -> Option<T> {
    let done = catch_unwind(AssertUnwindSafe(work));
    done.inspect_err(|_| tracing::error!("a request made its compute thread panic")).ok()
}
