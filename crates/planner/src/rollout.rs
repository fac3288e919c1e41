//! The walk of one deployment from revision to revision. Read [`advance`] and follow the verbs.

mod events;
mod in_place;
mod judging;
mod known;
mod shares;

use std::borrow::Cow;
use std::collections::BTreeMap;

use modelyard_core::event::{EventDraft, EventKind};
use modelyard_core::inputs::{DesiredDeployment, Inputs};
use modelyard_core::plan::{Commit, RollbackDraft};
use modelyard_core::state::{Cause, DeploymentState, Outcome, Phase, Revision, Rollout, Warm};
use modelyard_core::verdict::{Decision, Verdict};
use modelyard_core::{
    Actor, Course, DeploymentName, Experiment, OnInconclusive, RevisionNumber, Stage, Timestamp, Weight, Workload,
    WorkloadId,
};
use serde_json::json;

pub(crate) use shares::split;

use crate::runs::Runs;
use shares::shares;

/// Where a deployment stands after this pass.
pub(crate) struct Next<'a> {
    pub(crate) state: DeploymentState,
    /// The rollout of `state`: there always is one by now.
    pub(crate) rollout: Rollout,
    pub(crate) revisions: Cow<'a, BTreeMap<RevisionNumber, Revision>>,
    runs: BTreeMap<RevisionNumber, Runs>,
    /// What is to be kept running, as it is to run now.
    pub(crate) wanted: BTreeMap<WorkloadId, Workload>,
    /// What is to be written; `None` if nothing changed.
    pub(crate) commit: Option<Commit>,
    pub(crate) paused: bool,
    pub(crate) waiting_on: Vec<String>,
    /// Workers of the target are waited for.
    pub(crate) is_coming_up: bool,
    /// The analysis of the step under way.
    pub(crate) verdict: Option<Verdict>,
    /// The analysis has had no verdict for too long.
    pub(crate) inconclusive: bool,
    pub(crate) wake_at: Option<Timestamp>,
}

impl Next<'_> {
    pub(crate) fn revision(&self, number: RevisionNumber) -> Option<&Revision> {
        self.revisions.get(&number)
    }

    pub(crate) fn runs(&self, number: RevisionNumber) -> Option<&Runs> {
        self.runs.get(&number)
    }
}

/// Takes the deployment as far as it can go now.
pub(crate) fn advance<'a>(name: &'a DeploymentName, desired: &'a DesiredDeployment, inputs: &'a Inputs) -> Next<'a> {
    let mut walk = Walk::new(name, desired, inputs);
    walk.begin_new_revision();
    walk.end_warm();
    while walk.take_step() {}
    walk.finish()
}

struct Walk<'a> {
    name: &'a DeploymentName,
    desired: &'a DesiredDeployment,
    inputs: &'a Inputs,
    revisions: Cow<'a, BTreeMap<RevisionNumber, Revision>>,
    runs: BTreeMap<RevisionNumber, Runs>,
    state: DeploymentState,
    rollout: Rollout,
    events: Vec<EventDraft>,
    outcomes: BTreeMap<RevisionNumber, Outcome>,
    rollback: Option<RollbackDraft>,
    waiting_on: Vec<String>,
    is_coming_up: bool,
    verdict: Option<Verdict>,
    inconclusive: bool,
    wake_at: Option<Timestamp>,
}

impl<'a> Walk<'a> {
    fn new(name: &'a DeploymentName, desired: &'a DesiredDeployment, inputs: &'a Inputs) -> Self {
        let state = desired.state.clone();
        let rollout = state.rollout.clone().unwrap_or_else(|| starting(desired.target, inputs.now));
        Self {
            name,
            desired,
            inputs,
            revisions: Cow::Borrowed(&desired.revisions),
            runs: desired.revisions.iter().map(|(number, r)| (*number, Runs::of(r, name))).collect(),
            state,
            rollout,
            events: Vec::new(),
            outcomes: BTreeMap::new(),
            rollback: None,
            waiting_on: Vec::new(),
            is_coming_up: false,
            verdict: None,
            inconclusive: false,
            wake_at: None,
        }
    }

    // ---- the steps of the walk ---------------------------------------------------------------------------------

