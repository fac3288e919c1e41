//! What must hold, in words of its own.

use std::collections::BTreeSet;

use modelyard_core::inputs::{DesiredDeployment, Inputs};
use modelyard_core::plan::{Commit, Plan};
use modelyard_core::state::{Cause, Phase, Revision, Rollout};
use modelyard_core::verdict::Decision;
use modelyard_core::{
    Analysis, DeploymentName, Epoch, Evidence, Observed, OnInconclusive, Rate, RevisionNumber, Route, RouteTable,
    Weight, Window, WorkloadId,
};
use modelyard_planner::{Stage, Trial, judge};

use super::Broken;
use super::world::World;

pub(crate) fn holds(is_so: bool, words: impl FnOnce() -> String) -> Result<(), Broken> {
    if is_so { Ok(()) } else { Err(Broken(words())) }
}

/// What each plan keeps, whatever it was made from.
pub(crate) fn plan(inputs: &Inputs, plan: &Plan) -> Result<(), Broken> {
    holds(plan.wake_at.is_none_or(|at| at > inputs.now), || "a time to wake at lies ahead".into())?;
    for (name, route) in &plan.routes {
        self::route(name, route, inputs, plan)?;
    }
    for id in &plan.remove {
        let in_use = inputs.in_use.known();
        holds(in_use.is_some_and(|in_use| !in_use.contains(id)), || {
            format!("a workload ends only when it is known that no gateway uses it: {id}")
        })?;
    }
    for id in plan.ensure.keys() {
        let is_unknown = matches!(inputs.observation.of(id), Observed::Unknown { .. });
        holds(!is_unknown, || format!("what is unknown is left alone: {id} is started"))?;
    }
    for (name, report) in &plan.reports {
        holds(report.waiting_on.is_empty() == (report.phase == Phase::Completed), || {
            format!("what waits says on what: {name}, {:?}, {:?}", report.phase, report.waiting_on)
        })?;
    }
    for (name, commit) in &plan.commits {
        if let Some(desired) = inputs.deployments.get(name) {
            advanced(name, desired, commit, inputs)?;
        }
    }
    Ok(())
}

fn route(name: &DeploymentName, route: &Route, inputs: &Inputs, plan: &Plan) -> Result<(), Broken> {
    let sum: u32 = route.variants.iter().map(|v| u32::from(v.weight.basis_points())).sum();
    holds(sum == 10_000, || format!("weights sum to 10,000 basis points: {name} has {sum}"))?;
    for variant in &route.variants {
        let (id, observed) = (&variant.workload, inputs.observation.of(&variant.workload));
        let ready = |address| observed.known().is_some_and(|s| s.ready().any(|(_, ready)| ready == address));
        holds(variant.backends.iter().all(|backend| ready(backend.address)), || {
            format!("only backends that are Known(Ready) are routed to: {id} of {name}, {observed:?}")
        })?;
        let is_kept = *observed != Observed::Absent || plan.ensure.contains_key(id);
        holds(variant.weight.is_zero() || (is_kept && !plan.remove.contains(id)), || {
            format!("a revision with weight is kept running: revision {} of {name}, {id}", variant.revision)
        })?;
    }
    Ok(())
}

/// A plan whose decisions were written decides nothing more.
pub(crate) fn decided(inputs: &Inputs, first: &Plan) -> Result<(), Broken> {
    if first.commits.is_empty() {
        return Ok(());
    }
    let mut written = inputs.clone();
    for (name, commit) in &first.commits {
        let Some(desired) = written.deployments.get_mut(name) else { continue };
        desired.state = commit.state.clone();
        desired.parent = desired.parent.next();
        if let Some(draft) = &commit.rollback
            && let Some(copied) = desired.revisions.get(&draft.to).cloned()
        {
            let cause = Cause::Rollback { from: draft.from, to: draft.to, reason: draft.reason.clone() };
            desired.revisions.insert(draft.number, Revision { number: draft.number, cause, ..copied });
            desired.target = draft.number;
        }
    }
    let second = modelyard_planner::plan(&written);
    holds(second.commits.is_empty() && second.routes == first.routes, || {
        format!("planning right after a commit decides nothing: {:?}", second.commits)
    })
}

