//! The verdict on a step: its evidence against the limits of its analysis.
//!
//! Each gate asks two questions of the evidence, whenever it is looked at (see [`crate::sequential`]):
//!
//! - **Does the version exceed the limit, beyond doubt?** Then it fails. Against an absolute limit the doubt is
//!   that it keeps the limit; against the stable version it is that it is no worse, and the estimate must
//!   be above the limit as well: what is worse by less than the limit is meant to be let pass. The doubt left is the gate's
//!   part of `alpha`.
//! - **Does it keep the limit, beyond doubt?** Then it passes. The doubt left is 1 - `power`. A version that exceeds a
//!   limit must pass that gate in every step to get through, so this chance is not shared out.
//!
//! `alpha` is: over the steps, half for the first one, which sees most of what is bad and risks least traffic, and the
//! rest in equal parts; within a step in equal parts over its gates; within a gate on errors a tenth for the
//! warm-up. By the union bound the chance that any of them ever fails a version wrongly is at most `alpha`.

mod gates;

use std::collections::BTreeMap;

use modelyard_core::verdict::{Check, Decision, StableCounts, Verdict};
use modelyard_core::{Analysis, Evidence, Figure, Span, Timestamp, Weight};

use crate::sequential::{Tail, float};

/// What is judged: a step, and what its window has shown so far.
#[derive(Debug, Clone)]
pub struct Trial<'a> {
    pub analysis: &'a Analysis,
    /// From 0.
    pub step: u32,
    pub steps: u32,
    /// Of the version on trial.
    pub candidate: &'a Evidence,
    /// Of the stable version in the same window.
    pub stable: &'a Evidence,
    /// The share of requests that the version on trial gets.
    pub weight: Weight,
    pub stage: Stage,
    /// Whether requests of this step are mirrored; without that no answers are compared, and disagreement is no gate.
    pub is_mirrored: bool,
    /// When the step began.
    pub since: Timestamp,
    pub now: Timestamp,
    /// What a Prometheus answered, by query.
    pub measurements: &'a BTreeMap<String, Result<Figure, String>>,
}

/// Which part of a step is judged. Each has a window, and so evidence, of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The first so many requests: nothing passes, and slow answers are no reason to fail.
    WarmUp {
        requests: u64,
    },
    Judged,
}

/// How sure a gate must be: the chances of a wrong failure, and of a wrong pass.
#[derive(Debug, Clone, Copy)]
struct Levels {
    alpha: f64,
    beta: f64,
}

/// The part of a step's alpha that is for errors of the warm-up.
const WARM_UP_PART: f64 = 0.1;

impl Levels {
    fn of(trial: &Trial<'_>) -> Self {
        let analysis = trial.analysis;
        let of_step = match (trial.step, trial.steps) {
            (_, 0 | 1) => 1.0,
            (0, _) => 0.5,
            (_, steps) => 0.5 / f64::from(steps - 1),
        };
        let gates = float(u64::try_from(analysis.tested_gates().max(1)).unwrap_or(u64::MAX));
        Self { alpha: analysis.alpha.share() * of_step / gates, beta: 1.0 - analysis.power.share() }
    }

    fn part(self, part: f64) -> Self {
        Self { alpha: self.alpha * part, ..self }
    }
}

/// What a gate found, and how many requests of the version it expects a decision to take.
struct Finding {
    check: Check,
    want: f64,
}

impl Finding {
    fn is_open(&self) -> bool {
        self.check.holds && !self.check.passes
    }
}

/// Judges what a revision has shown in one step so far.
///
/// It fails by one gate, and passes by all of them and `minRequests`. A version that fails everything fails within a few
/// requests; slow answers, which come in bursts, fail no version before `minRequests`. One that answered none of `minRequests` requests fails its limits on latency.
pub fn judge(trial: &Trial<'_>) -> Verdict {
    let evidence = trial.candidate;
    let tails = (Tail::of(&evidence.latency), Tail::of(&trial.stable.latency));
    let levels = Levels::of(trial);
    let has_warmup = trial.analysis.warmup > 0;
    let mut found = match trial.stage {
        Stage::WarmUp { .. } => gates::errors(trial, levels.part(WARM_UP_PART)),
        Stage::Judged => gates::errors(trial, if has_warmup { levels.part(1.0 - WARM_UP_PART) } else { levels }),
    };
    if trial.stage == Stage::Judged {
        found.extend(gates::latencies(trial, &tails.0, &tails.1, levels));
        found.extend(gates::disagreement(trial, levels));
        found.extend(gates::prometheus(trial));
    }
    let decision = decide(trial, &found);
    Verdict {
        decision,
        requests: evidence.requests,
        errors: evidence.errors,
        p99_micros: evidence.latency.quantile_micros(99, 100),
        stable: (trial.stable.requests > 0).then(|| StableCounts {
            requests: trial.stable.requests,
            errors: trial.stable.errors,
            p99_micros: trial.stable.latency.quantile_micros(99, 100),
        }),
        checks: found.into_iter().map(|finding| finding.check).collect(),
    }
}

fn decide(trial: &Trial<'_>, found: &[Finding]) -> Decision {
    let have = trial.candidate.requests;
    if found.iter().any(|finding| !finding.check.holds) {
        return Decision::Fail;
    }
    let want = match trial.stage {
        Stage::WarmUp { requests } => requests,
        Stage::Judged if have >= trial.analysis.min_requests && !found.iter().any(Finding::is_open) => {
            return Decision::Pass;
        }
        Stage::Judged => {
            let open = found.iter().filter(|finding| finding.is_open());
            open.map(|finding| whole(finding.want)).fold(trial.analysis.min_requests, u64::max)
        }
    };
    let want = want.max(have + 1);
    Decision::NeedMoreData { have, want, at: expected_at(trial, want) }
}

/// When that many requests will have come, if they go on coming as they did since the step began.
fn expected_at(trial: &Trial<'_>, want: u64) -> Option<Timestamp> {
    let have = trial.candidate.requests;
    let passed = trial.now.since(trial.since).as_millis();
    if have == 0 || passed == 0 || want >= Decision::UNFORESEEABLE {
        return None;
    }
    let left = u128::from(want - have) * u128::from(passed) / u128::from(have);
    // Beyond a century nothing is expected.
    let left = u64::try_from(left).ok().filter(|ms| *ms <= 36_500 * 86_400_000)?;
    Some(trial.now + Span::from_millis(left))
}

/// An expected number, rounded up to a whole one.
fn whole(expected: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, which is what is wanted")]
    let whole = expected.ceil().max(0.0) as u64;
    whole.min(Decision::UNFORESEEABLE)
}
