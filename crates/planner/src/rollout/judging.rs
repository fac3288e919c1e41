//! What a walk makes of the evidence: the verdict on its step, and the warm-up that comes before.

use modelyard_core::verdict::{Check, Decision, Verdict};
use modelyard_core::{Analysis, Evidence, EvidenceKey, RevisionNumber, VariantName};

use super::Walk;
use crate::routes::window;
use crate::verdict::{Stage, Trial, judge};

impl Walk<'_> {
    /// The verdict on the step under way, of so many steps, as of now. `mirrors`: whether requests are mirrored in it.
    pub(super) fn judged(&self, analysis: &Analysis, steps: usize, mirrors: bool) -> Verdict {
        let candidate = self.evidence(self.rollout.revision, self.target_variant());
        let stable = self.state.stable.map(|stable| self.evidence_of_all(stable)).unwrap_or_default();
        let stage = if self.rollout.warming {
            Stage::WarmUp { requests: self.warm_up_requests(analysis) }
        } else {
            Stage::Judged
        };
        judge(&Trial {
            analysis,
            step: self.rollout.step,
            steps: u32::try_from(steps).unwrap_or(u32::MAX),
            // What the stage before it mirrored may still come in.
            is_mirrored: mirrors || !candidate.disagreement.is_empty(),
            candidate: &candidate,
            stable: &stable,
            weight: self.rollout.weight,
            stage,
            since: self.rollout.since,
            now: self.inputs.now,
            measurements: &self.inputs.measurements,
        })
    }

    /// What the stable revision showed: under that name, or if it is an A/B test under the names of its variants, since a
    /// version on trial takes its share from all of them.
    fn evidence_of_all(&self, stable: RevisionNumber) -> Evidence {
        let variants = self.revisions.get(&stable).map(|revision| revision.variants.as_slice()).unwrap_or_default();
        if variants.is_empty() {
            return self.evidence(stable, VariantName::stable());
        }
        let mut all = Evidence::default();
        variants.iter().for_each(|variant| all.merge(&self.evidence(stable, variant.name.clone())));
        all
    }

    /// What a revision showed in the present window.
    fn evidence(&self, revision: RevisionNumber, variant: VariantName) -> Evidence {
        let key = EvidenceKey { deployment: self.name.clone(), window: window(&self.rollout), revision, variant };
        self.inputs.evidence.get(&key).cloned().unwrap_or_default()
    }

    fn warm_up_requests(&self, analysis: &Analysis) -> u64 {
        u64::from(analysis.warmup) * u64::from(self.ready_replicas(self.rollout.revision).max(1))
    }

    /// Whether a step begins with workers that have answered nothing yet: the first one, and where workers come with
    /// each step, every one.
    pub(super) fn needs_warm_up(&self, step: u32, is_tight: bool) -> bool {
        let course = self.course().filter(|course| (step as usize) < course.stages.len());
        let warmup = course.and_then(|course| course.analysis).map_or(0, |analysis| analysis.warmup);
        warmup > 0 && (step == 0 || is_tight)
    }

    /// Ends the warm-up once its requests have come. What follows counts for a window of its own.
    pub(super) fn leave_warm_up(&mut self, analysis: Option<&Analysis>) -> bool {
        let Some(analysis) = analysis.filter(|_| self.rollout.warming) else { return false };
        let seen = self.evidence(self.rollout.revision, self.target_variant()).requests;
        let is_warm = seen >= self.warm_up_requests(analysis);
        self.rollout.warming = !is_warm;
        is_warm
    }

    /// Says what evidence is missing, of which version, and by when it is to be expected.
    pub(super) fn wait_for_evidence(&mut self, verdict: &Verdict) {
        let Decision::NeedMoreData { have, want, at } = verdict.decision else { return };
        let version = self.target_version();
        let is_open = |check: &&Check| check.holds && !check.passes;
        let unanswered: Vec<_> =
            verdict.checks.iter().filter(is_open).filter(|c| c.limit.starts_with("prometheus")).collect();
        let open = verdict.checks.iter().filter(is_open).count();
        if open > 0 && open == unanswered.len() {
            let limits: Vec<_> =
                unanswered.into_iter().map(|check| format!("{} ({})", check.limit, check.why)).collect();
            return self.wait(format!("a number for {}", limits.join(", ")));
        }
        let what = if self.rollout.warming { "more warm-up requests" } else { "more requests" };
        let mut words = match want {
            Decision::UNFORESEEABLE.. => {
                format!("more requests to version {version}: {have} do not tell it from its limit")
            }
            _ => format!("{} {what} to version {version} ({have} of {want})", want - have),
        };
        words += &match at {
            Some(at) => format!(", expected by {at}"),
            None if have == 0 => ": none has come yet".to_owned(),
            None => String::new(),
        };
        self.wait(words);
    }
}