    /// Turns to the latest revision, if the state is still about an earlier one. That one keeps its place as the
    /// stable revision if it got there; else it is given up.
    fn begin_new_revision(&mut self) {
        let target = self.desired.target;
        let known = self.state.rollout.as_ref().map(|r| r.revision);
        if known == Some(target) {
            return;
        }
        let cause = self.cause_of(target);
        let live = [known, self.state.stable];
        for number in self.desired.revisions.range(..target).map(|(n, _)| *n) {
            let unfinished = known == Some(number) && self.rollout.phase != Phase::Completed;
            let never_begun = !live.contains(&Some(number)) && !self.is_warm(number);
            if unfinished || never_begun {
                self.outcomes.insert(number, given_up(number, target, cause.as_ref()));
            }
        }
        if let Some(known) = known.filter(|_| self.state.stable.is_none()) {
            // It never came to serve everyone, but what runs of it serves better than nothing.
            if self.may_serve(known) {
                self.set_stable(known);
            }
        }
        if let Some(known) = known.filter(|number| self.has_outgrown_stable(*number)) {
            self.set_stable(known);
        }
        // What the target runs anyway need not be kept warm.
        let (ids, runs) = (self.ids_of(target), &self.runs);
        let is_apart = |w: &Warm| runs.get(&w.revision).is_some_and(|runs| !runs.ids().is_subset(&ids));
        let warm = self.state.warm.iter().filter(|w| is_apart(w)).cloned().collect();
        self.state.warm = warm;
        self.rollout = starting(target, self.inputs.now);
        let (version, cause) = (self.version_of(target), cause.map(|c| c.to_string()).unwrap_or_default());
        let message = format!("rollout to revision {target} ({}) started: {cause}", self.words_of(target));
        self.tell(EventKind::RolloutStarted, message, json!({"revision": target, "version": version}));
    }

    /// One step on. False when there is none to take now.
    fn take_step(&mut self) -> bool {
        match self.rollout.phase {
            Phase::Starting => self.leave_starting(),
            Phase::Progressing => self.leave_canary_step(),
            Phase::Completed => false,
        }
    }

    /// From workers coming up to the first share of traffic, or to all of it.
    fn leave_starting(&mut self) -> bool {
        let target = self.rollout.revision;
        if self.runs_as_stable(target) {
            // Nothing new to run, only its number of replicas, its strategy or its weights.
            return self.complete();
        }
        if let Some(room) = self.tight_room() {
            return self.start_in_place(&room);
        }
        // All that it waits on is named, not only the first.
        let (is_ready, is_held) = (self.is_ready_to_serve(target), self.is_held_by_pause());
        if !is_ready || is_held {
            return false;
        }
        match self.course() {
            Some(course) if self.state.stable.is_some() && !self.is_rollback() => {
                self.enter_canary_step(0, course.stages.first().cloned())
            }
            _ => self.complete(),
        }
    }

    /// From one share of traffic to the next: after its hold, and by its analysis.
    fn leave_canary_step(&mut self) -> bool {
        let Some(course) = self.course() else { return self.complete() };
        let step = course.stages.get(self.rollout.step as usize).cloned();
        // In place, what comes after the last step is a step too: the rest of the workers.
        let steps = course.stages.len() + usize::from(self.is_bounded());
        let mirrors = step.as_ref().is_some_and(|stage| stage.mirror.is_some());
        let verdict = course.analysis.as_ref().map(|analysis| self.judged(analysis, steps, mirrors));
        self.verdict.clone_from(&verdict);
        let decision = verdict.as_ref().map_or(Decision::Pass, |v| v.decision);
        if decision == Decision::Fail {
            return self.roll_back_failed(verdict);
        }
        if self.leave_warm_up(course.analysis.as_ref()) {
            return true;
        }
        let (is_paused, has_backend) = (self.is_held_by_pause(), self.has_backend());
        let Some(step) = step.filter(|_| !self.is_promoted()) else {
            return !is_paused && has_backend && self.is_up_to(Weight::FULL) && self.complete();
        };
        if !self.is_up_to(step.weight) {
            return false;
        }
        let is_held = self.is_held_by_step(&step);
        if is_paused || is_held {
            return false;
        }
        match decision {
            Decision::Pass if has_backend => {
                if step.until_promoted {
                    self.wait(format!("somebody to promote or abort revision {}", self.rollout.revision));
                    return false;
                }
                self.record(verdict, "passed");
                self.enter_next_step(&course)
            }
            // A revision none of whose workers is up gets no requests, and so has no verdict either.
            Decision::NeedMoreData { .. } => self.leave_inconclusive_step(&course, &step, verdict, has_backend),
            Decision::Pass | Decision::Fail => false,
        }
    }