/// A step is left only by what its manifest asks for.
fn advanced(
    name: &DeploymentName,
    desired: &DesiredDeployment,
    commit: &Commit,
    inputs: &Inputs,
) -> Result<(), Broken> {
    let (Some(old), Some(new)) = (&desired.state.rollout, &commit.state.rollout) else { return Ok(()) };
    let is_promoted = desired.control.revision == old.revision && desired.control.promoted_by.is_some();
    let has_left = new.phase == Phase::Completed || new.step > old.step;
    if old.revision != new.revision || old.phase != Phase::Progressing || !has_left || is_promoted {
        return Ok(());
    }
    let Some(revision) = desired.revisions.get(&old.revision) else { return Ok(()) };
    let Some(course) = revision.spec.strategy.course() else { return Ok(()) };
    let last = if new.phase == Phase::Completed { course.stages.len() } else { new.step as usize };
    for (index, stage) in course.stages.iter().enumerate().take(last).skip(old.step as usize) {
        let may_give_up = course.on_inconclusive == OnInconclusive::Promote;
        holds(!stage.until_promoted || may_give_up, || {
            format!("what people are to promote is promoted by nobody else: {name}, revision {}", old.revision)
        })?;
        let is_first = index == old.step as usize && revision.spec.strategy.max_surge().is_none();
        holds(!is_first || inputs.now >= old.since + stage.hold, || format!("a hold is kept: {name}"))?;
        let Some(analysis) = &course.analysis else { continue };
        let step = u32::try_from(index).unwrap_or(u32::MAX);
        let window = Window { revision: old.revision, step: step + 1 };
        let candidate = evidence(inputs, name, window, |number| number == old.revision);
        let stable = evidence(inputs, name, window, |number| Some(number) == desired.state.stable);
        let bounded = usize::from(revision.spec.strategy.max_surge().is_some());
        let verdict = judge(&Trial {
            analysis,
            step,
            steps: u32::try_from(course.stages.len() + bounded).unwrap_or(u32::MAX),
            candidate: &candidate,
            stable: &stable,
            weight: old.weight,
            stage: Stage::Judged,
            is_mirrored: stage.mirror.is_some() || !candidate.disagreement.is_empty(),
            since: old.since,
            now: inputs.now,
            measurements: &inputs.measurements,
        });
        // The numbers by themselves, too: whatever judges.
        let is_shown = candidate.requests >= analysis.min_requests && may_be_shown(analysis, &candidate);
        let is_passed = verdict.decision == Decision::Pass && is_shown;
        let is_let_pass = may_give_up && verdict.decision != Decision::Fail;
        holds(is_passed || is_let_pass, || {
            format!(
                "nothing is promoted on too little evidence: {name}, revision {}, step {}, {} requests, {:?}",
                old.revision, step, candidate.requests, verdict.decision
            )
        })?;
    }
    Ok(())
}

/// Whether any test at all could be as sure as it must be that errors keep their limit: the evidence against a rate at the limit
/// is at most the likelihood ratio to it of the rate that was seen.
fn may_be_shown(analysis: &Analysis, seen: &Evidence) -> bool {
    let Some(limit) = analysis.max_error_rate.map(Rate::share) else { return true };
    let float = |count: u64| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
    let (errors, good) = (float(seen.errors), float(seen.requests.saturating_sub(seen.errors)));
    let rate = errors / (errors + good);
    let of_errors = if errors > 0.0 { errors * (rate / limit).ln() } else { 0.0 };
    let evidence = of_errors + good * ((1.0 - rate) / (1.0 - limit)).ln();
    rate < limit && evidence >= -(1.0 - analysis.power.share()).ln()
}

fn evidence(inputs: &Inputs, name: &DeploymentName, window: Window, of: impl Fn(RevisionNumber) -> bool) -> Evidence {
    let mut all = Evidence::default();
    let of_window = inputs.evidence.iter().filter(|(key, _)| key.deployment == *name && key.window == window);
    of_window.filter(|(key, _)| of(key.revision)).for_each(|(_, evidence)| all.merge(evidence));
    all
}

