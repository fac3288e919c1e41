//! How often decisions are right: equal versions that are rolled back, worse ones that are caught, and at what cost, beside
//! checks of a threshold and Wald's bound.

use std::collections::BTreeMap;

use anyhow::Result;
use fastrand::Rng;
use serde::Serialize;

use crate::rollout::{End, Policy, Run};
use crate::threshold::Threshold;
use crate::traffic::{Truth, Versions};
use crate::wald::{expected_trials, share_above_p99};

/// All three gates at once, for every version: what has the power has the false rollbacks too.
pub(crate) const MANIFEST: &str = "apiVersion: modelyard.dev/v1
kind: ModelDeployment
metadata: {name: simulated}
spec:
  model: simulated
  version: \"2\"
  replicas: 2
  strategy:
    canary:
      steps: [{weight: 10, hold: 30s}, {weight: 50, hold: 30s}]
      analysis:
        minRequests: 100
        warmup: 0
        maxErrorRateIncrease: 0.005
        maxLatencyIncrease: 20%
        maxDisagreement: 0.01
";
pub(crate) const ALPHA: f64 = 0.05;
pub(crate) const BETA: f64 = 0.2;

/// What is the matter with a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// Nothing: it is equal to the stable one.
    None,
    /// 2 % of errors instead of 0.5 %.
    Errors,
    /// Every latency 1.3 times as long.
    Latency,
    /// 3 % of answers with another label.
    Flips,
    /// Latency 1.1 times as long: worse, and by less than the limit.
    SlightlySlower,
    /// 0.7 % of errors instead of 0.5 %: worse, and by less than the limit.
    SlightlyMoreErrors,
}

impl Effect {
    pub const ALL: [Self; 6] =
        [Self::None, Self::Errors, Self::Latency, Self::Flips, Self::SlightlySlower, Self::SlightlyMoreErrors];
    /// Those whose power is asked for.
    pub const CAUGHT: [Self; 3] = [Self::Errors, Self::Latency, Self::Flips];

    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none (A/A)",
            Self::Errors => "error 0.5 % -> 2 %",
            Self::Latency => "p99 +30 %",
            Self::Flips => "3 % label flips",
            Self::SlightlySlower => "p99 +10 %, within the limit",
            Self::SlightlyMoreErrors => "error 0.5 % -> 0.7 %, within the limit",
        }
    }

    /// What is within the limit takes long to tell, and is no figure that is promised: a fifth of the runs will do.
    fn runs(self, runs: u32) -> u32 {
        match self {
            Self::SlightlySlower | Self::SlightlyMoreErrors => runs.div_ceil(5),
            Self::None | Self::Errors | Self::Latency | Self::Flips => runs,
        }
    }

    fn versions(self) -> Versions {
        let stable = Truth::STABLE;
        let candidate = match self {
            Self::None => stable,
            Self::Errors => Truth { error_rate: 0.02, ..stable },
            Self::Latency => stable.slower(1.3),
            Self::Flips => Truth { flip_rate: 0.03, ..stable },
            Self::SlightlySlower => stable.slower(1.1),
            Self::SlightlyMoreErrors => Truth { error_rate: 0.007, ..stable },
        };
        Versions { stable, candidate }
    }

    /// The rates that the gate in question tells apart: where the version is let pass, and what it shows.
    fn rates(self) -> Option<(f64, f64)> {
        match self {
            Self::Errors => Some((0.005, 0.02)),
            Self::Latency => Some((0.01, share_above_p99(1.3, Truth::STABLE.ln_micros.1))),
            Self::Flips => Some((0.01, 0.03)),
            Self::None | Self::SlightlySlower | Self::SlightlyMoreErrors => None,
        }
    }
}

/// What many runs of one effect came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    pub effect: Effect,
    pub rolled_back: f64,
    pub promoted: f64,
    /// Requests of the version on trial until it was rolled back, or for an equal one until it was promoted: the median
    /// over all runs, those without that decision counted as longer than all others.
    pub median_requests: Option<u64>,
    pub median_seconds: Option<u32>,
    /// Wald's bound at `alpha` and the share of this effect that was missed in fact, but no less than one run.
    pub wald: Option<f64>,
    /// Wald's bound at `alpha` and 1 - `power` as the manifest has them.
    pub wald_nominal: Option<f64>,
    /// Rolled back by checks of a threshold, at the first check that exceeds a limit and at the third.
    pub threshold: [f64; 2],
}

impl Row {
    /// Median requests over Wald's bound.
    pub fn over_wald(&self) -> Option<f64> {
        Some(float(self.median_requests?) / self.wald?)
    }
}

