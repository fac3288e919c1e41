//! A change in words, before it is made: what `--dry-run` and `diff` tell people.

mod tested;

use modelyard_core::inputs::DesiredDeployment;
use modelyard_core::state::{Phase, Revision};
use modelyard_core::{Analysis, Course, DeploymentName, Stage, Strategy};

use crate::capacity::surge;

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
        stable if !new.variants.is_empty() => lines.extend(test(name, stable, new, after)),
        None => lines.push(format!("{}; all traffic goes to them as they get ready", start(new))),
        Some(stable) if stable.variants.is_empty() && stable.workload(name).id == new.workload(name).id => {
            lines.push(rescale(stable, new));
        }
        Some(stable) => lines.extend(replace(name, stable, new, after)),
    }
    lines.into_iter().map(|line| format!("{name}: {line}")).collect()
}

fn test(name: &DeploymentName, stable: Option<&Revision>, new: &Revision, after: &DesiredDeployment) -> Vec<String> {
    let Some(test) = new.spec.strategy.ab_test() else { return Vec::new() };
    let mut lines = tested::begin(name, new, test, after);
    let is_replaced = |stable: &&Revision| {
        let kept = new.workloads(name);
        stable.workloads(name).iter().any(|workload| kept.iter().all(|k| k.id != workload.id))
    };
    lines.extend(stable.filter(is_replaced).map(|stable| keep(&versions(name, stable), new, None)));
    lines
}

/// `version 1`; of an A/B test `versions 1, 2`.
fn versions(name: &DeploymentName, revision: &Revision) -> String {
    let workloads = revision.workloads(name);
    let versions: Vec<_> = workloads.iter().map(|w| w.version.as_str()).collect();
    match versions.as_slice() {
        [version] => format!("version {version}"),
        several => format!("versions {}", several.join(", ")),
    }
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
    let (old, version) = (&versions(name, stable), &new.version.version);
    let room = Room::of(name, stable, new, after);
    let is_warm = room.warm;
    let mut lines = Vec::new();
    match room.capacity {
        _ if is_warm && !stable.variants.is_empty() => {
            lines.push(format!("version {version} runs already: no worker starts"));
        }
        _ if is_warm => lines.push(format!("version {version} is still warm: no worker starts")),
        None => lines.push(format!("{} beside {old}", start(new))),
        Some(0 | 1) => lines.push(format!(
            "stop {old}, then {} in its place: there is room for one, and nothing serves in between",
            start(new)
        )),
        Some(capacity) => lines.push(format!(
            "{} in the place of {old}, one after the other: at most {capacity} worker(s) of both",
            start(new)
        )),
    }
    match &new.spec.strategy {
        _ if new.cause.is_rollback() && is_warm => lines.push("move all traffic at once".into()),
        _ if room.capacity.is_some_and(|_| new.cause.is_rollback()) => lines.push(as_they_get_ready()),
        _ if new.cause.is_rollback() => lines.push("move all traffic when the first is ready".into()),
        Strategy::Rolling { .. } if room.capacity.is_some() => lines.push(as_they_get_ready()),
        Strategy::Canary(_) if room.capacity.is_some_and(|capacity| capacity < 2) => {
            lines.push("move all traffic when it is ready: the canary's steps need room for two workers".into());
        }
        Strategy::Rolling { .. } if is_warm => lines.push("move all traffic at once".into()),
        Strategy::Rolling { .. } => lines.push("move all traffic when they are ready".into()),
        strategy => lines.extend(strategy.course().into_iter().flat_map(|course| walk(&course, old))),
    }
    lines.push(keep(old, new, room.kept_warm));
    lines
}

/// What becomes of what is replaced. `kept`: how many workers there is room for; `None`: all.
fn keep(old: &str, new: &Revision, kept: Option<u32>) -> String {
    match (new.spec.rollback_window, kept) {
        (window, _) if window.as_millis() == 0 => format!("stop {old}"),
        (window, None) => format!("keep {old} warm for {window}"),
        (_, Some(0)) => format!("stop {old}, for want of room: a rollback starts it again, in place"),
        (window, Some(kept)) => format!("keep {kept} worker(s) of {old} warm for {window}"),
    }
}

