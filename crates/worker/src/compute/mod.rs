//! The threads that compute, apart from those that serve connections: inference on the latter would starve them.
//!
//! All models of a worker share them. Each has a queue of its own, short and bounded in number and in time: what would
//! wait for too long is refused at once, since a client can try elsewhere better than wait here (`lane`). Threads turn
//! to the models by the time that each has had (`hall`), so a model that is asked for much does not keep the others
//! waiting. A request whose client has left, or whose time is over, is not computed. Where batching is asked for and
//! the model has it, requests are computed together (`batch`, `queue`); else each by itself, in order of arrival.

mod batch;
mod hall;
mod lane;
mod queue;
#[cfg(test)]
mod tests;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use modelyard_engine::{Engine, InferError, in_engines_pool};
use modelyard_protocol::Tensor;
use tokio::sync::oneshot;

use crate::metrics::Metrics;
use hall::{Done, Due, Hall, Job, Work};
pub(crate) use lane::{Lane, LaneOptions, Overloaded, QueueLimits};

/// The nice value of compute threads. Where cores are short, connections are served first: a request that is not received
/// yet can be neither refused nor queued, and its deadline passes unseen.
const BEHIND_CONNECTIONS: i32 = 5;

/// A request in three steps, of which the one in the middle is the engine's. All are done by compute threads: reading
/// and writing JSON is computing too.
pub(crate) trait Request: Send + 'static {
    /// What is left of it while the engine has its tensors.
    type Reply: Send + 'static;
    type Answer: Send + 'static;

    /// What the engine is asked, or why it is not.
    fn read(self, engine: &dyn Engine) -> Result<(Call, Self::Reply), Self::Answer>;

    fn write(reply: Self::Reply, result: Result<Vec<Tensor>, Unanswered>) -> Self::Answer;
}

/// What an engine is asked.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) inputs: Vec<Tensor>,
    /// The names of those wanted; all if it is empty.
    pub(crate) outputs: Vec<String>,
    /// When nobody waits for the answer any more, where the body of the request says so.
    pub(crate) deadline: Option<Instant>,
}

/// Why a request that was read has no outputs.
#[derive(Debug)]
pub(crate) enum Unanswered {
    Engine(InferError),
    /// Its deadline passed before its turn.
    Late,
}

/// How requests may be computed together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BatchLimits {
    /// The most rows of a batch.
    pub(crate) rows: usize,
    /// How long the first request of a batch may wait for others.
    pub(crate) delay: Duration,
}

/// Compute threads that models share. They end when the pool and all lanes to it are dropped.
pub(crate) struct ComputePool<R: Request>(Arc<Owned<R>>);

/// Ends the threads when it is dropped.
struct Owned<R: Request>(Arc<Shared<R>>);

/// What threads and those who submit share.
struct Shared<R: Request> {
    threads: usize,
    metrics: Arc<Metrics>,
    hall: Mutex<Hall<R>>,
    changed: Condvar,
}

/// A request as it came.
struct Unread<R: Request> {
    request: R,
    answer: oneshot::Sender<R::Answer>,
    arrived: Instant,
    deadline: Option<Instant>,
}

impl<R: Request> Unread<R> {
    /// Nobody waits for it any more.
    fn is_gone(&self, now: Instant) -> bool {
        self.answer.is_closed() || is_past(self.deadline, now)
    }
}

fn is_past(deadline: Option<Instant>, now: Instant) -> bool {
    deadline.is_some_and(|deadline| deadline <= now)
}

impl<R: Request> ComputePool<R> {
    /// # Errors
    /// If a thread cannot be started.
    pub(crate) fn start(threads: usize, metrics: &Arc<Metrics>) -> io::Result<Self> {
        let hall = Mutex::new(Hall::new(threads));
        let shared = Arc::new(Shared { threads, metrics: metrics.clone(), hall, changed: Condvar::new() });
        for number in 0..threads {
            let shared = shared.clone();
            let work = move || {
                in_engines_pool(&mut || {
                    // Of this thread alone, and no harm if it is not granted.
                    rustix::process::setpriority_process(None, BEHIND_CONNECTIONS).ok();
                    shared.work();
                });
            };
            thread::Builder::new().name(format!("compute-{number}")).spawn(work)?;
        }
        Ok(Self(Arc::new(Owned(shared))))
    }
}

