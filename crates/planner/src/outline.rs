//! A change in words, before it is made: what `--dry-run` and `diff` tell people.

use modelyard_core::inputs::DesiredDeployment;
use modelyard_core::state::{Phase, Revision};
use modelyard_core::{Analysis, Canary, DeploymentName, Strategy};

/// The walk that leads from one desired deployment to another, in sentences. Empty if nothing changes.
pub fn outline(name: &DeploymentName, before: Option<&DesiredDeployment>, after: &DesiredDeployment) -> Vec<String> {
    if before.is_some_and(|b| b.target == after.target) {
        return Vec::new();
    }
    let Some(new) = after.revisions.get(&after.target) else { return Vec::new() };
    let stable = after.state.stable.and_then(|number| after.revisions.get(&number));
    let mut lines = Vec::new();
    if let Some(rollout) = after.state.rollout.as_ref().filter(|r| r.phase != Phase::Completed) {
        lines.push(format!("end the rollout to revision {} at {}", rollout.revision, rollout.weight));
    }
    match stable {
        None => lines.push(format!("{}; all traffic goes to them as they get ready", start(new))),
        Some(stable) if stable.workload(name).id == new.workload(name).id => lines.push(rescale(stable, new)),
        Some(stable) => lines.extend(replace(name, stable, new, after)),
    }
    lines.into_iter().map(|line| format!("{name}: {line}")).collect()
}

fn start(new: &Revision) -> String {
    let (replicas, model, version) = (new.spec.replicas, &new.version.model, &new.version.version);
    format!("start {replicas} worker(s) of {model} version {version}")
}

fn rescale(stable: &Revision, new: &Revision) -> String {
    let version = &new.version.version;
    match (stable.spec.replicas, new.spec.replicas) {
        (from, to) if from == to => format!("version {version} goes on serving; its own workers stay as they are"),
        (from, to) => format!("version {version} goes on serving; workers {from} → {to}"),
    }
}

fn replace(name: &DeploymentName, stable: &Revision, new: &Revision, after: &DesiredDeployment) -> Vec<String> {
    let old = &stable.version.version;
    let is_warm = |w: &modelyard_core::state::Warm| {
        after.revisions.get(&w.revision).is_some_and(|r| r.workload(name).id == new.workload(name).id)
    };
    let is_warm = after.state.warm.iter().any(is_warm);
    let mut lines = Vec::new();
    if is_warm {
        lines.push(format!("version {} is still warm: no worker starts", new.version.version));
    } else {
        lines.push(format!("{} beside version {old}", start(new)));
    }
    match &new.spec.strategy {
        _ if new.cause.is_rollback() && is_warm => lines.push("move all traffic at once".into()),
        _ if new.cause.is_rollback() => lines.push("move all traffic when the first is ready".into()),
        Strategy::Rolling { .. } => lines.push("move all traffic when they are ready".into()),
        Strategy::Canary(canary) => {
            lines.push(format!("move traffic {} → 100 %", steps(canary)));
            if let Some(analysis) = &canary.analysis {
                lines.push(format!("each step needs {}; otherwise back to version {old}", limits(analysis)));
            }
        }
    }
    lines.push(match new.spec.rollback_window {
        window if window.as_millis() == 0 => format!("stop version {old}"),
        window => format!("keep version {old} warm for {window}"),
    });
    lines
}

fn steps(canary: &Canary) -> String {
    let steps: Vec<_> = canary.steps.iter().map(|s| format!("{} (hold {})", s.weight, s.hold)).collect();
    steps.join(" → ")
}

fn limits(analysis: &Analysis) -> String {
    let mut words = vec![format!("{} requests", analysis.min_requests)];
    words.extend(analysis.max_error_rate.map(|rate| format!("an error rate of at most {rate}")));
    words.extend(analysis.max_latency_p99.map(|p99| format!("a p99 latency of at most {p99}")));
    words.join(", ")
}
