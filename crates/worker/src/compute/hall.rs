//! Where requests of all models wait, and whose turn it is. No threads and no clock of its own.
//!
//! The turn is of the model that has had least time of the threads (start-time fair queueing: Goyal, Vin, Cheng, 1996).
//! A model that comes back after a pause begins where the others are: it can save up nothing.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::lane::Model;
use super::queue::{Asked, Next, State};
use super::{Overloaded, Request, Unread};

/// How much of what a request took counts in the estimate: one in so many.
const SMOOTHING: u64 = 8;

pub(super) struct Hall<R: Request> {
    threads: usize,
    /// By the ids that models have here.
    lanes: Vec<Option<Place<R>>>,
    /// Those for which something waits, in no order.
    active: Vec<usize>,
    /// Of all models together.
    waiting: usize,
    /// How much time the model had whose turn it was last.
    clock: u64,
    /// Threads that wait for something to do.
    pub(super) idle: usize,
    /// Those of them that look again when a batch is late.
    pub(super) watching: usize,
    is_closed: bool,
}

/// A model's place.
struct Place<R: Request> {
    model: Arc<Model>,
    queue: Waiting<R>,
    /// The time that it had of the threads, in nanoseconds.
    used: u64,
    /// What reading took for requests that were not computed yet.
    unpriced: u64,
    /// Jobs that threads have.
    jobs: usize,
    is_active: bool,
    is_closed: bool,
}

enum Waiting<R: Request> {
    Single(VecDeque<Unread<R>>),
    Batching(State<R>),
}

pub(super) enum Work<R: Request> {
    /// To be read, computed and answered.
    Whole(Unread<R>),
    /// To be read for a batch.
    Read(Unread<R>),
    Batch(Vec<Asked<R>>),
    /// Whose deadlines have passed.
    Late(Vec<Asked<R>>),
}

/// Something for a thread to do.
pub(super) struct Job<R: Request> {
    pub(super) lane: usize,
    pub(super) model: Arc<Model>,
    pub(super) work: Work<R>,
    /// What it is expected to take, which its model is charged in advance.
    pub(super) charged: u64,
}

/// A job is done.
pub(super) struct Done {
    pub(super) lane: usize,
    pub(super) requests: usize,
    pub(super) charged: u64,
    pub(super) spent: Duration,
}

pub(super) enum Due<R: Request> {
    Now(Job<R>),
    /// For as long, unless something happens; if nothing waits, without limit.
    Wait(Option<Duration>),
    End,
}

impl<R: Request> Job<R> {
    /// How many it computes.
    pub(super) fn requests(&self) -> usize {
        match &self.work {
            Work::Whole(_) => 1,
            Work::Batch(batch) => batch.len(),
            Work::Read(_) | Work::Late(_) => 0,
        }
    }
}

