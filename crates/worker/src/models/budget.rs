//! The memory that loaded models may have together, and what each is taken to need.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use modelyard_core::Format;

/// What any model needs beside its weights: graphs, buffers, its queue.
const OVERHEAD: u64 = 1 << 20;

pub(super) struct Budget {
    /// In bytes.
    limit: Option<u64>,
    used: Mutex<u64>,
    freed: Condvar,
}

/// A part of the budget, until it is dropped.
pub(super) struct Reservation {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Budget {
    pub(super) fn new(limit: Option<u64>) -> Arc<Self> {
        Arc::new(Self { limit, used: Mutex::new(0), freed: Condvar::new() })
    }

    pub(super) fn limit(&self) -> Option<u64> {
        self.limit
    }

    pub(super) fn used(&self) -> u64 {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None` if there is not so much left.
    pub(super) fn reserve(self: &Arc<Self>, bytes: u64) -> Option<Reservation> {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if self.limit.is_some_and(|limit| used.saturating_add(bytes) > limit) {
            return None;
        }
        *used += bytes;
        Some(Reservation { budget: self.clone(), bytes })
    }

    /// Waits until something is freed, or for as long.
    pub(super) fn wait(&self, limit: Duration) {
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.freed.wait_timeout(used, limit).unwrap_or_else(PoisonError::into_inner));
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        *self.budget.used.lock().unwrap_or_else(PoisonError::into_inner) -= self.bytes;
        self.budget.freed.notify_all();
    }
}

/// What a model is taken to need, in bytes, from the size of its file; measured (`docs/worker.md`).
/// `sessions`: how many sessions of ONNX Runtime there are, if that runs it.
pub(super) fn estimate(format: Format, file: u64, sessions: Option<u64>) -> u64 {
    let with = |times: u64| OVERHEAD.saturating_add(file.saturating_mul(times));
    match (format, sessions) {
        // Numbers as text take more than as floats.
        (Format::Dense, _) => with(1),
        // The file's bytes, weights that are laid out anew, and what an inference needs.
        (Format::Onnx, Some(sessions)) => with(3).saturating_mul(sessions.max(1)),
        (Format::Onnx | Format::Tensorflow, _) => with(2),
    }
}
