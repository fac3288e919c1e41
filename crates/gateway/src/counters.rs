//! What was seen of each variant, counted in atomics: reported whole as evidence, by window, and summed over windows for
//! the figures.

mod exposed;
mod mirrored;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use modelyard_core::{
    DeploymentName, DisagreementExample, Evidence, EvidenceKey, LatencyHistogram, VariantEvidence, VariantName,
    VersionName,
};

pub(crate) use exposed::Exposed;
pub(crate) use mirrored::{MirrorTotals, Mirrored};

/// How long the counts of a window that is over are still reported: a late answer still belongs to it.
const KEPT_AFTER_END: Duration = Duration::from_secs(60);

/// Upper bounds of the figures' latency buckets in microseconds: from 256 µs, doubling, to 33 s. Evidence is finer; its
/// buckets do not cross powers of two.
pub(crate) const LATENCY_BOUNDS: [u64; 18] = {
    let mut bounds = [0; 18];
    let mut i = 0;
    while i < bounds.len() {
        bounds[i] = 1 << (8 + i);
        i += 1;
    }
    bounds
};

/// Counts of one variant in one window.
#[derive(Debug)]
pub(crate) struct VariantCounters {
    pub(crate) requests: AtomicU64,
    pub(crate) errors: AtomicU64,
    pub(crate) rescued: AtomicU64,
    latency: Vec<AtomicU64>,
    /// Of all latencies.
    micros: AtomicU64,
    pub(crate) exposed: Exposed,
    pub(crate) mirrored: Mirrored,
}

impl VariantCounters {
    fn new() -> Self {
        let latency = (0..LatencyHistogram::BUCKETS).map(|_| AtomicU64::new(0)).collect();
        let zero = || AtomicU64::new(0);
        Self {
            requests: zero(),
            errors: zero(),
            rescued: zero(),
            latency,
            micros: zero(),
            exposed: Exposed::new(),
            mirrored: Mirrored::default(),
        }
    }

    pub(crate) fn answered(&self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        if let Some(bucket) = self.latency.get(usize::from(LatencyHistogram::bucket(micros))) {
            bucket.fetch_add(1, Relaxed);
        }
        self.micros.fetch_add(micros, Relaxed);
    }

    fn evidence(&self) -> (Evidence, Vec<DisagreementExample>) {
        let mut latency = LatencyHistogram::default();
        for (bucket, count) in (0u16..).zip(&self.latency) {
            latency.add(bucket, count.load(Relaxed));
        }
        let (disagreement, examples) = self.mirrored.evidence();
        let evidence = Evidence {
            requests: self.requests.load(Relaxed),
            errors: self.errors.load(Relaxed),
            rescued: self.rescued.load(Relaxed),
            latency,
            exposure: self.exposed.evidence(),
            disagreement,
        };
        (evidence, examples)
    }
}

/// What the figures are told apart by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Series {
    pub(crate) deployment: DeploymentName,
    pub(crate) variant: VariantName,
    pub(crate) version: VersionName,
}

/// Counts of a variant over all windows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) requests: u64,
    pub(crate) errors: u64,
    pub(crate) rescued: u64,
    /// One more than [`LATENCY_BOUNDS`]: the last has what is above them.
    pub(crate) latency: [u64; LATENCY_BOUNDS.len() + 1],
    pub(crate) micros: u64,
    pub(crate) mirror: MirrorTotals,
}

impl Totals {
    fn add(&mut self, counters: &VariantCounters) {
        self.requests += counters.requests.load(Relaxed);
        self.errors += counters.errors.load(Relaxed);
        self.rescued += counters.rescued.load(Relaxed);
        self.micros += counters.micros.load(Relaxed);
        self.mirror.add(counters.mirrored.totals());
        for (bucket, count) in (0u16..).zip(&counters.latency) {
            let upper = LatencyHistogram::upper_bound(bucket);
            let above = LATENCY_BOUNDS.partition_point(|bound| *bound <= upper);
            if let Some(sum) = self.latency.get_mut(above) {
                *sum += count.load(Relaxed);
            }
        }
    }
}

/// The counters of the windows that are open, and of those that ended lately.
#[derive(Debug, Default)]
pub(crate) struct Counters(Mutex<Windows>);

#[derive(Debug, Default)]
struct Windows {
    entries: HashMap<EvidenceKey, Entry>,
    /// What windows counted that are forgotten, for the series that go on.
    past: HashMap<Series, Totals>,
}

