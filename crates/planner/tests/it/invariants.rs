//! What every plan keeps, whatever it was made from.

use std::collections::BTreeSet;

use modelyard_core::event::EventKind;
use modelyard_core::inputs::{DesiredDeployment, Inputs};
use modelyard_core::plan::{Commit, Plan};
use modelyard_core::state::{DeploymentState, Phase, Revision, Rollout};
use modelyard_core::verdict::Decision;
use modelyard_core::{
    DeploymentName, Evidence, EvidenceKey, Observed, OnInconclusive, RevisionNumber, VariantName, Weight, Window,
    WorkloadId,
};
use modelyard_planner::{Stage, Trial, judge, plan};

use crate::world::write;

pub(crate) fn check_invariants(inputs: &Inputs, plan: &Plan) {
    assert!(plan.wake_at.is_none_or(|at| at > inputs.now), "a time to wake at lies ahead");
    check_workloads(inputs, plan);
    let mut live = BTreeSet::new();
    for name in inputs.deployments.keys() {
        let pass = Pass::new(name, inputs, plan);
        pass.check_route();
        pass.check_warm();
        pass.check_capacity();
        pass.check_report();
        if let Some(commit) = plan.commits.get(name) {
            pass.check_commit(commit);
        }
        if let (Some(old), Some(new)) = (&pass.before.state.rollout, &pass.after.rollout) {
            pass.check_walk(old, new);
        }
        pass.check_pause();
        pass.check_failing_analysis();
        pass.check_rollback();
        live.extend(pass.live().into_iter().flat_map(|number| pass.workloads(number)));
    }
    for id in &live {
        let is_there = *inputs.observation.of(id) != Observed::Absent;
        assert!(is_there || plan.ensure.contains_key(id), "{id} is wanted and kept running");
        assert!(!plan.remove.contains(id), "{id} is wanted and removed");
    }
    assert!(plan.ensure.keys().all(|id| live.contains(id)), "nothing is started that nobody wants: {:?}", plan.ensure);
    check_idempotence(inputs, plan);
}

fn check_workloads(inputs: &Inputs, plan: &Plan) {
    for (id, workload) in &plan.ensure {
        match inputs.observation.of(id) {
            Observed::Unknown { .. } => panic!("{id} is unknown and started"),
            Observed::Known(seen) => assert!(seen.workload != *workload || seen.epoch != inputs.epoch, "{id} runs so"),
            Observed::Absent => {}
        }
    }
    for id in &plan.remove {
        assert_ne!(*inputs.observation.of(id), Observed::Absent, "{id} is absent and removed");
        let in_use = inputs.in_use.known().expect("nothing is removed while it is unknown what gateways use");
        assert!(!in_use.contains(id), "{id} is in use and removed");
    }
}

/// A plan whose decisions were written decides nothing more.
fn check_idempotence(inputs: &Inputs, first: &Plan) {
    let mut written = inputs.clone();
    for (name, commit) in &first.commits {
        write(written.deployments.get_mut(name).unwrap(), commit, inputs.now);
    }
    let second = plan(&written);
    assert!(second.commits.is_empty(), "decided already: {:?}", second.commits);
    assert_eq!(second.routes, first.routes);
    assert_eq!((&second.ensure, &second.remove), (&first.ensure, &first.remove));
    assert_eq!(second.wake_at, first.wake_at);
}

type Shares = Vec<(VariantName, RevisionNumber, Weight)>;

/// One deployment in one pass.
struct Pass<'a> {
    name: &'a DeploymentName,
    inputs: &'a Inputs,
    plan: &'a Plan,
    before: &'a DesiredDeployment,
    /// With the pass's decisions written.
    desired: DesiredDeployment,
    after: DeploymentState,
}

impl<'a> Pass<'a> {
    fn new(name: &'a DeploymentName, inputs: &'a Inputs, plan: &'a Plan) -> Self {
        let before = &inputs.deployments[name];
        let mut desired = before.clone();
        if let Some(commit) = plan.commits.get(name) {
            write(&mut desired, commit, inputs.now);
        }
        let after = desired.state.clone();
        Self { name, inputs, plan, before, desired, after }
    }

    // ---- what is kept ------------------------------------------------------------------------------------------

