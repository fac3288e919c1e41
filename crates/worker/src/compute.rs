//! The threads that compute, apart from those that serve connections: inference on the latter would starve them.
//!
//! The queue before them is short and bounded: what does not fit is refused at once, since a client can try elsewhere
//! better than wait here. A request whose client has left is not computed.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use modelyard_engine::Engine;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::oneshot;

use crate::metrics::Metrics;

type Job = Box<dyn FnOnce(&dyn Engine) + Send>;

/// Compute threads that share an engine. They end when the pool is dropped.
pub(crate) struct ComputePool {
    queue: SyncSender<Job>,
    queued: Gauge,
}

/// As many requests wait as may.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct QueueFull;

impl ComputePool {
    /// # Errors
    /// If a thread cannot be started.
    pub(crate) fn start(engine: Arc<dyn Engine>, threads: usize, places: usize, metrics: &Metrics) -> io::Result<Self> {
        let queued = metrics.queued.clone();
        let (queue, jobs) = sync_channel(places);
        let jobs = Arc::new(Mutex::new(jobs));
        for number in 0..threads {
            let (engine, jobs) = (engine.clone(), jobs.clone());
            let (queued, busy) = (queued.clone(), metrics.busy.clone());
            let work = move || engine.enter(&mut || compute(&*engine, &jobs, &queued, &busy));
            thread::Builder::new().name(format!("compute-{number}")).spawn(work)?;
        }
        Ok(Self { queue, queued })
    }

    /// Has `work` done by a compute thread. The receiver gets nothing if `work` panics; `work` is not done if the
    /// receiver is dropped before its turn.
    ///
    /// # Errors
    /// If the queue is full.
    pub(crate) fn submit<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Engine) -> T + Send + 'static,
    ) -> Result<oneshot::Receiver<T>, QueueFull> {
        let (answer, receiver) = oneshot::channel();
        let job = move |engine: &dyn Engine| {
            if !answer.is_closed() {
                answer.send(work(engine)).ok();
            }
        };
        self.queued.inc();
        match self.queue.try_send(Box::new(job)) {
            Ok(()) => Ok(receiver),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.queued.dec();
                Err(QueueFull)
            }
        }
    }
}

fn compute(engine: &dyn Engine, jobs: &Mutex<Receiver<Job>>, queued: &Gauge, busy: &Gauge) {
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        queued.dec();
        busy.inc();
        if catch_unwind(AssertUnwindSafe(|| job(engine))).is_err() {
            tracing::error!("a request made its compute thread panic");
        }
        busy.dec();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use modelyard_core::Signature;
    use modelyard_engine::InferError;
    use modelyard_protocol::Tensor;

    use super::*;

    struct NoEngine(Signature);

    impl Engine for NoEngine {
        fn signature(&self) -> &Signature {
            &self.0
        }
        fn name(&self) -> &'static str {
            "none"
        }
        fn infer(&self, _: Vec<Tensor>, _: &[String]) -> Result<Vec<Tensor>, InferError> {
            Ok(Vec::new())
        }
    }

    fn pool(places: usize) -> (ComputePool, Gauge) {
        let metrics = Metrics::new();
        let engine = Arc::new(NoEngine(Signature::default()));
        (ComputePool::start(engine, 1, places, &metrics).unwrap(), metrics.queued)
    }

    /// Keeps the one thread busy until the sender is dropped or sends.
    fn occupy(pool: &ComputePool) -> (mpsc::Sender<()>, oneshot::Receiver<()>) {
        let (release, released) = mpsc::channel();
        let (started, has_started) = mpsc::channel();
        let done = pool.submit(move |_| {
            started.send(()).unwrap();
            released.recv().ok();
        });
        has_started.recv().unwrap();
        (release, done.unwrap())
    }

    #[test]
    fn a_full_queue_refuses_at_once() {
        let (pool, queued) = pool(1);
        let (release, _first) = occupy(&pool);
        let second = pool.submit(|_| 2).unwrap();
        assert_eq!(queued.get(), 1);
        assert_eq!(pool.submit(|_| 3).unwrap_err(), QueueFull);
        drop(release);
        assert_eq!(second.blocking_recv(), Ok(2));
        assert_eq!(queued.get(), 0);
    }

    #[test]
    fn a_request_whose_client_left_is_not_computed() {
        let (pool, _) = pool(2);
        let (release, _first) = occupy(&pool);
        let (computed, was_computed) = mpsc::channel();
        drop(pool.submit(move |_| computed.send(()).unwrap()).unwrap());
        let last = pool.submit(|_| ()).unwrap();
        drop(release);
        last.blocking_recv().unwrap();
        assert_eq!(was_computed.try_recv(), Err(mpsc::TryRecvError::Disconnected));
    }

    #[test]
    fn a_panic_costs_one_answer_and_no_thread() {
        let (pool, _) = pool(2);
        let broken = pool.submit(|_| panic!("on purpose")).unwrap();
        assert!(broken.blocking_recv().is_err());
        assert_eq!(pool.submit(|engine| engine.name()).unwrap().blocking_recv(), Ok("none"));
    }
}