    /// Time alone promotes nothing through an analysis, unless the manifest says so.
    fn leave_inconclusive_step(
        &mut self,
        course: &Course,
        step: &Stage,
        verdict: Option<Verdict>,
        has_backend: bool,
    ) -> bool {
        if let Some(verdict) = &verdict {
            self.wait_for_evidence(verdict);
        }
        let deadline = self.rollout.since + step.hold + course.progress_deadline;
        if self.inputs.now < deadline {
            self.wake(deadline);
            return false;
        }
        match course.on_inconclusive {
            OnInconclusive::Hold => {
                self.inconclusive = true;
                false
            }
            OnInconclusive::Rollback => {
                let reason =
                    format!("no verdict within {} after step {}", course.progress_deadline, self.rollout.step + 1);
                self.record(verdict, "inconclusive");
                self.roll_back(reason)
            }
            OnInconclusive::Promote if has_backend => {
                self.record(verdict, "inconclusive, promoted as the manifest asks");
                self.waiting_on.clear();
                self.enter_next_step(course)
            }
            OnInconclusive::Promote => false,
        }
    }

    fn enter_next_step(&mut self, course: &Course) -> bool {
        let index = self.rollout.step + 1;
        self.enter_canary_step(index, course.stages.get(index as usize).cloned())
    }

    fn enter_canary_step(&mut self, index: u32, step: Option<Stage>) -> bool {
        let is_tight = self.tight_room().is_some();
        if step.is_none() && !is_tight {
            return self.complete();
        }
        let needs_warm_up = self.needs_warm_up(index, is_tight);
        self.rollout.phase = Phase::Progressing;
        self.rollout.step = index;
        if let Some(step) = step.filter(|_| !is_tight) {
            self.rollout.weight = step.weight;
        }
        self.rollout.since = self.inputs.now;
        self.rollout.warming = needs_warm_up;
        self.verdict = None;
        true
    }

    /// The revision serves everyone from now on; the one before it stays warm for a while.
    fn complete(&mut self) -> bool {
        let target = self.rollout.revision;
        let replaced = self.state.stable.filter(|stable| *stable != target);
        let window = self.revisions.get(&target).map(|r| r.spec.rollback_window).unwrap_or_default();
        if let Some(replaced) = replaced.filter(|number| !self.ids_of(*number).is_subset(&self.ids_of(target)))
            && window.as_millis() > 0
        {
            self.state.warm.push(Warm { revision: replaced, until: self.inputs.now + window });
        }
        self.set_stable(target);
        self.finish_rollout(target);
        let version = self.target_version();
        let message = format!("revision {target} ({}) serves all traffic", self.words_of(target));
        self.tell(EventKind::RolloutCompleted, message, json!({"revision": target, "version": version}));
        true
    }

    fn roll_back_failed(&mut self, verdict: Option<Verdict>) -> bool {
        let reason = verdict.as_ref().map(failed_checks).unwrap_or_default();
        self.record(verdict, "failed");
        self.roll_back(reason)
    }

    /// Back to the stable revision, as a new revision that copies it. It still runs, so it serves at once.
    fn roll_back(&mut self, reason: String) -> bool {
        let from = self.rollout.revision;
        let Some(stable) = self.state.stable.and_then(|number| self.revisions.get(&number)).cloned() else {
            self.wait(format!("revision {from} fails ({reason}), and there is no earlier one to go back to"));
            return false;
        };
        let (number, to) = (from.next(), stable.number);
        let cause = Cause::Rollback { from, to, reason: reason.clone() };
        let copy = Revision { number, cause, actor: Actor::system(), created_at: self.inputs.now, ..stable };
        self.runs.insert(number, Runs::of(&copy, self.name));
        self.revisions.to_mut().insert(number, copy);
        self.rollback = Some(RollbackDraft { number, from, to, reason: reason.clone() });
        self.outcomes.insert(from, Outcome::RolledBack { by: number, reason: reason.clone() });
        self.set_stable(number);
        self.rollout = starting(number, self.inputs.now);
        self.finish_rollout(number);
        self.waiting_on.clear();
        let message = format!("revision {from} was rolled back to revision {to} (as revision {number}): {reason}");
        self.tell(
            EventKind::RolledBack,
            message,
            json!({"from": from, "to": to, "revision": number, "reason": reason}),
        );
        true
    }

    /// All that a version on trial leaves is of this revision from now on; an A/B test's experiment begins or goes on.
    fn set_stable(&mut self, number: RevisionNumber) {
        let has_variants = |n: RevisionNumber| self.revisions.get(&n).is_some_and(|r| !r.variants.is_empty());
        let is_running = self.state.stable.is_some_and(has_variants);
        self.state.stable = Some(number);
        let Some(revision) = self.revisions.get(&number) else { return };
        let last = self.state.experiment.as_ref();
        let experiment = Experiment::of(revision, last, is_running, self.name, self.inputs.now);
        self.state.experiment = experiment.or(self.state.experiment.take());
    }

    fn finish_rollout(&mut self, number: RevisionNumber) {
        self.rollout.phase = Phase::Completed;
        self.rollout.weight = Weight::FULL;
        self.rollout.since = self.inputs.now;
        self.rollout.warming = false;
        self.outcomes.insert(number, Outcome::Completed { at: self.inputs.now });
        self.verdict = None;
        self.is_coming_up = false;
    }