impl<R: Request> Drop for Owned<R> {
    fn drop(&mut self) {
        self.0.lock().close();
        self.0.changed.notify_all();
    }
}

impl<R: Request> Shared<R> {
    fn lock(&self) -> MutexGuard<'_, Hall<R>> {
        self.hall.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells a thread that waits, if one does, that there may be something to do.
    fn wake(&self, hall: MutexGuard<'_, Hall<R>>) {
        self.metrics.queued.set(i64::try_from(hall.waiting()).unwrap_or(i64::MAX));
        let is_heard = hall.idle > 0;
        drop(hall);
        if is_heard {
            self.changed.notify_one();
        }
    }

    /// What each thread does until the end.
    fn work(&self) {
        let mut done = None;
        while let Some(job) = self.next(done.take()) {
            let (lane, requests, charged, begun) = (job.lane, job.requests(), job.charged, Instant::now());
            self.metrics.busy.inc();
            self.run(job);
            self.metrics.busy.dec();
            done = Some(Done { lane, requests, charged, spent: begun.elapsed() });
        }
    }

    /// Waits for something to do.
    fn next(&self, done: Option<Done>) -> Option<Job<R>> {
        let mut hall = self.lock();
        if let Some(done) = done {
            hall.finished(&done);
        }
        loop {
            match hall.next(Instant::now()) {
                Due::Now(job) => {
                    // Another thread, if one is free, must mind what still waits while this one is busy.
                    if hall.waiting() > 0 && hall.watching == 0 {
                        self.wake(hall);
                    } else {
                        self.metrics.queued.set(i64::try_from(hall.waiting()).unwrap_or(i64::MAX));
                    }
                    return Some(job);
                }
                Due::Wait(limit) => {
                    self.metrics.queued.set(i64::try_from(hall.waiting()).unwrap_or(i64::MAX));
                    hall.idle += 1;
                    hall = match limit {
                        None => self.changed.wait(hall).unwrap_or_else(PoisonError::into_inner),
                        Some(limit) => {
                            hall.watching += 1;
                            let mut woken =
                                self.changed.wait_timeout(hall, limit).unwrap_or_else(PoisonError::into_inner).0;
                            woken.watching -= 1;
                            woken
                        }
                    };
                    hall.idle -= 1;
                }
                Due::End => {
                    // The others, too.
                    self.changed.notify_all();
                    return None;
                }
            }
        }
    }

    fn run(&self, job: Job<R>) {
        let Job { lane, model, work, .. } = job;
        match work {
            Work::Whole(unread) => {
                unless_panic(|| self.compute(&model, unread));
            }
            Work::Read(unread) => batch::read(self, lane, &model, unread),
            Work::Batch(batch) => batch::compute(self, lane, &model, batch),
            Work::Late(late) => {
                late.into_iter().for_each(|asked| batch::answer(asked, Err(Unanswered::Late)));
            }
        }
    }

    fn compute(&self, model: &lane::Model, unread: Unread<R>) {
        let Unread { request, answer, arrived, .. } = unread;
        self.metrics.queue_time.observe(arrived.elapsed().as_secs_f64());
        let answered = match request.read(&*model.engine) {
            Ok((call, reply)) if call.deadline.is_some_and(|deadline| deadline <= Instant::now()) => {
                R::write(reply, Err(Unanswered::Late))
            }
            Ok((call, reply)) => R::write(reply, self.infer(model, call).map_err(Unanswered::Engine)),
            Err(refusal) => refusal,
        };
        answer.send(answered).ok();
    }

    fn infer(&self, model: &lane::Model, call: Call) -> Result<Vec<Tensor>, InferError> {
        let begun = Instant::now();
        let result = model.engine.infer(call.inputs, &call.outputs);
        let spent = begun.elapsed().as_secs_f64();
        self.metrics.inference.observe(spent);
        if let Some(histogram) = &model.inference {
            histogram.observe(spent);
        }
        result
    }
}

/// What panics costs its request the answer, and no thread.
fn unless_panic<T>(work: impl FnOnce() -> T) -> Option<T> {
    let done = catch_unwind(AssertUnwindSafe(work));
    done.inspect_err(|_| tracing::error!("a request made its compute thread panic")).ok()
}
