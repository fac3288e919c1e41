//! Evidence: what was seen of each variant, counted in atomics, reported whole.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use modelyard_core::{Evidence, EvidenceKey, LatencyHistogram, VariantEvidence};

/// How long the counts of a window that is over are still reported: a late answer still belongs to it.
const KEPT_AFTER_END: Duration = Duration::from_secs(60);

/// Counts of one variant in one window.
#[derive(Debug)]
pub(crate) struct VariantCounters {
    pub(crate) requests: AtomicU64,
    pub(crate) errors: AtomicU64,
    pub(crate) rescued: AtomicU64,
    latency: Vec<AtomicU64>,
}

impl VariantCounters {
    fn new() -> Self {
        let latency = (0..LatencyHistogram::BUCKETS).map(|_| AtomicU64::new(0)).collect();
        Self { requests: AtomicU64::new(0), errors: AtomicU64::new(0), rescued: AtomicU64::new(0), latency }
    }

    pub(crate) fn answered(&self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        if let Some(bucket) = self.latency.get(usize::from(LatencyHistogram::bucket(micros))) {
            bucket.fetch_add(1, Relaxed);
        }
    }

    fn evidence(&self) -> Evidence {
        let mut latency = LatencyHistogram::default();
        for (bucket, count) in (0u16..).zip(&self.latency) {
            latency.add(bucket, count.load(Relaxed));
        }
        Evidence {
            requests: self.requests.load(Relaxed),
            errors: self.errors.load(Relaxed),
            rescued: self.rescued.load(Relaxed),
            latency,
        }
    }
}

/// The counters of the windows that are open, and of those that ended lately.
#[derive(Debug, Default)]
pub(crate) struct Counters(Mutex<HashMap<EvidenceKey, Entry>>);

#[derive(Debug)]
struct Entry {
    counters: Arc<VariantCounters>,
    /// When no table named it any more.
    ended: Option<Instant>,
}

impl Counters {
    /// The counters for each key of a new table; those of other windows end.
    pub(crate) fn open(&self, keys: impl Iterator<Item = EvidenceKey>) -> HashMap<EvidenceKey, Arc<VariantCounters>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        all.retain(|_, e| e.ended.is_none_or(|ended| now.duration_since(ended) < KEPT_AFTER_END));
        all.values_mut().for_each(|entry| entry.ended = entry.ended.or(Some(now)));
        let open = keys.map(|key| {
            let new = || Entry { counters: Arc::new(VariantCounters::new()), ended: None };
            let entry = all.entry(key.clone()).or_insert_with(new);
            entry.ended = None;
            (key, entry.counters.clone())
        });
        open.collect()
    }

    pub(crate) fn report(&self) -> Vec<VariantEvidence> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sorted: BTreeMap<_, _> = all.iter().collect();
        let of = |(key, entry): (&EvidenceKey, &Entry)| VariantEvidence {
            deployment: key.deployment.clone(),
            window: key.window,
            revision: key.revision,
            evidence: entry.counters.evidence(),
        };
        sorted.into_iter().map(of).collect()
    }
}
