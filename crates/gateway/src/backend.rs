//! A backend as requests meet it: how many it has in flight, and whether it is ejected.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};

use modelyard_core::WorkloadId;
use tokio::sync::watch;

/// Failures in a row of a backend that can be connected to, before it is ejected.
const FAILURES_BEFORE_EJECTION: u32 = 3;
const FIRST_EJECTION_MS: u64 = 1_000;
const LONGEST_EJECTION_MS: u64 = 30_000;

/// Survives changes of the route table as long as its workload and address stay.
#[derive(Debug)]
pub(crate) struct BackendState {
    pub(crate) workload: WorkloadId,
    pub(crate) address: SocketAddr,
    /// The address, as a `Host`.
    pub(crate) authority: String,
    pub(crate) in_flight: AtomicUsize,
    failures: AtomicU32,
    ejections: AtomicU32,
    /// On the gateway's clock, in milliseconds.
    ejected_until: AtomicU64,
    /// It is not in the latest route table.
    withdrawn: watch::Sender<bool>,
}

impl BackendState {
    pub(crate) fn new(workload: WorkloadId, address: SocketAddr) -> Self {
        Self {
            workload,
            address,
            authority: address.to_string(),
            in_flight: AtomicUsize::new(0),
            failures: AtomicU32::new(0),
            ejections: AtomicU32::new(0),
            ejected_until: AtomicU64::new(0),
            withdrawn: watch::Sender::new(false),
        }
    }

    /// Whether the latest route table has it. Requests that came by an earlier one may still be with it.
    pub(crate) fn set_withdrawn(&self, withdrawn: bool) {
        self.withdrawn.send_if_modified(|was| std::mem::replace(was, withdrawn) != withdrawn);
    }

    pub(crate) fn is_withdrawn(&self) -> bool {
        *self.withdrawn.borrow()
    }

    /// Returns when it is.
    pub(crate) async fn withdrawn(&self) {
        // The sender lives as long as this does.
        self.withdrawn.subscribe().wait_for(|withdrawn| *withdrawn).await.ok();
    }

    /// An ejected backend is tried again when its time is over: the next request is the probe.
    pub(crate) fn is_usable(&self, now_ms: u64) -> bool {
        self.ejected_until.load(Relaxed) <= now_ms
    }

    pub(crate) fn succeeded(&self) {
        if self.failures.load(Relaxed) != 0 || self.ejections.load(Relaxed) != 0 {
            self.failures.store(0, Relaxed);
            self.ejections.store(0, Relaxed);
            self.ejected_until.store(0, Relaxed);
        }
    }

    /// The exchange broke: it may have been this one request.
    pub(crate) fn failed(&self, now_ms: u64) {
        if self.failures.fetch_add(1, Relaxed) + 1 >= FAILURES_BEFORE_EJECTION {
            self.unreachable(now_ms);
        }
    }

    /// Nobody listens: no request would do better.
    pub(crate) fn unreachable(&self, now_ms: u64) {
        let ejections = self.ejections.fetch_add(1, Relaxed).min(5);
        let length = (FIRST_EJECTION_MS << ejections).min(LONGEST_EJECTION_MS);
        self.ejected_until.store(now_ms + length, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_is_ejected_for_longer_each_time_and_readmitted_by_a_success() {
        let backend = BackendState::new("d-0123456789".parse().unwrap(), "127.0.0.1:1".parse().unwrap());
        backend.failed(0);
        backend.failed(0);
        assert!(backend.is_usable(0), "two failures may be the requests' fault");
        backend.failed(0);
        assert!(!backend.is_usable(999) && backend.is_usable(1_000));
        backend.unreachable(1_000);
        assert!(!backend.is_usable(2_999) && backend.is_usable(3_000));
        backend.succeeded();
        backend.unreachable(3_000);
        assert!(backend.is_usable(4_000), "a success forgives the past");
    }
}
