//! Deployments and rollouts in words: what tables, `describe`, `rollout status` and `--wait` share. Text only.

use std::fmt::Write;

use modelyard_api::types::{Deployment, RecordedVerdict, Rollout};
use modelyard_core::plan::{Condition, ConditionKind, DeploymentReport, VariantReport};
use modelyard_core::state::{Outcome, Phase};
use modelyard_core::verdict::{Check, Decision};

use super::output::{Table, count};
use super::when::clock;

pub(super) fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Starting => "starting",
        Phase::Progressing => "progressing",
        Phase::Completed => "completed",
    }
}

/// `progressing, step 1 of 2`, with ` (paused)`.
pub(super) fn progress(report: &DeploymentReport) -> String {
    let mut text = phase(report.phase).to_owned();
    // After the last step the numbers of the step say nothing any more.
    if let Some(step) = report.step.filter(|_| report.phase != Phase::Completed) {
        text += &format!(", step {} of {}", step.index + 1, step.count);
    }
    if report.paused {
        text += " (paused)";
    }
    text
}

/// `stable 1 90 %, canary 2 10 %`: the variants that get traffic.
pub(super) fn weights(report: &DeploymentReport) -> String {
    let serving = report.variants.iter().filter(|v| !v.weight.is_zero());
    let parts: Vec<String> = serving.map(|v| format!("{} {} {}", v.name, v.version, v.weight)).collect();
    if parts.is_empty() { "no traffic".into() } else { parts.join(", ") }
}

/// `stable 2/2, canary 1/2`: workers ready of those wanted, and restarts where there were any.
pub(super) fn ready(report: &DeploymentReport) -> String {
    let of = |v: &VariantReport| {
        let restarts = if v.restarts == 0 { String::new() } else { format!(" ({})", count(v.restarts, "restart")) };
        format!("{} {}/{}{restarts}", v.name, v.ready, v.replicas)
    };
    report.variants.iter().map(of).collect::<Vec<_>>().join(", ")
}

/// What changes only when something happens: the part of a progress line that is printed at once.
pub(super) fn steady(deployment: &Deployment) -> String {
    match &deployment.status {
        None => format!("revision {} accepted; the control plane has not looked at it yet", deployment.generation),
        Some(report) => format!(
            "revision {} {} | {} | ready {}",
            report.observed_revision,
            progress(report),
            weights(report),
            ready(report)
        ),
    }
}

/// What it waits on and the analysis so far: numbers that change all the time.
pub(super) fn waiting(deployment: &Deployment) -> String {
    let Some(report) = &deployment.status else { return String::new() };
    let mut parts = Vec::new();
    if !report.waiting_on.is_empty() {
        parts.push(format!("waiting on {}", report.waiting_on.join("; ")));
    }
    if let Some(verdict) = report.verdict.as_ref().filter(|_| report.phase != Phase::Completed) {
        parts.push(format!("analysis: {verdict}"));
    }
    parts.join(" | ")
}

/// The outcome, with the time it came.
pub(super) fn outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Completed { at } => format!("completed {}", clock(*at)),
        other => other.to_string(),
    }
}

/// `rollout status` for people.
pub(super) fn rollout(rollout: &Rollout) -> String {
    let mut s = String::new();
    field(&mut s, "deployment", rollout.deployment.as_str());
    field(&mut s, "revision", &format!("{} (version {}), {}", rollout.revision, rollout.version, rollout.cause));
    field(&mut s, "outcome", &outcome(&rollout.outcome));
    match &rollout.status {
        Some(report) => {
            s += &status(report);
            for condition in report.conditions.iter().filter(|c| is_trouble(c)) {
                field(&mut s, "trouble", &format!("{:?}: {}", condition.kind, condition.message));
            }
        }
        None => field(&mut s, "phase", rollout.phase.map_or("not begun", phase)),
    }
    if !rollout.verdicts.is_empty() {
        s += "\nverdicts:\n";
        s += &verdicts(&rollout.verdicts).to_string();
    }
    s
}

/// The conditions that somebody should look at, by their names.
pub(super) fn troubles(report: &DeploymentReport) -> String {
    let name = |condition: &Condition| match condition.kind {
        ConditionKind::Available => "NotAvailable".to_owned(),
        kind => format!("{kind:?}"),
    };
    report.conditions.iter().filter(|c| is_trouble(c)).map(name).collect::<Vec<_>>().join(", ")
}

