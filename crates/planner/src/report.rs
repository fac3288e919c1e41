//! The status of a deployment: its variants, its conditions, and what it waits on, so that nobody reads logs to learn
//! why.

use modelyard_core::inputs::{Drift, Inputs};
use modelyard_core::outcomes::SampleRatio;
use modelyard_core::plan::{Condition, ConditionKind, DeploymentReport, StepReport, VariantReport};
use modelyard_core::state::Phase;
use modelyard_core::{
    DeploymentName, ReplicaPhase, ReplicaStatus, Route, Variant, VariantName, Workload, WorkloadStatus,
};

use crate::rollout::Next;
use crate::troubles::troubles;

pub(crate) fn report(
    name: &DeploymentName,
    next: &Next,
    route: &Route,
    inputs: &Inputs,
    ratio: Option<&SampleRatio>,
) -> DeploymentReport {
    let variants: Vec<_> = route.variants.iter().map(|v| variant(v, next, inputs)).collect();
    let rollout = &next.rollout;
    let mut waiting_on = next.waiting_on.clone();
    let mut conditions = vec![available(&variants), progressing(next)];
    conditions.extend(degraded(next, &variants, inputs));
    conditions.extend(crash_looping(next, inputs));
    conditions.extend(drifted(next, inputs));
    conditions.extend(failing(name, inputs));
    conditions.extend(not_scaling(next, inputs));
    if next.inconclusive {
        let message = "the analysis has no verdict by the progress deadline: send traffic, promote or abort".into();
        conditions.push(Condition { kind: ConditionKind::Inconclusive, status: true, message });
    }
    conditions.extend(ratio.and_then(mismatch));
    // A wait on workers is explained by what keeps them from being ready.
    if next.is_coming_up {
        let target = next.runs(rollout.revision).into_iter().flat_map(|runs| runs.workloads());
        waiting_on.extend(target.flat_map(|workload| troubles(&workload.id, inputs)));
    }
    DeploymentReport {
        observed_revision: rollout.revision,
        phase: rollout.phase,
        paused: next.paused,
        step: step(next),
        variants,
        conditions,
        waiting_on,
        verdict: next.verdict.clone(),
    }
}

fn step(next: &Next) -> Option<StepReport> {
    let course = next.revision(next.rollout.revision)?.spec.strategy.course()?;
    let count = u32::try_from(course.stages.len()).unwrap_or(u32::MAX);
    // After the last step there may still be workers to come.
    let is_in_step = next.rollout.phase == Phase::Progressing && next.rollout.step < count;
    is_in_step.then_some(StepReport { index: next.rollout.step, count, since: next.rollout.since })
}

fn variant(variant: &Variant, next: &Next, inputs: &Inputs) -> VariantReport {
    let status = inputs.observation.of(&variant.workload).known();
    let is_warm = variant.name == VariantName::previous();
    let warm = next.state.warm.iter().find(|w| is_warm && w.revision == variant.revision);
    VariantReport {
        name: variant.name.clone(),
        revision: variant.revision,
        version: variant.version.clone(),
        workload: variant.workload.clone(),
        weight: variant.weight,
        replicas: replicas(variant, next, status),
        ready: count(variant.backends.len()),
        restarts: status.map_or(0, |s| s.replicas.iter().map(|r| r.restarts).sum()),
        warm_until: warm.map(|w| w.until),
    }
}

/// How many workers a variant should have by now. Where the cluster chooses, that is as many as there are.
fn replicas(variant: &Variant, next: &Next, status: Option<&WorkloadStatus>) -> u32 {
    let Some(wanted) = next.wanted.get(&variant.workload) else { return 0 };
    let Some(limits) = wanted.autoscaling else { return wanted.replicas };
    let staying = |s: &WorkloadStatus| s.replicas.iter().filter(|r| r.phase != ReplicaPhase::Draining).count();
    status.map_or(0, |s| count(staying(s))).max(limits.min_replicas)
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn available(variants: &[VariantReport]) -> Condition {
    let lacking: Vec<_> = variants.iter().filter(|v| !v.weight.is_zero() && v.ready == 0).collect();
    let message = match lacking.as_slice() {
        [] => "every variant with traffic has a ready worker".into(),
        lacking => {
            let names: Vec<_> = lacking.iter().map(|v| format!("{} (version {})", v.name, v.version)).collect();
            format!("no ready worker: {}", names.join(", "))
        }
    };
    Condition { kind: ConditionKind::Available, status: lacking.is_empty(), message }
}

/// A serving version below its number. Where the rollout waits on that version's workers, it says so itself.
fn degraded(next: &Next, variants: &[VariantReport], inputs: &Inputs) -> Option<Condition> {
    let is_coming_up = |v: &VariantReport| next.is_coming_up && v.revision == next.rollout.revision;
    // Enough may be ready while one that should take another's place is not.
    let is_troubled = |v: &VariantReport| v.ready < v.replicas || !troubles(&v.workload, inputs).is_empty();
    let lacking = |v: &&VariantReport| !v.weight.is_zero() && is_troubled(v) && !is_coming_up(v);
    let tell = |v: &VariantReport| {
        let but = if v.ready < v.replicas { "" } else { ", but" };
        let mut words = vec![format!("{} of {} workers of version {} are ready{but}", v.ready, v.replicas, v.version)];
        words.extend(troubles(&v.workload, inputs));
        words.join("; ")
    };
    let told: Vec<_> = variants.iter().filter(lacking).map(tell).collect();
    let message = told.join("; ");
    (!told.is_empty()).then_some(Condition { kind: ConditionKind::Degraded, status: true, message })
}

fn progressing(next: &Next) -> Condition {
    let rollout = &next.rollout;
    let message = match rollout.phase {
        Phase::Starting => format!("the workers of revision {} are coming up", rollout.revision),
        Phase::Progressing => format!("revision {} has {} of the traffic", rollout.revision, rollout.weight),
        Phase::Completed => format!("revision {} serves all traffic", rollout.revision),
    };
    Condition { kind: ConditionKind::Progressing, status: rollout.phase != Phase::Completed, message }
}

/// The workloads of the deployment that are known to run.
fn running<'o>(next: &'o Next, inputs: &'o Inputs) -> impl Iterator<Item = (&'o Workload, &'o WorkloadStatus)> {
    next.wanted.values().filter_map(|w| inputs.observation.of(&w.id).known().map(|status| (w, status)))
}

