//! Computing requests together: threads that read, join, compute, split and answer.
//!
//! Whatever goes wrong with a batch, each of its requests is then computed by itself, so that one bad request fails
//! alone. Only a panic costs all of them their answers.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use modelyard_core::{Signature, TensorSpec};
use modelyard_engine::{Engine, InferError, fit};
use modelyard_protocol::Tensor;

use super::queue::{Asked, Next, State};
use super::{BatchLimits, Call, QueueFull, Request, Unread, infer, unless_panic};
use crate::metrics::Metrics;

/// What threads and those who submit share.
pub(super) struct Batching<R: Request> {
    limits: BatchLimits,
    metrics: Arc<Metrics>,
    state: Mutex<Guarded<R>>,
    changed: Condvar,
    /// Why it was switched off.
    off: OnceLock<String>,
}

struct Guarded<R: Request> {
    queue: State<R>,
    /// Threads that look again when the next batch is late.
    watching: usize,
}

/// Why requests for a model of this signature cannot be joined, if so.
pub(super) fn obstacle(signature: &Signature) -> Option<String> {
    let is_fixed = |spec: &&TensorSpec| spec.shape.first().is_none_or(|rows| *rows >= 0);
    let tell = |kind: &str, spec: &TensorSpec| {
        format!("the first dimension of {kind} `{}` {:?} is not a free one (-1)", spec.name, spec.shape)
    };
    if signature.inputs.is_empty() {
        return Some("the model takes no inputs".into());
    }
    let input = signature.inputs.iter().find(is_fixed).map(|spec| tell("input", spec));
    input.or_else(|| signature.outputs.iter().find(is_fixed).map(|spec| tell("output", spec)))
}

impl<R: Request> Batching<R> {
    pub(super) fn new(threads: usize, places: usize, limits: BatchLimits, metrics: Arc<Metrics>) -> Self {
        let state = Guarded { queue: State::new(threads, places, limits, Instant::now()), watching: 0 };
        Self { limits, metrics, state: Mutex::new(state), changed: Condvar::new(), off: OnceLock::new() }
    }

    pub(super) fn state(&self) -> Result<BatchLimits, &str> {
        self.off.get().map_or(Ok(self.limits), |reason| Err(reason))
    }