/// The figures for programs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figures {
    pub aa_false_rollback: f64,
    pub power: BTreeMap<&'static str, f64>,
    pub samples_over_wald: BTreeMap<&'static str, Option<f64>>,
    pub threshold_aa_false_rollback: f64,
}

impl Figures {
    pub fn of(rows: &[Row]) -> Self {
        let of = |effect: Effect| rows.iter().find(|row| row.effect == effect);
        let caught = || Effect::CAUGHT.into_iter().filter_map(of);
        Self {
            aa_false_rollback: of(Effect::None).map_or(0.0, |row| row.rolled_back),
            power: caught().map(|row| (row.effect.name(), row.rolled_back)).collect(),
            samples_over_wald: caught().map(|row| (row.effect.name(), row.over_wald())).collect(),
            threshold_aa_false_rollback: of(Effect::None).map_or(0.0, |row| row.threshold[0]),
        }
    }
}

/// `runs` rollouts for each effect, and a fifth of that for those within the limits.
///
/// # Errors
/// If the manifest cannot be rolled out.
pub fn decisions(runs: u32, seed: u64, effects: &[Effect]) -> Result<Vec<Row>> {
    let policy = Policy::new(MANIFEST)?;
    effects.iter().map(|effect| row(&policy, *effect, effect.runs(runs), seed)).collect()
}

fn row(policy: &Policy, effect: Effect, runs: u32, seed: u64) -> Result<Row> {
    let versions = effect.versions();
    let threshold = Threshold {
        requests_per_second: policy.requests_per_second,
        steps: [(0.1, 5), (0.5, 5)],
        max_error_rate_increase: 0.005,
        max_latency_increase: 0.2,
        max_disagreement: 0.01,
    };
    /// A rollout, and whether the threshold was exceeded at a check, and at three.
    type Seen = (Run, [bool; 2]);
    let one = |run: u32| -> Result<Seen> {
        let rng = || Rng::with_seed(seed_of(seed, effect, run));
        let failures = threshold.failures(&versions, &mut rng());
        Ok((policy.roll_out(&versions, &mut rng())?, [failures > 0, failures > 2]))
    };
    let done: Vec<Seen> = spread(runs, one)?;
    let share = |of: &dyn Fn(&Seen) -> bool| {
        float(u64::try_from(done.iter().filter(|run| of(run)).count()).unwrap_or(u64::MAX)) / f64::from(runs)
    };
    let rolled_back = share(&|(run, _)| run.end == End::RolledBack);
    let wanted = if effect.rates().is_some() { End::RolledBack } else { End::Promoted };
    let missed = (1.0 - rolled_back).max(1.0 / f64::from(runs));
    let wald = |beta: f64| effect.rates().map(|(p0, p1)| expected_trials(p0, p1, ALPHA, beta));
    let ended = || done.iter().filter(|(run, _)| run.end == wanted);
    Ok(Row {
        effect,
        rolled_back,
        promoted: share(&|(run, _)| run.end == End::Promoted),
        median_requests: median(ended().map(|(run, _)| run.requests).collect(), runs),
        median_seconds: median(ended().map(|(run, _)| run.seconds).collect(), runs),
        wald: wald(missed),
        wald_nominal: wald(BETA),
        threshold: [0, 1].map(|i| share(&|(_, by)| by[i])),
    })
}

/// Another stream of random numbers for each effect and run (the finalizer of SplitMix64, Steele et al. 2014).
fn seed_of(seed: u64, effect: Effect, run: u32) -> u64 {
    let mut z = seed ^ ((effect as u64 + 1) << 32 | u64::from(run)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Runs on all processors; the results are in the order of the runs.
fn spread<T: Send>(runs: u32, one: impl Fn(u32) -> Result<T> + Sync) -> Result<Vec<T>> {
    let threads =
        std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(1)).min(runs.max(1));
    let parts: Vec<Result<Vec<(u32, T)>>> = std::thread::scope(|scope| {
        let one = &one;
        let part = |thread: u32| {
            let of_thread = (thread..runs).step_by(threads as usize);
            scope.spawn(move || of_thread.map(|run| Ok((run, one(run)?))).collect())
        };
        let threads: Vec<_> = (0..threads).map(part).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        threads.into_iter().map(join).collect()
    });
    let mut all: Vec<(u32, T)> = parts.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
    all.sort_by_key(|(run, _)| *run);
    Ok(all.into_iter().map(|(_, result)| result).collect())
}

/// Of `of` values, the missing ones larger than all; `None` where that is the median.
fn median<T: Ord + Copy>(mut values: Vec<T>, of: u32) -> Option<T> {
    values.sort_unstable();
    values.get((of as usize).saturating_sub(1) / 2).copied()
}

#[expect(clippy::cast_precision_loss, reason = "counts")]
fn float(count: u64) -> f64 {
    count as f64
}
