//! The requests that wait to be computed together, and what a thread that is free does next. No threads and no clock
//! of its own.
//!
//! Requests are read (parsed and checked) in order of arrival, and then wait in groups of those that can be one batch:
//! equal in all dimensions of their inputs but the first, and in the outputs they want.
//!
//! When a batch goes:
//! - Every request by itself and at once, as long as no more of them are in flight than there are threads: each has a
//!   thread, and joining would only make it wait (measured on rten: two clients of two threads, kept together, got little
//!   more than half as many answers).
//! - At once when it is full.
//! - Not while requests have yet to be read: they have come already, so reading them first is no waiting.
//! - Not full, when its oldest request has waited for `delay`, or when nobody is missing. Somebody is missing if another
//!   thread is reading a request at this moment, or if more requests were in flight at once, within the last `delay` or
//!   two, than are now: their clients have just been answered, and clients that ask without a pause ask again. So one
//!   client by itself never waits, nor do eight that are all here already, whatever `delay` is; a wait that pays ends
//!   when the missing have come. Once clients leave, those who stay wait `delay` for them once or twice.
//!
//! The longest wait decides between groups: a full one goes before an older one that may still wait for more, but not
//! before one that has waited for `delay`. So a rare shape is not starved by a frequent one.
//!
//! A request with a deadline spends no more than half of its time on waiting for others. One whose deadline has passed is
//! told so and joins nobody.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::{BatchLimits, Call, Request, Unread, is_past};

/// A request that is read.
pub(super) struct Asked<R: Request> {
    pub(super) call: Call,
    pub(super) reply: R::Reply,
    pub(super) answer: oneshot::Sender<R::Answer>,
    pub(super) arrived: Instant,
    pub(super) deadline: Option<Instant>,
}

impl<R: Request> Asked<R> {
    /// When it has waited for others long enough.
    fn go_by(&self, delay: Duration) -> Instant {
        let own = self.deadline.map(|deadline| deadline.saturating_duration_since(self.arrived) / 2);
        self.arrived + own.map_or(delay, |own| own.min(delay))
    }

    /// Its first dimension, if its inputs are of one mind about it.
    pub(super) fn rows(&self) -> Option<usize> {
        let mut rows = self.call.inputs.iter().map(modelyard_protocol::Tensor::rows);
        let first = rows.next()??;
        rows.all(|rows| rows == Some(first)).then_some(first)
    }

    fn can_join(&self, other: &Self) -> bool {
        let pairs = || self.call.inputs.iter().zip(&other.call.inputs);
        self.call.outputs == other.call.outputs
            && self.call.inputs.len() == other.call.inputs.len()
            && pairs()
                .all(|(a, b)| a.name == b.name && a.datatype() == b.datatype() && a.shape.get(1..) == b.shape.get(1..))
    }
}

/// Requests that can be one batch, in order of arrival; never empty.
struct Group<R: Request> {
    members: VecDeque<Asked<R>>,
    rows: usize,
    /// Its one member joins nobody: it is too large by itself, or says not how many rows it has.
    is_single: bool,
    /// When the first of its members has waited long enough.
    go_by: Instant,
}

/// What a thread does next.
pub(super) enum Next<R: Request> {
    Read(Unread<R>),
    /// At least one.
    Compute(Vec<Asked<R>>),
    /// Those whose deadlines have passed; at least one.
    Late(Vec<Asked<R>>),
    /// For as long, unless something happens; if nothing waits, without limit.
    Wait(Option<Duration>),
}

pub(super) struct State<R: Request> {
    limits: BatchLimits,
    threads: usize,
    unread: VecDeque<Unread<R>>,
    groups: Vec<Group<R>>,
    /// How many requests the groups have.
    read: usize,
    /// How many are being read.
    reading: usize,
    /// All that were submitted and not answered.
    in_flight: usize,
    peak: Peak,
    /// No deadline of a request in a group is earlier.
    earliest: Option<Instant>,
    /// The model turned out not to batch.
    is_off: bool,
    is_closed: bool,
}

impl<R: Request> State<R> {
    pub(super) fn new(threads: usize, limits: BatchLimits, now: Instant) -> Self {
        Self {
            limits,
            threads,
            unread: VecDeque::new(),
            groups: Vec::new(),
            read: 0,
            reading: 0,
            in_flight: 0,
            peak: Peak { window: limits.delay, begun: now, current: 0, before: 0 },
            earliest: None,
            is_off: false,
            is_closed: false,
        }
    }

    pub(super) fn submit(&mut self, unread: Unread<R>) {
        self.in_flight += 1;
        self.peak.look(self.in_flight, unread.arrived);
        self.unread.push_back(unread);
    }

    /// A request that [`Next::Read`] gave is read.
    pub(super) fn join(&mut self, asked: Asked<R>) {
        self.reading -= 1;
        self.read += 1;
        self.earliest = [self.earliest, asked.deadline].into_iter().flatten().min();
        let go_by = asked.go_by(self.limits.delay);
        let rows = asked.rows().filter(|rows| (1..=self.limits.rows).contains(rows));
        let fits = |group: &&mut Group<R>| !group.is_single && group.members[0].can_join(&asked);
        match (rows, self.groups.iter_mut().find(fits)) {
            (Some(rows), Some(group)) => {
                // Two threads may end reading in another order than they began.
                let at = group.members.partition_point(|member| member.arrived <= asked.arrived);
                group.members.insert(at, asked);
                group.rows += rows;
                group.go_by = group.go_by.min(go_by);
            }
            _ => {
                let (members, is_single) = ([asked].into(), rows.is_none());
                let group = Group { members, rows: rows.unwrap_or(0), is_single, go_by };
                self.groups.push(group);
            }
        }
    }

