//! Progress, a line per step: what was done, and how long it took.

use std::time::Instant;

use anyhow::Result;

use crate::console::Console;

/// Tells each step when it is done, and long ones when they begin.
#[derive(Debug, Clone, Copy)]
pub(super) struct Steps {
    console: Console,
    started: Instant,
}

impl Steps {
    pub(super) fn new(console: Console) -> Self {
        Self { console, started: Instant::now() }
    }

    pub(super) fn run<T>(self, name: &str, step: impl FnOnce() -> Result<T>) -> Result<T> {
        let started = Instant::now();
        let result = step()?;
        self.say(format_args!("{name:<60} {:>7}", took(started)));
        Ok(result)
    }

    /// A step that takes minutes: without a line before it, it would seem to hang.
    pub(super) fn run_long<T>(self, name: &str, step: impl FnOnce() -> Result<T>) -> Result<T> {
        self.say(format_args!("{name} …"));
        self.run("  done", step)
    }

    pub(super) fn say(self, line: impl std::fmt::Display) {
        self.console.say(line);
    }

    /// Since the first step.
    pub(super) fn total(self) -> String {
        took(self.started)
    }
}

fn took(since: Instant) -> String {
    format!("{:.1} s", since.elapsed().as_secs_f64())
}