    fn check_route(&self) {
        let route = &self.plan.routes[self.name];
        let sum: u32 = route.variants.iter().map(|v| u32::from(v.weight.basis_points())).sum();
        assert_eq!(sum, 10_000, "weights sum to the whole: {route:?}");
        let workloads: BTreeSet<_> = route.variants.iter().map(|v| &v.workload).collect();
        let (warm, others): (Vec<_>, Vec<_>) = route.variants.iter().partition(|v| v.name == VariantName::previous());
        if self.is_tested() {
            let serving: BTreeSet<_> = others.iter().map(|v| &v.workload).collect();
            assert!(warm.iter().all(|v| !serving.contains(&v.workload)), "what serves is not warm, too: {route:?}");
            let in_charge = self.after.stable.unwrap_or(self.desired.target);
            let served = others.iter().filter(|v| !v.weight.is_zero() || v.revision == in_charge);
            let names: Vec<_> = served.map(|v| &v.name).collect();
            let distinct: BTreeSet<_> = names.iter().collect();
            assert_eq!(distinct.len(), names.len(), "each name is one variant's: {route:?}");
        } else {
            assert_eq!(workloads.len(), route.variants.len(), "no workload stands in a route twice");
        }
        self.check_assignment();
        assert_eq!(route.variants.iter().filter(|v| v.fallback).count(), 1, "one variant is the judge");
        for variant in &route.variants {
            assert!(self.live().contains(&variant.revision), "{} is routed to and not wanted", variant.revision);
            assert!(self.workloads(variant.revision).contains(&variant.workload));
            let known = self.inputs.observation.of(&variant.workload).known();
            let ready: Vec<_> = known.into_iter().flat_map(|s| s.ready()).collect();
            let routed: Vec<_> = variant.backends.iter().map(|b| (&b.id, b.address)).collect();
            assert_eq!(routed, ready, "traffic goes to the ready backends and to no others");
        }
        let weighted = route.variants.iter().filter(|v| !v.weight.is_zero());
        let routed: Shares = weighted.map(|v| (v.name.clone(), v.revision, v.weight)).collect();
        if self.after.stable.is_some() {
            assert_eq!(routed, self.shares(&self.after), "the route has the state's weights");
        }
        let serves = route.variants.iter().any(|v| !v.weight.is_zero() && !v.backends.is_empty());
        if let (None, Some(first)) = (self.before.state.stable, &self.before.state.rollout) {
            assert!(serves || self.ready(first.revision) == 0, "what runs of the first revision goes on serving");
        }
    }

    /// Units belong to variants in the ratio of the weights, and to none where nothing is tested.
    fn check_assignment(&self) {
        let route = &self.plan.routes[self.name];
        let in_charge = self.after.stable.unwrap_or(self.desired.target);
        let is_tested = !self.revision(in_charge).variants.is_empty();
        assert_eq!(route.assignment.is_some(), is_tested, "{route:?}");
        let Some(assignment) = &route.assignment else { return };
        for variant in &route.variants {
            let of_variant = assignment.slots.iter().filter(|slot| slot.variant == variant.name);
            let width: u16 = of_variant.map(|slot| slot.width.basis_points()).sum();
            assert_eq!(width, variant.weight.basis_points(), "{}: {route:?}", variant.name);
        }
    }

    fn check_warm(&self) {
        let target = self.workloads(self.desired.target);
        let mut taken: BTreeSet<_> = self.after.stable.map(|n| self.workloads(n)).into_iter().collect();
        taken.insert(target.clone());
        for warm in &self.after.warm {
            assert!(warm.until > self.inputs.now, "what is warm has time left: {warm:?}");
            let workloads = self.workloads(warm.revision);
            assert!(!workloads.is_subset(&target), "what the target runs anyway is not kept warm: {warm:?}");
            assert!(taken.insert(workloads), "a warm workload has no other use: {warm:?}");
            if !self.before.state.warm.contains(warm) {
                let window = self.revision(self.desired.target).spec.rollback_window;
                let unfinished = self.before.state.rollout.as_ref().map(|r| r.revision);
                let served = [self.before.state.stable, unfinished];
                assert!(served.contains(&Some(warm.revision)), "{warm:?} has served: {served:?}");
                assert!(window.as_millis() > 0, "a window of zero keeps nothing warm");
                assert_eq!(warm.until, self.inputs.now + window);
            }
        }
    }