fn as_they_get_ready() -> String {
    "move traffic to them as they get ready".into()
}

/// What `maxSurge` comes to.
struct Room {
    /// Workers of both versions together; `None` where both fit side by side.
    capacity: Option<u32>,
    /// Whether enough of the new version still runs to serve at once.
    warm: bool,
    /// Workers of the replaced version that stay; `None`: all.
    kept_warm: Option<u32>,
}

impl Room {
    fn of(name: &DeploymentName, stable: &Revision, new: &Revision, after: &DesiredDeployment) -> Self {
        let (from, to) = (stable.workload(name), new.workload(name));
        let warm: Vec<_> = after.state.warm.iter().filter_map(|w| after.revisions.get(&w.revision)).collect();
        let is_warm = tested::is_running(name, new, after);
        // Variants of an A/B test are whole, side by side: what follows one is not bounded.
        if [stable].iter().chain(&warm).any(|r| !r.variants.is_empty()) {
            return Self { capacity: None, warm: is_warm, kept_warm: None };
        }
        let Some(surge) = surge(new, warm.into_iter().chain([stable])) else {
            return Self { capacity: None, warm: is_warm, kept_warm: None };
        };
        let capacity = from.size().max(to.size()).saturating_add(surge);
        let kept = surge.min(from.size());
        Self {
            capacity: Some(capacity).filter(|capacity| *capacity < from.size().saturating_add(to.size())),
            // Fewer fit beside what serves now.
            warm: is_warm && surge >= to.size(),
            kept_warm: Some(kept).filter(|kept| *kept < from.size()),
        }
    }
}

/// The stages, and what each must show.
fn walk(course: &Course, old: &str) -> Vec<String> {
    let (before, steps): (Vec<_>, Vec<_>) = course.stages.iter().partition(|stage| stage.weight.is_zero());
    let mut lines: Vec<_> = before.into_iter().map(|stage| unseen(stage, course)).collect();
    let steps: Vec<_> = steps.into_iter().map(|s| format!("{} (hold {})", s.weight, s.hold)).collect();
    lines.push(match steps.as_slice() {
        [] => "move all traffic at once".into(),
        steps => format!("move traffic {} → 100 %", steps.join(" → ")),
    });
    if let Some(analysis) = &course.analysis {
        lines.push(format!("each step needs {}; otherwise back to {old}", limits(analysis)));
    }
    lines
}

/// A stage without traffic.
fn unseen(stage: &Stage, course: &Course) -> String {
    let variant = course.variant();
    let until = match stage.hold {
        _ if stage.until_promoted => ", until it is promoted".into(),
        hold if hold.as_millis() == 0 => String::new(),
        hold => format!(", for {hold}"),
    };
    match &stage.mirror {
        Some(mirror) => format!("ask it what {} of the requests ask, as variant `{variant}`{until}", mirror.share),
        None => format!("answer by it only who asks for the variant `{variant}`{until}"),
    }
}

fn limits(analysis: &Analysis) -> String {
    let mut words = vec![format!("at least {} requests", analysis.min_requests)];
    words.extend(analysis.max_error_rate.map(|rate| format!("an error rate of at most {rate}")));
    words.extend(
        analysis
            .max_error_rate_increase
            .map(|rate| format!("an error rate at most {rate} above that of the old version")),
    );
    words.extend(analysis.latency_limits().map(|(of, limit)| format!("a {of} latency of at most {limit}")));
    let increases = &analysis.max_latency_increase.0;
    words.extend(increases.iter().map(|(of, by)| format!("a {of} latency at most {by} above that of the old version")));
    words.extend(analysis.max_disagreement.map(|rate| format!("other answers to at most {rate} of mirrored requests")));
    words.extend(analysis.prometheus.iter().map(|gate| format!("at most {} for `{}`", gate.max, gate.query)));
    words.join(", ")
}