fn is_trouble(condition: &Condition) -> bool {
    match condition.kind {
        ConditionKind::Available => !condition.status,
        ConditionKind::Progressing => false,
        ConditionKind::Degraded
        | ConditionKind::CrashLooping
        | ConditionKind::Drifted
        | ConditionKind::Inconclusive
        | ConditionKind::SampleRatioMismatch
        | ConditionKind::WorkloadFailure
        | ConditionKind::AutoscalerFailing => condition.status,
    }
}

/// The report's fields, one per line.
pub(super) fn status(report: &DeploymentReport) -> String {
    let mut s = String::new();
    let since = report.step.filter(|_| report.phase != Phase::Completed);
    let since = since.map_or_else(String::new, |step| format!(", since {}", clock(step.since)));
    field(&mut s, "phase", &format!("{}{since}", progress(report)));
    field(&mut s, "weights", &weights(report));
    field(&mut s, "ready", &ready(report));
    if let Some(verdict) = &report.verdict {
        let p99 = verdict.p99_micros.map_or_else(String::new, |p99| format!(", p99 {}", millis(p99)));
        let numbers = format!("{}, {}{p99}", count(verdict.requests, "request"), count(verdict.errors, "error"));
        field(&mut s, "verdict", &format!("{} ({numbers})", decision(&verdict.decision)));
        for check in &verdict.checks {
            field(&mut s, "", &gate(check));
        }
    }
    for (i, what) in report.waiting_on.iter().enumerate() {
        field(&mut s, if i == 0 { "waiting on" } else { "" }, what);
    }
    s
}

/// The decision alone; each gate has a line of its own.
fn decision(decision: &Decision) -> String {
    match decision {
        Decision::Pass => "pass".into(),
        Decision::Fail => "fail".into(),
        Decision::NeedMoreData { have, want, at } => {
            let expected = at.map_or_else(String::new, |at| format!(", expected by {}", clock(at)));
            let of = match *want {
                Decision::UNFORESEEABLE.. => String::new(),
                want => format!(" of {want}"),
            };
            format!("need more data: {have}{of} requests{expected}")
        }
    }
}

/// What was compared, the estimate and its interval, what follows, and why.
fn gate(check: &Check) -> String {
    let mut text = check.to_string();
    if let Some(estimate) = check.estimate {
        let interval = Some(check.interval()).filter(|words| !words.is_empty());
        let interval = interval.map_or_else(String::new, |words| format!(", {words}"));
        text += &format!(" ({}{interval})", check.unit.tell(estimate));
    }
    if !check.why.is_empty() {
        text += &format!(": {}", check.why);
    }
    text
}

/// A name and its value, aligned with the others.
pub(super) fn field(s: &mut String, name: &str, value: &str) {
    // A worker's own words may have several lines.
    let value = value.replace(['\n', '\r'], " ");
    // Writing to a String does not fail.
    writeln!(s, "{name:<12}{value}").ok();
}

pub(super) fn verdicts(verdicts: &[RecordedVerdict]) -> Table {
    let mut table = Table::new(["AT", "STEP", "REQUESTS", "ERRORS", "P99", "VERDICT"]);
    for RecordedVerdict { at, step, verdict } in verdicts {
        table.row([
            clock(*at),
            (step + 1).to_string(),
            verdict.requests.to_string(),
            verdict.errors.to_string(),
            verdict.p99_micros.map_or_else(String::new, millis),
            verdict.to_string(),
        ]);
    }
    table
}

/// Microseconds as milliseconds: `1.25 ms`.
fn millis(micros: u64) -> String {
    format!("{}.{:02} ms", micros / 1000, micros % 1000 / 10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::samples;

    #[test]
    fn a_rollout_is_told_with_its_numbers() {
        insta::assert_snapshot!(rollout(&samples::rollout()));
    }

    #[test]
    fn progress_lines_part_what_happened_from_what_only_counts() {
        let mut deployment = samples::deployment();
        insta::assert_snapshot!(format!("{}\n{}", steady(&deployment), waiting(&deployment)));
        deployment.status = None;
        assert_eq!(steady(&deployment), "revision 2 accepted; the control plane has not looked at it yet");
        assert_eq!(waiting(&deployment), "");
    }

    #[test]
    fn a_completed_rollout_names_no_step() {
        let mut report = samples::deployment().status.unwrap();
        report.phase = Phase::Completed;
        report.paused = true;
        assert_eq!(progress(&report), "completed (paused)");
        report.variants.clear();
        assert_eq!(weights(&report), "no traffic");
    }
}