#[derive(Debug)]
struct Entry {
    counters: Arc<VariantCounters>,
    /// As its first table named it.
    series: Series,
    /// When no table named it any more.
    ended: Option<Instant>,
}

impl Counters {
    /// The counters for each key of a new table; those of other windows end.
    pub(crate) fn open(
        &self,
        keys: impl Iterator<Item = (EvidenceKey, Series)>,
    ) -> HashMap<EvidenceKey, Arc<VariantCounters>> {
        let windows = &mut *self.windows();
        let now = Instant::now();
        windows.forget(now);
        windows.entries.values_mut().for_each(|entry| entry.ended = entry.ended.or(Some(now)));
        let open = keys.map(|(key, series)| {
            let new = || Entry { counters: Arc::new(VariantCounters::new()), series, ended: None };
            let entry = windows.entries.entry(key.clone()).or_insert_with(new);
            entry.ended = None;
            (key, entry.counters.clone())
        });
        let open = open.collect();
        // A series that ended may begin again, from 0: Prometheus knows how to read that.
        let alive: HashSet<&Series> = windows.entries.values().map(|entry| &entry.series).collect();
        windows.past.retain(|series, _| alive.contains(series));
        open
    }

    pub(crate) fn report(&self) -> Vec<VariantEvidence> {
        let windows = self.windows();
        let sorted: BTreeMap<_, _> = windows.entries.iter().collect();
        let of = |(key, entry): (&EvidenceKey, &Entry)| {
            let (evidence, examples) = entry.counters.evidence();
            VariantEvidence {
                deployment: key.deployment.clone(),
                window: key.window,
                revision: key.revision,
                variant: key.variant.clone(),
                evidence,
                examples,
            }
        };
        sorted.into_iter().map(of).collect()
    }

    /// Sums over windows, which never shrink while a series goes on.
    pub(crate) fn totals(&self) -> BTreeMap<Series, Totals> {
        let windows = self.windows();
        let mut totals: BTreeMap<_, _> = windows.past.clone().into_iter().collect();
        for entry in windows.entries.values() {
            totals.entry(entry.series.clone()).or_default().add(&entry.counters);
        }
        totals
    }

    fn windows(&self) -> MutexGuard<'_, Windows> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Windows {
    fn forget(&mut self, now: Instant) {
        let is_old = |entry: &Entry| entry.ended.is_some_and(|ended| now.duration_since(ended) >= KEPT_AFTER_END);
        for (_, entry) in self.entries.extract_if(|_, entry| is_old(entry)) {
            self.past.entry(entry.series).or_default().add(&entry.counters);
        }
    }
}

#[cfg(test)]
mod tests {
    use modelyard_core::{RevisionNumber, Window};

    use super::*;

    fn key(step: u32) -> (EvidenceKey, Series) {
        let deployment: DeploymentName = "m".parse().unwrap();
        let window = Window { revision: RevisionNumber(2), step };
        let variant = VariantName::canary();
        let series = Series { deployment: deployment.clone(), variant: variant.clone(), version: "2".parse().unwrap() };
        (EvidenceKey { deployment, window, revision: RevisionNumber(2), variant }, series)
    }

    #[test]
    fn figures_add_up_over_windows_and_outlive_them() {
        let counters = Counters::default();
        for step in 0..3 {
            let open = counters.open([key(step)].into_iter());
            open[&key(step).0].requests.fetch_add(10, Relaxed);
        }
        assert_eq!(counters.totals()[&key(0).1].requests, 30);
        {
            let mut windows = counters.windows();
            windows.forget(Instant::now() + KEPT_AFTER_END);
            assert_eq!(windows.entries.len(), 1, "one is open");
        }
        assert_eq!(counters.totals()[&key(0).1].requests, 30);
        assert_eq!(counters.report().len(), 1);
        counters.open(std::iter::empty());
        counters.windows().forget(Instant::now() + KEPT_AFTER_END);
        counters.open(std::iter::empty());
        assert!(counters.totals().is_empty(), "nothing is kept of what no table names");
    }

    #[test]
    fn latencies_fall_into_the_buckets_of_the_figures() {
        let counters = VariantCounters::new();
        for micros in [0, 255, 256, 1_500, 40_000_000] {
            counters.answered(Duration::from_micros(micros));
        }
        let mut totals = Totals::default();
        totals.add(&counters);
        assert_eq!((totals.latency[0], totals.latency[1], totals.latency[3], totals.latency[18]), (2, 1, 1, 1));
        assert_eq!(totals.micros, 40_002_011);
    }
}
