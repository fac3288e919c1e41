//! Computing requests together: threads that read, join, compute, split and answer.
//!
//! Whatever goes wrong with a batch, each of its requests is then computed by itself, so that one bad request fails
//! alone. Only a panic costs all of them their answers.

use std::time::Instant;

use modelyard_core::{Signature, TensorSpec};
use modelyard_engine::fit;
use modelyard_protocol::Tensor;

use super::lane::Model;
use super::queue::Asked;
use super::{Call, Request, Shared, Unanswered, Unread, unless_panic};

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

/// A request that does not fit the model is answered here, and joins nobody.
pub(super) fn read<R: Request>(shared: &Shared<R>, lane: usize, model: &Model, unread: Unread<R>) {
    let Unread { request, answer, arrived, deadline } = unread;
    let engine = &*model.engine;
    let read = unless_panic(|| {
        let (Call { inputs, outputs, deadline }, reply) = request.read(engine)?;
        match fit(engine.signature(), inputs, &outputs) {
            Ok(inputs) => Ok((Call { inputs, outputs, deadline }, reply)),
            Err(error) => Err(R::write(reply, Err(Unanswered::Engine(error)))),
        }
    });
    let mut hall = shared.lock();
    match read {
        Some(Ok((call, reply))) => {
            let deadline = [deadline, call.deadline].into_iter().flatten().min();
            let asked = Asked { call, reply, answer, arrived, deadline };
            hall.batching(lane, |queue| queue.join(asked));
        }
        Some(Err(refusal)) => {
            hall.batching(lane, |queue| queue.refused(Instant::now()));
            drop(hall);
            answer.send(refusal).ok();
        }
        None => drop(hall.batching(lane, |queue| queue.refused(Instant::now()))),
    }
}

pub(super) fn compute<R: Request>(shared: &Shared<R>, lane: usize, model: &Model, batch: Vec<Asked<R>>) {
    // What it had not told of by then, it does when it is dropped.
    let mut in_hand = InHand { shared, lane, count: batch.len() };
    unless_panic(|| together(shared, model, batch, &mut in_hand));
}

fn together<R: Request>(shared: &Shared<R>, model: &Model, batch: Vec<Asked<R>>, in_hand: &mut InHand<'_, R>) {
    let rows: Vec<usize> = batch.iter().map(|asked| asked.rows().unwrap_or(0)).collect();
    let total: usize = rows.iter().sum();
    #[expect(clippy::cast_precision_loss, reason = "no batch has 2^52 rows")]
    shared.metrics.batch_rows.observe(total as f64);
    let begun = Instant::now();
    for asked in &batch {
        shared.metrics.queue_time.observe((begun - asked.arrived).as_secs_f64());
    }
    let [first, _, ..] = &*batch else { return singly(shared, model, batch, in_hand) };
    let outputs = first.call.outputs.clone();
    let inputs = (0..first.call.inputs.len()).map(|at| Tensor::join(batch.iter().map(|a| &a.call.inputs[at])));
    let Some(inputs) = inputs.collect() else { return singly(shared, model, batch, in_hand) };
    match shared.infer(model, Call { inputs, outputs, deadline: None }) {
        Ok(outputs) => match split(outputs, &rows) {
            Ok(parts) => {
                in_hand.answered(batch.len());
                batch.into_iter().zip(parts).for_each(|(asked, outputs)| answer(asked, Ok(outputs)));
            }
            Err(reason) => {
                in_hand.switch_off(model, reason);
                singly(shared, model, batch, in_hand);
            }
        },
        Err(error) => {
            tracing::debug!(requests = batch.len(), "a batch failed, and its requests go one by one: {error}");
            singly(shared, model, batch, in_hand);
        }
    }
}

fn singly<R: Request>(shared: &Shared<R>, model: &Model, batch: Vec<Asked<R>>, in_hand: &mut InHand<'_, R>) {
    for mut asked in batch {
        let is_gone = asked.answer.is_closed();
        let call = Call {
            inputs: std::mem::take(&mut asked.call.inputs),
            outputs: std::mem::take(&mut asked.call.outputs),
            deadline: None,
        };
        let result = if is_gone { None } else { unless_panic(|| shared.infer(model, call)) };
        in_hand.answered(1);
        if let Some(result) = result {
            answer(asked, result.map_err(Unanswered::Engine));
        }
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

pub(super) fn answer<R: Request>(asked: Asked<R>, result: Result<Vec<Tensor>, Unanswered>) {
    unless_panic(|| asked.answer.send(R::write(asked.reply, result)).ok());
}

/// Requests that a thread has, and that are in flight until it says otherwise.
struct InHand<'a, R: Request> {
    shared: &'a Shared<R>,
    lane: usize,
    count: usize,
}

impl<R: Request> InHand<'_, R> {
    fn answered(&mut self, count: usize) {
        self.count -= count;
        self.shared.lock().batching(self.lane, |queue| queue.answered(count, Instant::now()));
    }

    /// For good: a model that once does not batch is not tried again.
    fn switch_off(&self, model: &Model, reason: String) {
        tracing::warn!("requests are not batched any more: {reason}");
        model.off.set(reason).ok();
        self.shared.lock().batching(self.lane, super::queue::State::switch_off);
    }
}

impl<R: Request> Drop for InHand<'_, R> {
    fn drop(&mut self) {
        if self.count > 0 {
            self.answered(self.count);
        }
    }
}