    fn end_warm(&mut self) {
        let now = self.inputs.now;
        let (over, warm): (Vec<_>, Vec<_>) = self.state.warm.drain(..).partition(|w| w.until <= now);
        self.state.warm = warm;
        for Warm { revision, .. } in over {
            let message = format!("revision {revision} ({}) is no longer kept warm", self.words_of(revision));
            self.tell(EventKind::WarmEnded, message, json!({"revision": revision}));
        }
    }

    fn finish(mut self) -> Next<'a> {
        self.state.rollout = Some(self.rollout.clone());
        let ends: Vec<_> = self.state.warm.iter().map(|w| w.until).collect();
        ends.into_iter().for_each(|until| self.wake(until));
        let before = shares(&self.desired.state, &self.desired.revisions);
        let after = shares(&self.state, &self.revisions);
        if before != after {
            self.tell_weights(&after);
        }
        let wanted = self.wanted();
        let commit = (self.state != self.desired.state).then(|| Commit {
            parent: self.desired.parent,
            state: self.state.clone(),
            rollback: self.rollback,
            outcomes: self.outcomes,
            events: self.events,
        });
        let paused = self.desired.control.revision == self.rollout.revision && self.desired.control.paused_by.is_some();
        Next {
            runs: self.runs,
            wanted,
            is_coming_up: self.is_coming_up || self.rollout.phase == Phase::Starting,
            paused: paused && self.rollout.phase != Phase::Completed,
            state: self.state,
            rollout: self.rollout,
            revisions: self.revisions,
            commit,
            waiting_on: self.waiting_on,
            verdict: self.verdict,
            inconclusive: self.inconclusive,
            wake_at: self.wake_at,
        }
    }

    // ---- what holds a step back --------------------------------------------------------------------------------

    /// A rollback goes as soon as anything of the old version runs; everything else waits for all replicas.
    fn is_ready_to_serve(&mut self, number: RevisionNumber) -> bool {
        let is_rollback = self.is_rollback();
        let mut lacking = Vec::new();
        for workload in self.workloads_of(number) {
            let (ready, all) = (self.ready_of(workload), workload.needed());
            if ready < if is_rollback { 1 } else { all } {
                lacking.push(format!("{ready} of {all} workers of version {} are ready", workload.version));
            }
        }
        let is_ready = lacking.is_empty();
        lacking.into_iter().for_each(|words| self.wait(words));
        is_ready
    }

    fn is_held_by_pause(&mut self) -> bool {
        let control = &self.desired.control;
        let by = control.paused_by.as_ref().filter(|_| control.revision == self.rollout.revision);
        if let Some(by) = by {
            self.wait(format!("paused by {by}: resume, promote or abort"));
        }
        by.is_some()
    }

    fn is_held_by_step(&mut self, step: &Stage) -> bool {
        let until = self.rollout.since + step.hold;
        let held = self.inputs.now < until;
        if held {
            self.wake(until);
            let share = if step.weight.is_zero() { "without traffic".into() } else { format!("at {}", step.weight) };
            self.wait(format!("the hold of {} {share}, until {until}", step.hold));
        }
        held
    }

    fn has_backend(&mut self) -> bool {
        let ready = self.ready_replicas(self.rollout.revision) > 0;
        if !ready {
            self.wait(format!("no worker of version {} is ready", self.target_version()));
        }
        ready
    }

    // ---- what is said ------------------------------------------------------------------------------------------

    fn wait(&mut self, on: String) {
        self.waiting_on.push(on);
    }

    fn wake(&mut self, at: Timestamp) {
        self.wake_at = self.wake_at.into_iter().chain([at]).min();
    }
}

fn starting(revision: RevisionNumber, now: Timestamp) -> Rollout {
    Rollout {
        revision,
        phase: Phase::Starting,
        step: 0,
        weight: Weight::ZERO,
        started_at: now,
        since: now,
        warming: false,
        verdict: None,
    }
}

fn given_up(number: RevisionNumber, by: RevisionNumber, cause: Option<&Cause>) -> Outcome {
    match cause {
        Some(Cause::Rollback { from, reason, .. }) if *from == number => {
            Outcome::RolledBack { by, reason: reason.clone() }
        }
        _ => Outcome::Superseded { by },
    }
}

fn failed_checks(verdict: &Verdict) -> String {
    let failed = verdict.checks.iter().filter(|check| !check.holds);
    let words: Vec<_> = failed.map(|c| format!("{} {} exceeds {}", c.limit, c.measured, c.wanted)).collect();
    words.join(", ")
}