/// From what was written to what is: no phase goes backward, and what the state names is there.
pub(crate) fn written(before: &DesiredDeployment, after: &DesiredDeployment, commit: &Commit) -> Result<(), Broken> {
    holds(before.parent == commit.parent, || "a decision is written on the state that it was made from".into())?;
    holds(after.parent > before.parent, || "generations are monotone".into())?;
    let named = after.state.stable.into_iter().chain(after.state.rollout.as_ref().map(|r| r.revision));
    for number in named {
        holds(after.revisions.contains_key(&number), || format!("the state names revisions that there are: {number}"))?;
    }
    let (Some(old), Some(new)) = (&before.state.rollout, &after.state.rollout) else { return Ok(()) };
    holds(old.revision <= new.revision, || format!("revisions are monotone: {old:?} -> {new:?}"))?;
    if old.revision < new.revision {
        return Ok(());
    }
    // Where versions take each other's place, weights follow the workers that are ready.
    let is_bounded = |d: &DesiredDeployment| d.revisions.values().any(|r| r.spec.strategy.max_surge().is_some());
    let at = |r: &Rollout| (r.phase, r.step, if is_bounded(after) { Weight::ZERO } else { r.weight });
    holds(at(old) <= at(new), || format!("no phase goes backward: {old:?} -> {new:?}"))
}

/// Weights and backends of a table, for people.
pub(crate) fn shown(table: &RouteTable) -> String {
    let route = |(name, route): (&DeploymentName, &Route)| {
        let variant = |v: &modelyard_core::Variant| {
            let (bp, backends) = (v.weight.basis_points(), v.backends.len());
            format!("{} r{} {} {bp} bp on {backends}", v.name, v.revision, v.workload)
        };
        format!("{name}: {}", route.variants.iter().map(variant).collect::<Vec<_>>().join(", "))
    };
    table.deployments.iter().map(route).collect::<Vec<_>>().join("; ")
}

/// Gateways that were silent for longer than they are waited for while something ended that they send to.
#[derive(Debug, Default)]
pub(crate) struct Watch(BTreeSet<usize>);

impl Watch {
    pub(crate) fn is_lost(&self, gateway: usize) -> bool {
        self.0.contains(&gateway)
    }

    pub(crate) fn found(&mut self, gateway: usize) {
        self.0.remove(&gateway);
    }
}

impl World {
    /// A workload ends now, by a call of the epoch: nobody may send to it. `followed`: the gateways that the caller had heard
    /// of.
    pub(crate) fn check_removal(&mut self, id: &WorkloadId, epoch: Epoch, followed: &[bool]) -> Result<(), Broken> {
        let now = self.now();
        if epoch < self.store.office.epoch {
            self.end_late(id);
            return Ok(());
        }
        for (index, gateway) in self.gateways.iter().enumerate().filter(|(_, gateway)| gateway.sends_to(id)) {
            if followed.get(index) != Some(&true) {
                self.story.count("workload ends past a gateway that is silent too long");
                self.watch.0.insert(index);
                continue;
            }
            let (name, table) = (gateway.name, &gateway.following.table);
            return Err(Broken(format!(
                "a workload is not removed while a gateway routes to it: {id} is removed by epoch {epoch}, and {name} \
                 follows {}: {}",
                table.version,
                shown(table)
            )));
        }
        self.story.count("workload ends");
        let in_office = self.planes.iter().filter(|plane| plane.is_in_office(now)).filter_map(|p| p.term.as_ref());
        for term in in_office.filter(|term| term.epoch == self.store.office.epoch) {
            let table = &term.published.table;
            let routes = table.deployments.values().flat_map(|route| &route.variants);
            let is_routed = routes.into_iter().any(|v| v.workload == *id && !v.backends.is_empty());
            holds(!is_routed, || {
                format!("a workload is not removed while the table in force routes to it: {id}, {}", shown(table))
            })?;
        }
        Ok(())
    }

    /// By a control plane that was stopped between its check and its call, while the epoch after it has written nothing yet, so
    /// that the runtime does not know of that one (`runtime-kube/src/fence.rs`). The latter sees it, and sets it right.
    fn end_late(&mut self, id: &WorkloadId) {
        self.story.count("workload ends by a late call of an earlier epoch");
        if self.gateways.iter().any(|gateway| gateway.sends_to(id)) {
            self.story.count("workload with routes ends by a late call of an earlier epoch");
        }
        self.runtime.forgive(id);
    }
}