    /// Never more workers than there is room for, and at least one of what has traffic, where there is room for two.
    fn check_capacity(&self) {
        let Some(surge) = self.surge() else { return };
        let live: BTreeSet<_> = self.live().into_iter().collect();
        let wanted = |number: RevisionNumber| {
            let id = self.revision(number).workload(self.name).id;
            let asked = || self.inputs.observation.of(&id).known().map(|status| status.workload.clone());
            self.plan.ensure.get(&id).cloned().or_else(asked)
        };
        let Some(sizes) = live.iter().map(|n| wanted(*n).map(|w| (*n, w.size()))).collect::<Option<Vec<_>>>() else {
            return;
        };
        let in_charge = self.after.stable.into_iter().chain(self.after.rollout.as_ref().map(|r| r.revision));
        let largest = in_charge.map(|n| self.revision(n).workload(self.name).size()).max().unwrap_or(0);
        let (asked, capacity) = (sizes.iter().map(|(_, size)| size).sum::<u32>(), largest + surge);
        assert!(asked <= capacity, "{sizes:?} are {asked} workers, and there is room for {capacity}");
        for variant in self.plan.routes[self.name].variants.iter().filter(|v| !v.weight.is_zero() && capacity > 1) {
            let size = sizes.iter().find(|(n, _)| *n == variant.revision).map(|(_, size)| *size);
            assert!(size > Some(0), "revision {} has traffic and no worker is wanted: {sizes:?}", variant.revision);
        }
    }

    fn check_report(&self) {
        let report = &self.plan.reports[self.name];
        let is_done = report.phase == Phase::Completed;
        assert_eq!(report.waiting_on.is_empty(), is_done, "what waits says on what: {report:?}");
        assert!(!report.paused || self.pauser().is_some(), "{report:?}");
    }

    fn check_commit(&self, commit: &Commit) {
        assert_ne!(self.after, self.before.state, "a commit changes something");
        let told = commit.events.iter().filter(|e| e.kind == EventKind::WeightsChanged).count();
        let changed = self.shares(&self.before.state) != self.shares(&self.after);
        assert_eq!(told, usize::from(changed), "changed weights are told once: {:?}", commit.events);
        if let Some(stable) = self.before.state.stable
            && self.workloads(stable).iter().all(|id| self.ready_of(id) > 0)
        {
            let (before, after) = (self.lost_share(&self.before.state), self.lost_share(&self.after));
            assert!(after <= before, "no traffic moves to where nothing is ready: {before} to {after} bp");
        }
        if let Some(draft) = &commit.rollback {
            let copied = (&self.revision(draft.number).spec, self.revision(draft.number).workloads(self.name));
            assert_eq!(copied, (&self.revision(draft.to).spec, self.revision(draft.to).workloads(self.name)));
            assert_eq!((draft.from, Some(draft.to)), (self.before.target, self.before.state.stable));
            let rollout = self.after.rollout.as_ref().unwrap();
            assert_eq!((rollout.revision, rollout.phase), (draft.number, Phase::Completed));
            assert_eq!(self.after.stable, Some(draft.number));
            assert!(!self.live().contains(&draft.from), "a failed revision is not kept");
        }
    }

    /// Forward only, and only by what its manifest asks for.
    fn check_walk(&self, old: &Rollout, new: &Rollout) {
        assert!(old.revision <= new.revision);
        if old.revision != new.revision {
            return;
        }
        // Where versions take each other's place, weights follow the workers that are ready.
        let is_bounded = self.surge().is_some();
        let at = |r: &Rollout| (r.phase, r.step, if is_bounded { Weight::ZERO } else { r.weight }, r.since);
        assert!(at(old) <= at(new), "no phase goes backward: {old:?} -> {new:?}");
        let Some(course) = self.revision(new.revision).spec.strategy.course() else { return };
        let has_left = new.phase == Phase::Completed || new.step > old.step;
        if old.phase != Phase::Progressing || !has_left || self.is_promoted() {
            return;
        }
        let last = if new.phase == Phase::Completed { course.stages.len() } else { new.step as usize };
        for index in old.step as usize..last {
            let (stage, since) =
                (&course.stages[index], if index == old.step as usize { old.since } else { new.since });
            assert!(self.inputs.now >= since + stage.hold, "a hold is kept");
            let decision = self.decision(u32::try_from(index).unwrap());
            let is_let_pass = decision != Decision::Fail && course.on_inconclusive == OnInconclusive::Promote;
            assert!(decision == Decision::Pass || is_let_pass, "nothing is promoted on {decision:?}");
            assert!(!stage.until_promoted || is_let_pass, "people promote it, nobody else");
        }
        assert!(self.ready(new.revision) > 0, "a step needs a worker");
    }