impl<R: Request> Hall<R> {
    pub(super) fn new(threads: usize) -> Self {
        let (lanes, active) = (Vec::new(), Vec::new());
        Self { threads, lanes, active, waiting: 0, clock: 0, idle: 0, watching: 0, is_closed: false }
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    pub(super) fn open(&mut self, model: &Arc<Model>, now: Instant) -> usize {
        let queue = match model.batch {
            Some(limits) => Waiting::Batching(State::new(self.threads, limits, now)),
            None => Waiting::Single(VecDeque::new()),
        };
        let (used, model) = (self.clock, model.clone());
        let place = Place { model, queue, used, unpriced: 0, jobs: 0, is_active: false, is_closed: false };
        match self.lanes.iter().position(Option::is_none) {
            Some(id) => {
                self.lanes[id] = Some(place);
                id
            }
            None => {
                self.lanes.push(Some(place));
                self.lanes.len() - 1
            }
        }
    }

    pub(super) fn submit(&mut self, id: usize, unread: Unread<R>) -> Result<(), Overloaded> {
        let ahead = self.ahead_of(id);
        let threads = self.threads;
        self.change(id, |place| {
            place.model.admits(place.queue.len(), ahead, threads, unread.arrived, unread.deadline)?;
            match &mut place.queue {
                Waiting::Single(queue) => queue.push_back(unread),
                Waiting::Batching(state) => state.submit(unread),
            }
            Ok(())
        })
        .unwrap_or(Err(Overloaded::Full))
    }

    /// What threads will be busy with before a request that joins this model's queue now, in nanoseconds: what waits
    /// there, and of each other model's at most as much.
    fn ahead_of(&self, id: usize) -> u64 {
        let backlog = |id: usize| {
            let place = self.lanes.get(id).and_then(Option::as_ref);
            place.map_or(0, |place| place.model.cost().saturating_mul(place.queue.len() as u64))
        };
        let own = backlog(id);
        if own == 0 {
            return 0;
        }
        let others = self.active.iter().filter(|other| **other != id).map(|other| backlog(*other).min(own));
        others.fold(own, u64::saturating_add)
    }

    /// To be asked with what a thread has done: it is charged, and teaches what requests take.
    pub(super) fn finished(&mut self, done: &Done) {
        let spent = u64::try_from(done.spent.as_nanos()).unwrap_or(u64::MAX);
        self.change(done.lane, |place| {
            place.jobs -= 1;
            place.used = place.used.saturating_add(spent).saturating_sub(done.charged);
            place.unpriced += spent;
            if done.requests > 0 {
                let sample = std::mem::take(&mut place.unpriced) / done.requests as u64;
                let before = place.model.cost();
                let cost = if before == 0 { sample } else { before - before / SMOOTHING + sample / SMOOTHING };
                place.model.cost.store(cost.max(1), Ordering::Relaxed);
            }
        });
        self.sweep(done.lane);
    }

    /// Does something with the queue that batches, if the model has one.
    pub(super) fn batching<T>(&mut self, id: usize, work: impl FnOnce(&mut State<R>) -> T) -> Option<T> {
        self.change(id, |place| match &mut place.queue {
            Waiting::Batching(state) => Some(work(state)),
            Waiting::Single(_) => None,
        })?
    }

    pub(super) fn close(&mut self) {
        self.is_closed = true;
    }

    pub(super) fn close_lane(&mut self, id: usize) {
        self.change(id, |place| {
            place.is_closed = true;
            if let Waiting::Batching(state) = &mut place.queue {
                state.close();
            }
        });
        self.sweep(id);
    }

    pub(super) fn next(&mut self, now: Instant) -> Due<R> {
        let (mut left, mut wait) = (self.active.len(), None::<Duration>);
        let used = |lanes: &[Option<Place<R>>], id: usize| lanes[id].as_ref().map_or(0, |place| place.used);
        while let Some(at) = (0..left).min_by_key(|at| used(&self.lanes, self.active[*at])) {
            let id = self.active[at];
            let before = used(&self.lanes, id);
            let found = self.change(id, |place| place.next(now));
            match found {
                Some(Found::Work(work)) => {
                    self.clock = self.clock.max(before);
                    if let Some(job) = self.charge(id, work) {
                        return Due::Now(job);
                    }
                }
                Some(Found::Wait(limit)) => {
                    wait = Some(wait.map_or(limit, |wait| wait.min(limit)));
                    left -= 1;
                    self.active.swap(at, left);
                }
                // Nothing waits there any more.
                Some(Found::Nothing) | None => {
                    left -= 1;
                    self.active.swap(at, left);
                    self.active.swap_remove(left);
                    if let Some(place) = &mut self.lanes[id] {
                        place.is_active = false;
                    }
                    self.sweep(id);
                }
            }
        }
        if self.is_closed && self.active.is_empty() { Due::End } else { Due::Wait(wait) }
    }

    fn charge(&mut self, id: usize, work: Work<R>) -> Option<Job<R>> {
        let place = self.lanes[id].as_mut()?;
        let mut job = Job { lane: id, model: place.model.clone(), work, charged: 0 };
        job.charged = place.model.cost().saturating_mul(job.requests() as u64);
        place.used = place.used.saturating_add(job.charged);
        place.jobs += 1;
        Some(job)
    }

    /// Counts what waits, before and after.
    fn change<T>(&mut self, id: usize, work: impl FnOnce(&mut Place<R>) -> T) -> Option<T> {
        let place = self.lanes.get_mut(id)?.as_mut()?;
        let before = place.queue.len();
        let done = work(place);
        let after = place.queue.len();
        self.waiting = self.waiting + after - before;
        place.model.waiting.store(after, Ordering::Relaxed);
        if after > 0 && !place.is_active {
            place.is_active = true;
            place.used = place.used.max(self.clock);
            self.active.push(id);
        }
        Some(done)
    }

    /// Gives the place of a model up that is gone and has nothing left to do.
    fn sweep(&mut self, id: usize) {
        let is_over = |place: &mut Place<R>| place.is_closed && place.jobs == 0 && !place.is_active;
        if let Some(place) = self.lanes.get_mut(id) {
            place.take_if(is_over);
        }
    }
}

enum Found<R: Request> {
    Work(Work<R>),
    Wait(Duration),
    Nothing,
}

impl<R: Request> Place<R> {
    fn next(&mut self, now: Instant) -> Found<R> {
        match &mut self.queue {
            Waiting::Single(queue) => {
                while let Some(unread) = queue.pop_front() {
                    if !unread.is_gone(now) {
                        return Found::Work(Work::Whole(unread));
                    }
                }
                Found::Nothing
            }
            Waiting::Batching(state) => match state.next(now) {
                Next::Read(unread) => Found::Work(Work::Read(unread)),
                Next::Compute(batch) => Found::Work(Work::Batch(batch)),
                Next::Late(late) => Found::Work(Work::Late(late)),
                Next::Wait(Some(limit)) => Found::Wait(limit),
                Next::Wait(None) => Found::Nothing,
            },
        }
    }
}

impl<R: Request> Waiting<R> {
    fn len(&self) -> usize {
        match self {
            Self::Single(queue) => queue.len(),
            Self::Batching(state) => state.waiting(),
        }
    }
}
