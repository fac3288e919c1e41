//! What an operator may set, and the values that fit most machines.

use std::path::PathBuf;
use std::time::Duration;

/// How workers are run on this machine.
#[derive(Debug, Clone)]
pub struct LocalConfig {
    /// Everything this runtime keeps lies in `workers/` below it.
    pub state_dir: PathBuf,
    /// The `modelyard-worker` to run.
    pub worker_binary: PathBuf,
    /// Appended to the command line of each worker.
    pub worker_args: Vec<String>,
    /// Added to the few variables that workers inherit.
    pub worker_env: Vec<(String, String)>,
    /// How long a worker that is told to end may finish the requests in flight.
    pub drain_timeout: Duration,
    /// How much longer than `drain_timeout` a worker may take before it is killed.
    pub kill_grace: Duration,
    pub probes: Probes,
    pub backoff: Backoff,
}

impl LocalConfig {
    pub fn new(state_dir: impl Into<PathBuf>, worker_binary: impl Into<PathBuf>) -> Self {
        Self {
            state_dir: state_dir.into(),
            worker_binary: worker_binary.into(),
            worker_args: Vec::new(),
            worker_env: Vec::new(),
            drain_timeout: Duration::from_secs(30),
            kill_grace: Duration::from_secs(5),
            probes: Probes::default(),
            backoff: Backoff::default(),
        }
    }
}

/// How readiness is watched.
#[derive(Debug, Clone)]
pub struct Probes {
    /// Between two probes of a worker that has not been ready yet.
    pub starting_interval: Duration,
    /// Between two probes of a worker that has.
    pub interval: Duration,
    /// An answer that takes longer is none.
    pub timeout: Duration,
    /// So many failures in a row make a ready worker not ready.
    pub failures: u32,
    /// A worker that is not ready this long after its start is killed and started again.
    pub start_timeout: Duration,
    /// So is one that was ready and has not been for this long.
    pub hang_timeout: Duration,
}

impl Default for Probes {
    fn default() -> Self {
        Self {
            starting_interval: Duration::from_millis(20),
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            failures: 3,
            start_timeout: Duration::from_secs(300),
            hang_timeout: Duration::from_secs(60),
        }
    }
}

/// How long a worker that ended by itself stays down: `first`, then double at each end, at most `max`.
#[derive(Debug, Clone)]
pub struct Backoff {
    pub first: Duration,
    pub max: Duration,
    /// A worker that was ready for this long is forgiven its past.
    pub reset_after: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_millis(200), max: Duration::from_secs(30), reset_after: Duration::from_secs(60) }
    }
}

impl Backoff {
    /// The wait after `failures` ends in a row, counted from 1.
    pub(crate) fn delay(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        self.first.saturating_mul(1 << doublings).min(self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_up_to_its_bound() {
        let backoff = Backoff::default();
        let waits: Vec<u128> = (1..=10).map(|n| backoff.delay(n).as_millis()).collect();
        assert_eq!(waits, [200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000, 30_000]);
        assert_eq!(backoff.delay(u32::MAX), backoff.max);
    }
}
