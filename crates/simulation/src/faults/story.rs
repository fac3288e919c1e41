//! What happened in a run, told line by line when it is to be told; and how often what happened.
//!
//! Most runs tell nothing: one that fails is made again from its seed, and told then.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;

/// Lines of a story that are kept.
const KEPT: usize = 60;

/// How often what occurred, over one run or many.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coverage(BTreeMap<&'static str, u64>);

impl Coverage {
    /// What must occur, or the simulation shows nothing.
    pub const EXPECTED: &[&str] = &[
        "strategy: rolling",
        "strategy: canary",
        "strategy: blue/green",
        "strategy: shadow",
        "strategy: A/B test",
        "people roll back",
        "people abort",
        "people pause",
        "people resume",
        "people promote",
        "people delete",
        "people act between plan and commit",
        "fault: call delayed",
        "fault: call lost",
        "fault: call's reply lost",
        "fault: call duplicated",
        "fault: stale observation",
        "fault: partly stale observation",
        "fault: unknown workload",
        "fault: runtime not observed",
        "fault: runtime gone",
        "fault: worker crashes",
        "fault: room for other numbers of workers",
        "fault: commit fails",
        "fault: commit's reply lost",
        "fault: store gone",
        "fault: control plane dies",
        "fault: control plane dies before it acts",
        "fault: control plane stopped",
        "fault: control plane stopped before it acts",
        "fault: lease runs out early",
        "fault: clock steps forward",
        "fault: clock steps backward",
        "fault: gateway restarts",
        "fault: gateway cut off",
        "fault: gateway cut off with a table that it has not told of",
        "fault: gateway cut off for longer than it is waited for",
        "fault: table lost",
        "fault: table late",
        "fault: report lost",
        "fault: report delayed",
        "fault: report duplicated",
        "store refuses an earlier epoch",
        "store refuses a stale decision",
        "runtime refuses an earlier epoch",
        "gateway refuses an older table",
        "control plane finds itself out of office",
        "workload ends",
        "gateway mirrors",
        "decision: rollout completed",
        "decision: analysis decides",
        "decision: analysis rolls back",
        "decision: warmth ends",
        "ending: completed",
        "ending: deleted",
        "ending: hold, paused",
        "ending: hold, to be promoted",
        "ending: hold, more requests",
        "ending: hold, workers",
    ];

    pub fn merge(&mut self, other: &Self) {
        other.0.iter().for_each(|(what, count)| *self.0.entry(what).or_default() += count);
    }

    pub fn of(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or(0)
    }

    /// Those of [`Coverage::EXPECTED`] that occurred less than `least` times.
    pub fn lacking(&self, least: u64) -> Vec<&'static str> {
        Self::EXPECTED.iter().copied().filter(|what| self.of(what) < least).collect()
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(what, count)| writeln!(f, "{count:>10}  {what}"))
    }
}

/// What is told of a run.
#[derive(Debug, Default)]
pub(crate) struct Story {
    /// Milliseconds since it began, by a clock that nobody sets.
    now: Cell<u64>,
    is_told: bool,
    is_whole: bool,
    lines: RefCell<VecDeque<String>>,
    counts: RefCell<Coverage>,
}

impl Story {
    pub(crate) fn untold() -> Self {
        Self::default()
    }

    /// `is_whole`: from its beginning, not only its last lines.
    pub(crate) fn told(is_whole: bool) -> Self {
        Self { is_told: true, is_whole, ..Self::default() }
    }

    pub(crate) fn now(&self) -> u64 {
        self.now.get()
    }

    pub(crate) fn pass(&self, millis: u64) {
        self.now.set(self.now.get() + millis);
    }

    pub(crate) fn tell(&self, line: impl FnOnce() -> String) {
        if !self.is_told {
            return;
        }
        let mut lines = self.lines.borrow_mut();
        let now = self.now();
        lines.push_back(format!("t=+{}.{:03}s {}", now / 1000, now % 1000, line()));
        if !self.is_whole && lines.len() > KEPT {
            lines.pop_front();
        }
    }

    pub(crate) fn count(&self, what: &'static str) {
        *self.counts.borrow_mut().0.entry(what).or_default() += 1;
    }

    pub(crate) fn end(self) -> (Vec<String>, Coverage) {
        (self.lines.into_inner().into(), self.counts.into_inner())
    }
}