    /// A request that [`Next::Read`] gave has or gets its answer already.
    pub(super) fn refused(&mut self, now: Instant) {
        self.reading -= 1;
        self.answered(1, now);
    }

    /// To be said before clients learn of it: one that asks again at once must not meet its own request.
    pub(super) fn answered(&mut self, count: usize, now: Instant) {
        // They were in flight until now, however long nothing else happened.
        self.peak.look(self.in_flight, now);
        self.in_flight -= count;
    }

    pub(super) fn switch_off(&mut self) {
        self.is_off = true;
    }

    pub(super) fn close(&mut self) {
        self.is_closed = true;
    }

    pub(super) fn waiting(&self) -> usize {
        self.unread.len() + self.read
    }

    pub(super) fn next(&mut self, now: Instant) -> Next<R> {
        let late = if is_past(self.earliest, now) { self.sweep(now) } else { Vec::new() };
        if !late.is_empty() {
            return Next::Late(late);
        }
        loop {
            let at_once = self.peak.look(self.in_flight, now);
            let is_joining = !self.is_off && at_once > self.threads;
            let oldest = (0..self.groups.len()).min_by_key(|at| self.groups[*at].go_by);
            let go_by = oldest.map(|at| self.groups[at].go_by);
            let is_late = is_past(go_by, now);
            let full = (0..self.groups.len()).filter(|at| !is_joining || self.is_full(&self.groups[*at]));
            let full = full.min_by_key(|at| self.groups[*at].go_by);
            // So many at most are read while one is late.
            let reads_on = !is_late || self.read < self.limits.rows;
            let due = if full.is_some() {
                if is_late { oldest } else { full }
            } else if reads_on && let Some(unread) = self.unread.pop_front() {
                if unread.is_gone(now) {
                    self.answered(1, now);
                    continue;
                }
                self.reading += 1;
                return Next::Read(unread);
            } else {
                oldest.filter(|_| is_late || self.is_closed || !self.is_missing_some(at_once))
            };
            let Some(due) = due else {
                let until = [go_by, self.earliest].into_iter().flatten().min();
                return Next::Wait(go_by.and(until).map(|until| until.saturating_duration_since(now)));
            };
            let batch = self.take(due, if is_joining { self.limits.rows } else { 0 });
            if !batch.is_empty() {
                return Next::Compute(batch);
            }
        }
    }

    /// Takes those out whose deadlines have passed.
    fn sweep(&mut self, now: Instant) -> Vec<Asked<R>> {
        let (mut late, mut earliest) = (Vec::new(), None);
        for group in &mut self.groups {
            let members = std::mem::take(&mut group.members);
            for member in members {
                if is_past(member.deadline, now) {
                    group.rows -= if group.is_single { 0 } else { member.rows().unwrap_or(0) };
                    late.push(member);
                } else {
                    earliest = [earliest, member.deadline].into_iter().flatten().min();
                    group.members.push_back(member);
                }
            }
        }
        self.groups.retain(|group| !group.members.is_empty());
        self.earliest = earliest;
        self.read -= late.len();
        self.answered(late.len(), now);
        late
    }

    fn is_full(&self, group: &Group<R>) -> bool {
        group.is_single || group.rows >= self.limits.rows
    }

    fn is_missing_some(&self, at_once: usize) -> bool {
        self.reading > 0 || self.in_flight < at_once
    }

    /// The first of a group and as many more as make `most` rows with it, without those whose clients have left.
    fn take(&mut self, at: usize, most: usize) -> Vec<Asked<R>> {
        let group = &mut self.groups[at];
        let (mut taken, mut rows) = (Vec::new(), 0);
        while let Some(member) = group.members.front() {
            let own = if group.is_single { 0 } else { member.rows().unwrap_or(0) };
            let is_gone = member.answer.is_closed();
            if !is_gone && !taken.is_empty() && rows + own > most {
                break;
            }
            group.rows -= own;
            self.read -= 1;
            match group.members.pop_front() {
                Some(member) if !is_gone => {
                    rows += own;
                    taken.push(member);
                }
                _ => self.in_flight -= 1,
            }
        }
        match group.members.iter().map(|member| member.go_by(self.limits.delay)).min() {
            Some(go_by) => group.go_by = go_by,
            None => drop(self.groups.swap_remove(at)),
        }
        taken
    }
}

/// The most requests that were in flight at once of late: within one `window` for sure, and within two at the most.
struct Peak {
    window: Duration,
    begun: Instant,
    current: usize,
    before: usize,
}

impl Peak {
    fn look(&mut self, in_flight: usize, now: Instant) -> usize {
        let elapsed = now.saturating_duration_since(self.begun);
        if elapsed >= self.window {
            self.before = if elapsed >= self.window * 2 { in_flight } else { self.current };
            (self.current, self.begun) = (in_flight, now);
        }
        self.current = self.current.max(in_flight);
        self.current.max(self.before)
    }
}