fn crash_looping(next: &Next, inputs: &Inputs) -> Option<Condition> {
    let is_looping = |r: &ReplicaStatus| matches!(r.phase, ReplicaPhase::BackOff { .. }) && r.restarts > 0;
    let (workload, replica) =
        running(next, inputs).find_map(|(w, status)| status.replicas.iter().find(|r| is_looping(r)).map(|r| (w, r)))?;
    let why = replica.message.as_deref().unwrap_or("it says nothing");
    let times = if replica.restarts == 1 { "once".to_owned() } else { format!("{} times", replica.restarts) };
    let message = format!("a worker of version {} ended {times}: {why}", workload.version);
    Some(Condition { kind: ConditionKind::CrashLooping, status: true, message })
}

/// What sorts units by variant, nobody knows yet; but it is known that the figures are wrong.
fn mismatch(ratio: &SampleRatio) -> Option<Condition> {
    if ratio.mismatch != Some(true) {
        return None;
    }
    let counts = ratio.counts.iter().map(|c| format!("{} {} (expected {:.0})", c.variant, c.units, c.expected));
    let message = format!(
        "units did not come to the variants in the ratio of their weights: {}; something sorts them, and the experiment's \
         figures are not to be believed",
        counts.collect::<Vec<_>>().join(", ")
    );
    Some(Condition { kind: ConditionKind::SampleRatioMismatch, status: true, message })
}

fn drifted(next: &Next, inputs: &Inputs) -> Option<Condition> {
    let drift = running(next, inputs).flat_map(|(w, status)| status.drift.iter().map(|d| (&w.id, d)));
    let mut told: Vec<_> = drift.map(|(id, words)| format!("{id}: {words}; it is being mended")).collect();
    if told.is_empty() {
        let mended = next.wanted.keys().filter_map(|id| Some((id, inputs.drifts.get(id)?)));
        told = mended.map(|(id, drift)| format!("{id}: {}", mended_words(drift))).collect();
    }
    (!told.is_empty()).then(|| Condition { kind: ConditionKind::Drifted, status: true, message: told.join("; ") })
}

fn mended_words(drift: &Drift) -> String {
    let differences: Vec<_> = drift.differences.iter().map(String::as_str).collect();
    let times = match drift.times {
        1 => "set back".to_owned(),
        times => format!("set back {times} times, last"),
    };
    format!("{}; {times} at {}", differences.join("; "), drift.last)
}

/// Of the workloads that are wanted, those whose number the cluster is to choose and does not.
fn not_scaling(next: &Next, inputs: &Inputs) -> Option<Condition> {
    let failing = running(next, inputs).filter_map(|(w, status)| Some((&w.id, status.autoscaler.as_ref()?)));
    let told: Vec<_> = failing.map(|(id, words)| format!("{id}: {words}")).collect();
    let message = told.join("; ");
    (!told.is_empty()).then_some(Condition { kind: ConditionKind::AutoscalerFailing, status: true, message })
}

/// Of all its workloads, those included that nothing wants any more.
fn failing(name: &DeploymentName, inputs: &Inputs) -> Option<Condition> {
    let of_it = inputs.failures.iter().filter(|(id, _)| id.deployment() == name.as_str());
    let told: Vec<_> = of_it.map(|(_, words)| words.as_str()).collect();
    let message = format!("{}; trying again", told.join("; "));
    (!told.is_empty()).then_some(Condition { kind: ConditionKind::WorkloadFailure, status: true, message })
}