    pub(super) fn submit(&self, unread: Unread<R>) -> Result<(), QueueFull> {
        let mut state = self.lock();
        state.queue.submit(unread)?;
        self.count(&state);
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    pub(super) fn close(&self) {
        self.lock().queue.close();
        self.changed.notify_all();
    }

    /// What each thread does until the end.
    pub(super) fn work(&self, engine: &dyn Engine) {
        loop {
            match self.next() {
                Next::Read(unread) => self.read(engine, unread),
                Next::Compute(batch) => {
                    self.metrics.busy.inc();
                    // What it had not told of by then, it does when it is dropped.
                    let mut in_hand = InHand { batching: self, count: batch.len() };
                    unless_panic(|| self.compute(engine, batch, &mut in_hand));
                    self.metrics.busy.dec();
                }
                Next::Wait(_) => {}
                Next::End => return,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Guarded<R>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, state: &Guarded<R>) {
        self.metrics.queued.set(i64::try_from(state.queue.waiting()).unwrap_or(i64::MAX));
    }

    /// Waits for something to do, or for a reason to ask again.
    fn next(&self) -> Next<R> {
        let mut state = self.lock();
        let next = state.queue.next(Instant::now());
        self.count(&state);
        match &next {
            Next::Wait(None) => drop(self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)),
            Next::Wait(Some(limit)) => {
                state.watching += 1;
                let mut woken = self.changed.wait_timeout(state, *limit).unwrap_or_else(PoisonError::into_inner);
                woken.0.watching -= 1;
            }
            // Another thread, if one is free, must mind what still waits while this one is busy.
            Next::Read(_) | Next::Compute(_) if state.queue.waiting() > 0 && state.watching == 0 => {
                drop(state);
                self.changed.notify_one();
            }
            Next::Read(_) | Next::Compute(_) | Next::End => {}
        }
        next
    }

    /// A request that does not fit the model is answered here, and joins nobody.
    fn read(&self, engine: &dyn Engine, unread: Unread<R>) {
        let Unread { request, answer, arrived } = unread;
        self.metrics.busy.inc();
        let read = unless_panic(|| {
            let (Call { inputs, outputs }, reply) = request.read(engine)?;
            match fit(engine.signature(), inputs, &outputs) {
                Ok(inputs) => Ok((Call { inputs, outputs }, reply)),
                Err(error) => Err(R::write(reply, Err(error))),
            }
        });
        self.metrics.busy.dec();
        match read {
            Some(Ok((call, reply))) => self.lock().queue.join(Asked { call, reply, answer, arrived }),
            Some(Err(refusal)) => {
                self.lock().queue.refused(Instant::now());
                answer.send(refusal).ok();
            }
            None => self.lock().queue.refused(Instant::now()),
        }
    }

    fn compute(&self, engine: &dyn Engine, batch: Vec<Asked<R>>, in_hand: &mut InHand<'_, R>) {
        let rows: Vec<usize> = batch.iter().map(|asked| asked.rows().unwrap_or(0)).collect();
        let total: usize = rows.iter().sum();
        #[expect(clippy::cast_precision_loss, reason = "no batch has 2^52 rows")]
        self.metrics.batch_rows.observe(total as f64);
        let begun = Instant::now();
        for asked in &batch {
            self.metrics.queue_time.observe((begun - asked.arrived).as_secs_f64());
        }
        match &*batch {
            [] | [_] => self.compute_singly(engine, batch, in_hand),
            [first, ..] => {
                let outputs = first.call.outputs.clone();
                let inputs =
                    (0..first.call.inputs.len()).map(|at| Tensor::join(batch.iter().map(|a| &a.call.inputs[at])));
                let Some(inputs) = inputs.collect() else { return self.compute_singly(engine, batch, in_hand) };
                match infer(engine, Call { inputs, outputs }, &self.metrics) {
                    Ok(outputs) => match split(outputs, &rows) {
                        Ok(parts) => {
                            in_hand.answered(batch.len());
                            batch.into_iter().zip(parts).for_each(|(asked, outputs)| answer(asked, Ok(outputs)));
                        }
                        Err(reason) => {
                            self.switch_off(reason);
                            self.compute_singly(engine, batch, in_hand);
                        }
                    },
                    Err(error) => {
                        tracing::debug!(
                            requests = batch.len(),
                            "a batch failed, and its requests go one by one: {error}"
                        );
                        self.compute_singly(engine, batch, in_hand);
                    }
                }
            }
        }
    }

    fn compute_singly(&self, engine: &dyn Engine, batch: Vec<Asked<R>>, in_hand: &mut InHand<'_, R>) {
        for mut asked in batch {
            let is_gone = asked.answer.is_closed();
            let inputs = std::mem::take(&mut asked.call.inputs);
            let call = Call { inputs, outputs: std::mem::take(&mut asked.call.outputs) };
            let result = if is_gone { None } else { unless_panic(|| infer(engine, call, &self.metrics)) };
            in_hand.answered(1);
            if let Some(result) = result {
                answer(asked, result);
            }
        }
    }

    /// For good: a model that once does not batch is not tried again.
    fn switch_off(&self, reason: String) {
        tracing::warn!("requests are not batched any more: {reason}");
        self.off.set(reason).ok();
        self.lock().queue.switch_off();
    }
}

/// What of the outputs belongs to requests of so many rows each.
fn split(outputs: Vec<Tensor>, rows: &[usize]) -> Result<Vec<Vec<Tensor>>, String> {
    let mut parts: Vec<Vec<Tensor>> = rows.iter().map(|_| Vec::with_capacity(outputs.len())).collect();
    for output in outputs {
        let (name, shape) = (output.name.clone(), output.shape.clone());
        let of_all = output.split(rows).ok_or_else(|| {
            let total: usize = rows.iter().sum();
            format!("output `{name}` had shape {shape:?} for {total} rows of input")
        })?;
        parts.iter_mut().zip(of_all).for_each(|(part, output)| part.push(output));
    }
    Ok(parts)
}

fn answer<R: Request>(asked: Asked<R>, result: Result<Vec<Tensor>, InferError>) {
    unless_panic(|| asked.answer.send(R::write(asked.reply, result)).ok());
}

/// Requests that a thread has, and that are in flight until it says otherwise.
struct InHand<'a, R: Request> {
    batching: &'a Batching<R>,
    count: usize,
}

impl<R: Request> InHand<'_, R> {
    fn answered(&mut self, count: usize) {
        self.count -= count;
        self.batching.lock().queue.answered(count, Instant::now());
    }
}

impl<R: Request> Drop for InHand<'_, R> {
    fn drop(&mut self) {
        if self.count > 0 {
            self.answered(self.count);
        }
    }
}
