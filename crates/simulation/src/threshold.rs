//! What the planner is compared with: the same limits on what the last minute shows, looked at once a minute, as Argo
//! Rollouts and Flagger do. A check that exceeds a limit counts against the version; so many of them end its rollout.

use fastrand::Rng;
use modelyard_core::Evidence;

use crate::traffic::{Batch, Versions};

/// Checks of estimates.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Threshold {
    pub(crate) requests_per_second: f64,
    /// The candidate's shares of traffic, and how many minutes each is held.
    pub(crate) steps: [(f64, u32); 2],
    pub(crate) max_error_rate_increase: f64,
    pub(crate) max_latency_increase: f64,
    pub(crate) max_disagreement: f64,
}

impl Threshold {
    /// How many checks find a limit exceeded. The first ends a rollout with the `failureLimit` that Argo Rollouts has
    /// unless it is set, which is 0.
    pub(crate) fn failures(&self, versions: &Versions, rng: &mut Rng) -> u32 {
        let minutes = self.steps.iter().flat_map(|(share, minutes)| (0..*minutes).map(move |_| *share));
        let batches = minutes.map(|share| versions.serve(self.requests_per_second * 60.0, share, rng));
        batches.map(|batch| u32::from(self.exceeds(&batch))).sum()
    }

    fn exceeds(&self, batch: &Batch) -> bool {
        let (candidate, stable) = (&batch.candidate, &batch.stable);
        let rate = |evidence: &Evidence| share(evidence.errors, evidence.requests);
        let p99 = |evidence: &Evidence| evidence.latency.quantile_micros(99, 100).map_or(0.0, float);
        let differing = share(candidate.disagreement.differing, candidate.disagreement.compared);
        rate(candidate) > rate(stable) + self.max_error_rate_increase
            || p99(candidate) > p99(stable) * (1.0 + self.max_latency_increase)
            || differing > self.max_disagreement
    }
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { float(part) / float(whole) }
}

#[expect(clippy::cast_precision_loss, reason = "counts of a minute")]
fn float(count: u64) -> f64 {
    count as f64
}
