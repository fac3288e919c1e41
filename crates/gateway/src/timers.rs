//! Limits on how long something may take, to a tenth of a second.
//!
//! Every request has several, and nearly none of them is ever reached. So they are kept in a plain list, which is looked
//! through at intervals: to set one and to take it back costs a few nanoseconds, where the runtime's wheel takes hundreds.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use slab::Slab;

const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The limits of one thread.
#[derive(Debug, Clone, Default)]
pub(crate) struct Timers(Rc<RefCell<Slab<Entry>>>);

#[derive(Debug)]
struct Entry {
    /// `None`: it is over.
    until: Option<Instant>,
    is_idle: bool,
    waker: Waker,
}

/// It took too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooLong;

impl Timers {
    /// Ends those that are over, for ever.
    pub(crate) async fn run(&self) {
        let mut look = tokio::time::interval(LOOK_EVERY);
        loop {
            look.tick().await;
            let now = Instant::now();
            self.end(|entry| entry.until.is_some_and(|until| until <= now));
        }
    }

    /// Ends all that are idle: nobody waits for their outcome.
    pub(crate) fn end_idle(&self) {
        self.end(|entry| entry.is_idle && entry.until.is_some());
    }

    fn end(&self, which: impl Fn(&Entry) -> bool) {
        for (_, entry) in self.0.borrow_mut().iter_mut() {
            if which(entry) {
                entry.until = None;
                entry.waker.wake_by_ref();
            }
        }
    }

    /// Awaits it, for no longer than `limit` and a tenth of a second.
    ///
    /// # Errors
    /// If it took longer.
    pub(crate) async fn within<F: Future>(&self, limit: Duration, future: F) -> Result<F::Output, TooLong> {
        self.limited(limit, false, future).await
    }

    /// As [`Timers::within`], but ended by [`Timers::end_idle`] too.
    ///
    /// # Errors
    /// If it took longer.
    pub(crate) async fn idle_within<F: Future>(&self, limit: Duration, future: F) -> Result<F::Output, TooLong> {
        self.limited(limit, true, future).await
    }

    async fn limited<F: Future>(&self, limit: Duration, is_idle: bool, future: F) -> Result<F::Output, TooLong> {
        let mut limit = Limit { timers: self, limit, is_idle, key: None };
        let mut future = std::pin::pin!(future);
        std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Ok(done)),
            Poll::Pending => Pin::new(&mut limit).get_mut().poll(cx).map(Err),
        })
        .await
    }
}

/// One limit, set when it is first waited for.
struct Limit<'t> {
    timers: &'t Timers,
    limit: Duration,
    is_idle: bool,
    key: Option<usize>,
}

impl Limit<'_> {
    fn poll(&mut self, cx: &Context<'_>) -> Poll<TooLong> {
        let mut entries = self.timers.0.borrow_mut();
        let Some(entry) = self.key.and_then(|key| entries.get_mut(key)) else {
            let until = Instant::now().checked_add(self.limit);
            // A time that cannot be told does not come.
            if until.is_some() {
                self.key = Some(entries.insert(Entry { until, is_idle: self.is_idle, waker: cx.waker().clone() }));
            }
            return Poll::Pending;
        };
        if entry.until.is_none() {
            return Poll::Ready(TooLong);
        }
        if !entry.waker.will_wake(cx.waker()) {
            entry.waker.clone_from(cx.waker());
        }
        Poll::Pending
    }
}

impl Drop for Limit<'_> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.timers.0.borrow_mut().remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ticking<T>(timers: &Timers, body: impl Future<Output = T>) -> T {
        tokio::select! {
            done = body => done,
            () = timers.run() => unreachable!("it runs for ever"),
        }
    }

    #[tokio::test]
    async fn what_takes_too_long_ends_and_the_rest_does_not() {
        let timers = Timers::default();
        let body = async {
            let never = timers.within(Duration::from_millis(1), std::future::pending::<()>());
            let soon = timers.within(Duration::MAX, async { 1 });
            assert_eq!(tokio::join!(never, soon), (Err(TooLong), Ok(1)));
        };
        ticking(&timers, body).await;
        assert!(timers.0.borrow().is_empty(), "nothing is left");
    }

    #[tokio::test]
    async fn idle_ones_can_be_ended_at_once() {
        let timers = Timers::default();
        let hour = Duration::from_secs(3600);
        let idle = timers.idle_within(hour, std::future::pending::<()>());
        let busy = timers.within(hour, async {
            tokio::task::yield_now().await;
            timers.end_idle();
            tokio::task::yield_now().await;
        });
        assert_eq!(tokio::join!(idle, busy), (Err(TooLong), Ok(())));
    }
}
