//! Who was assigned to a variant, counted.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use modelyard_core::{Exposure, UnitHash, UnitSample};

/// Requests count in an atomic. Units take a lock only if they belong to the sample: all of them while it fills, then
/// fewer and fewer.
#[derive(Debug)]
pub(crate) struct Exposed {
    requests: AtomicU64,
    /// Ranks from here on are not in the sample.
    threshold: AtomicU64,
    sample: Mutex<UnitSample>,
}

impl Exposed {
    pub(super) fn new() -> Self {
        let sample = UnitSample::default();
        Self { requests: AtomicU64::new(0), threshold: AtomicU64::new(sample.threshold()), sample: Mutex::new(sample) }
    }

    /// Counts a request of a unit.
    pub(crate) fn count(&self, unit: UnitHash) {
        self.requests.fetch_add(1, Relaxed);
        if unit.rank() < self.threshold.load(Relaxed) {
            let mut sample = self.sample.lock().unwrap_or_else(PoisonError::into_inner);
            sample.add(unit);
            self.threshold.store(sample.threshold(), Relaxed);
        }
    }

    pub(super) fn evidence(&self) -> Exposure {
        let units = self.sample.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Exposure { requests: self.requests.load(Relaxed), units }
    }
}