    fn check_pause(&self) {
        let (Some(_), Some(rollout)) = (self.pauser(), &self.after.rollout) else { return };
        let known = self.before.state.rollout.as_ref().filter(|r| r.revision == rollout.revision);
        let was = known.map_or((Phase::Starting, 0), |r| (r.phase, r.step));
        let is_same_workload = self
            .before
            .state
            .stable
            .or(self.after.stable)
            .is_some_and(|s| self.workloads(s) == self.workloads(rollout.revision));
        let has_moved = (rollout.phase, rollout.step) != was && rollout.revision == self.before.target;
        assert!(!has_moved || is_same_workload, "a paused rollout takes no step: {was:?} -> {rollout:?}");
    }

    fn check_failing_analysis(&self) {
        let Some(rollout) = &self.before.state.rollout else { return };
        if rollout.revision == self.before.target
            && rollout.phase == Phase::Progressing
            && self.decision(rollout.step) == Decision::Fail
        {
            let commit = self.plan.commits.get(self.name).expect("a failing analysis decides at once");
            assert!(commit.rollback.is_some(), "back to stable, paused or promoted or not: {commit:?}");
        }
    }

    /// Back to what runs, warm or stable: by the first pass, in whatever phase the rollout was.
    fn check_rollback(&self) {
        let target = self.before.target;
        let is_new = self.before.state.rollout.as_ref().is_some_and(|r| r.revision != target);
        if is_new
            && self.revision(target).cause.is_rollback()
            && self.workloads(target).iter().all(|id| self.ready_of(id) > 0)
            && self.pauser().is_none()
            && self.before.state.stable.is_some()
            && (self.surge().is_none() || self.has_most_workers(target))
        {
            assert_eq!(self.after.rollout.as_ref().map(|r| r.phase), Some(Phase::Completed));
            for variant in self.plan.routes[self.name].variants.iter().filter(|v| !v.weight.is_zero()) {
                assert_eq!((variant.revision, variant.backends.is_empty()), (target, false));
            }
        }
    }

    // ---- what is known -----------------------------------------------------------------------------------------

    fn revision(&self, number: RevisionNumber) -> &Revision {
        &self.desired.revisions[&number]
    }

    fn workloads(&self, number: RevisionNumber) -> BTreeSet<WorkloadId> {
        self.revision(number).workloads(self.name).into_iter().map(|workload| workload.id).collect()
    }

    /// Whether variants of a test are among what runs.
    fn is_tested(&self) -> bool {
        self.live().into_iter().any(|number| !self.revision(number).variants.is_empty())
    }

    /// Who serves which share by a state, in words of its own: the stable revision has what the one on trial leaves, and
    /// divides it among its variants.
    fn shares(&self, state: &DeploymentState) -> Shares {
        let Some(stable) = state.stable else { return Shares::new() };
        let on_trial = state.rollout.as_ref().filter(|r| r.phase != Phase::Completed);
        let rest = on_trial.map_or(Weight::FULL, |rollout| rollout.weight.rest());
        let variants = &self.revision(stable).variants;
        let mut shares = match variants.as_slice() {
            [] => vec![(VariantName::stable(), stable, rest)],
            variants => {
                let split = rest.split(&variants.iter().map(|v| v.weight).collect::<Vec<_>>());
                variants.iter().zip(split).map(|(v, weight)| (v.name.clone(), stable, weight)).collect()
            }
        };
        shares.extend(on_trial.map(|rollout| (VariantName::canary(), rollout.revision, rollout.weight)));
        shares.retain(|(_, _, weight)| !weight.is_zero());
        shares
    }

