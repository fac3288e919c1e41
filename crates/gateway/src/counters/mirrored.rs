//! What mirrored requests showed of a variant. No request of a client comes here, but to be counted as dropped.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use modelyard_core::{Disagreement, DisagreementExample, Mirror};

use crate::compare::Comparison;

#[derive(Debug, Default)]
pub(crate) struct Mirrored {
    pub(crate) asked: AtomicU64,
    pub(crate) dropped: AtomicU64,
    pub(crate) unreadable: AtomicU64,
    compared: Mutex<Compared>,
}

#[derive(Debug, Default)]
struct Compared {
    /// Without what the atomics have.
    disagreement: Disagreement,
    /// The latest last.
    examples: VecDeque<DisagreementExample>,
}

impl Mirrored {
    pub(crate) fn compared(&self, comparison: Comparison, example: Option<DisagreementExample>, spec: &Mirror) {
        let Compared { disagreement, examples } = &mut *self.lock();
        disagreement.compared += 1;
        disagreement.differing += u64::from(comparison.differs());
        for (name, counts) in comparison.outputs {
            if let Some(output) = disagreement.output(&name) {
                output.merge(&counts);
            }
        }
        let most = spec.keep_examples.min(Mirror::MOST_EXAMPLES) as usize;
        examples.extend(example.filter(|_| most > 0));
        let surplus = examples.len().saturating_sub(most);
        examples.drain(..surplus);
    }

    pub(super) fn evidence(&self) -> (Disagreement, Vec<DisagreementExample>) {
        let compared = self.lock();
        let disagreement = Disagreement {
            mirrored: self.asked.load(Relaxed),
            dropped: self.dropped.load(Relaxed),
            unreadable: self.unreadable.load(Relaxed),
            ..compared.disagreement.clone()
        };
        (disagreement, compared.examples.iter().cloned().collect())
    }

    pub(super) fn totals(&self) -> MirrorTotals {
        let compared = self.lock();
        MirrorTotals {
            mirrored: self.asked.load(Relaxed),
            dropped: self.dropped.load(Relaxed),
            compared: compared.disagreement.compared,
            differing: compared.disagreement.differing,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Compared> {
        self.compared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts of mirrored requests over all windows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct MirrorTotals {
    pub(crate) mirrored: u64,
    pub(crate) dropped: u64,
    pub(crate) compared: u64,
    pub(crate) differing: u64,
}

impl MirrorTotals {
    pub(super) fn add(&mut self, other: Self) {
        self.mirrored += other.mirrored;
        self.dropped += other.dropped;
        self.compared += other.compared;
        self.differing += other.differing;
    }
}
