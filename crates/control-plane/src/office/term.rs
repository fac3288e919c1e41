//! A term of office, as the process that holds it knows it: by its own clock, without asking anyone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use modelyard_core::Epoch;
use rustix::time::{ClockId, clock_gettime};
use tokio_util::sync::CancellationToken;

/// How much earlier than Postgres the holder takes its lease for lapsed: what is begun at the last moment is done
/// before another may take office.
const MARGIN: Duration = Duration::from_secs(1);

/// A moment of the clock that goes on while the process is stopped and while the machine sleeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(u64);

impl Moment {
    pub fn now() -> Self {
        let now = clock_gettime(ClockId::Boottime);
        let (seconds, nanos) = (u64::try_from(now.tv_sec), u64::try_from(now.tv_nsec));
        Self(seconds.unwrap_or_default() * 1_000_000_000 + nanos.unwrap_or_default())
    }

    fn after(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// The right to act: to commit, and to start and end workloads. Asked right before each such act.
#[derive(Debug, Clone)]
pub struct Term {
    epoch: Epoch,
    lapses: Arc<AtomicU64>,
    ended: CancellationToken,
}

/// Why nothing may be written now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotInOffice {
    /// It may be renewed yet.
    #[error("the lease of epoch {0} has lapsed and is not renewed yet")]
    Lapsed(Epoch),
    #[error("epoch {0} is over")]
    Ended(Epoch),
}

impl Term {
    /// `asked`: when the lease was asked for, which is before Postgres gave it for `ttl`.
    pub fn begin(epoch: Epoch, asked: Moment, ttl: Duration) -> Self {
        let term = Self { epoch, lapses: Arc::default(), ended: CancellationToken::new() };
        term.renewed(asked, ttl);
        term
    }

    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub fn renewed(&self, asked: Moment, ttl: Duration) {
        self.lapses.store(asked.after(ttl.saturating_sub(MARGIN)).0, Ordering::Relaxed);
    }

    /// # Errors
    /// If the lease has lapsed, or the term is over.
    pub fn check(&self) -> Result<(), NotInOffice> {
        if self.ended.is_cancelled() {
            Err(NotInOffice::Ended(self.epoch))
        } else if Moment::now().0 >= self.lapses.load(Ordering::Relaxed) {
            Err(NotInOffice::Lapsed(self.epoch))
        } else {
            Ok(())
        }
    }

    /// Ends the term, for good: another has taken office, or this process gives it back.
    pub fn end(&self) {
        self.ended.cancel();
    }

    /// Resolves once the term is over. What is done on its behalf ends then.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(5);

    #[test]
    fn a_term_lapses_before_its_lease_does_and_goes_on_when_renewed() {
        let long_ago = Moment(Moment::now().0 - 4_000_000_000);
        let term = Term::begin(Epoch(7), long_ago, TTL);
        assert_eq!(term.check(), Err(NotInOffice::Lapsed(Epoch(7))), "a second before Postgres gives it away");
        term.renewed(Moment::now(), TTL);
        assert_eq!(term.check(), Ok(()));
        term.clone().end();
        term.renewed(Moment::now(), TTL);
        assert_eq!(term.check(), Err(NotInOffice::Ended(Epoch(7))), "what is over is not renewed");
    }
}