    fn live(&self) -> Vec<RevisionNumber> {
        let rollout = self.after.rollout.as_ref().map(|r| r.revision).or(Some(self.before.target));
        self.after.warm.iter().map(|w| w.revision).chain(self.after.stable).chain(rollout).collect()
    }

    fn ready(&self, number: RevisionNumber) -> usize {
        self.workloads(number).iter().map(|id| self.ready_of(id)).sum()
    }

    fn ready_of(&self, id: &WorkloadId) -> usize {
        self.inputs.observation.of(id).known().map_or(0, |status| status.ready().count())
    }

    /// The `maxSurge` that counts: for a rollback, the tightest of what runs.
    fn surge(&self) -> Option<u32> {
        if self.is_tested() {
            // The variants of a test are whole, side by side.
            return None;
        }
        let surge = |number| self.revision(number).spec.strategy.max_surge();
        let target = self.after.rollout.as_ref().map_or(self.before.target, |r| r.revision);
        if !self.revision(target).cause.is_rollback() {
            return surge(target);
        }
        self.live().into_iter().filter_map(surge).min()
    }

    fn has_most_workers(&self, number: RevisionNumber) -> bool {
        let served = [self.before.state.stable, self.before.state.rollout.as_ref().map(|r| r.revision)];
        served.into_iter().flatten().all(|other| self.ready(number) >= self.ready(other))
    }

    fn lost_share(&self, state: &DeploymentState) -> u16 {
        let is_lost = |(name, number, _): &(VariantName, RevisionNumber, Weight)| {
            let revision = self.revision(*number);
            let tested = revision.variants.iter().find(|variant| variant.name == *name);
            let version = tested.map_or(&revision.version, |variant| &variant.version);
            self.ready_of(&revision.workload_of(self.name, version).id) == 0
        };
        let lost = self.shares(state).into_iter().filter(is_lost);
        lost.map(|(_, _, weight)| weight.basis_points()).sum()
    }

    fn pauser(&self) -> Option<&modelyard_core::Actor> {
        let control = &self.before.control;
        control.paused_by.as_ref().filter(|_| control.revision == self.before.target)
    }

    fn is_promoted(&self) -> bool {
        let control = &self.before.control;
        control.promoted_by.is_some() && control.revision == self.before.target
    }

    /// Of a step of the target's canary; a pass where nothing is analysed.
    fn decision(&self, step: u32) -> Decision {
        let revision = self.before.target;
        let Some(course) = self.revision(revision).spec.strategy.course() else { return Decision::Pass };
        let Some(analysis) = &course.analysis else { return Decision::Pass };
        let window = Window { revision, step: step + 1 };
        let evidence = |revision, variant| {
            let key = EvidenceKey { deployment: self.name.clone(), window, revision, variant };
            self.inputs.evidence.get(&key).cloned().unwrap_or_default()
        };
        let weight = course.stages.get(step as usize).map_or(Weight::FULL, |stage| stage.weight);
        let variant = if weight.is_zero() { course.variant() } else { VariantName::canary() };
        let stable = self.before.state.stable.map(|stable| {
            // All that serves beside it, by whatever names.
            let is_of_stable = |key: &EvidenceKey| key.window == window && key.revision == stable;
            let all = self.inputs.evidence.iter().filter(|(key, _)| key.deployment == *self.name && is_of_stable(key));
            all.fold(Evidence::default(), |mut sum, (_, evidence)| {
                sum.merge(evidence);
                sum
            })
        });
        let trial = Trial {
            analysis,
            step,
            steps: u32::try_from(
                course.stages.len() + usize::from(self.revision(revision).spec.strategy.max_surge().is_some()),
            )
            .unwrap(),
            candidate: &evidence(revision, variant),
            stable: &stable.unwrap_or_default(),
            weight,
            stage: Stage::Judged,
            is_mirrored: course.stages.get(step as usize).is_some_and(|stage| stage.mirror.is_some()),
            since: self.inputs.now,
            now: self.inputs.now,
            measurements: &self.inputs.measurements,
        };
        judge(&trial).decision
    }
}
