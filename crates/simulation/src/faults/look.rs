//! One look of a control plane: gather, plan, commit, publish, call. The control plane's reconcile, with its failures.

use std::collections::{BTreeMap, BTreeSet};

use modelyard_core::inputs::{DesiredDeployment, Inputs};
use modelyard_core::plan::{Commit, Plan};
use modelyard_core::{DeploymentName, Observation, Observed, Timestamp, WorkloadId};
use modelyard_planner::plan;

use super::control_plane::{About, Call, Halt, UnderWay};
use super::gateway::Gateway;
use super::people::{self, Act};
use super::store::StoreError;
use super::world::{Mail, World};
use super::{Broken, check};

impl World {
    /// One of those that believe to have a term looks.
    pub(crate) fn look_somewhere(&mut self) -> Result<(), Broken> {
        let first = self.rng.usize(..2);
        for plane in [first, 1 - first] {
            if self.planes[plane].runs() && self.planes[plane].term.is_some() {
                return self.look(plane).map(drop);
            }
        }
        Ok(())
    }

    /// The plan, if one was made and carried out as far as it could be.
    pub(crate) fn look(&mut self, plane: usize) -> Result<Option<Plan>, Broken> {
        let now = self.now();
        let Some(inputs) = self.gather(plane)? else { return Ok(None) };
        let next = plan(&inputs);
        check::plan(&inputs, &next)?;
        if self.rng.u32(..4) == 0 {
            check::decided(&inputs, &next)?;
        }
        self.story.count("look");
        let term = self.planes[plane].term.as_ref();
        let waits_for = |gateway: &Gateway| term.is_some_and(|term| term.waits_for(&gateway.ids, now));
        let followed = self.gateways.iter().map(waits_for).collect();
        let about = About { plan: next, observed: now, followed, is_past_check: false };
        if let Some(term) = &mut self.planes[plane].term {
            term.last = Some(inputs);
            term.wake_at = about.plan.wake_at;
        }
        let Some(about) = self.interrupt(plane, about)? else { return Ok(None) };
        self.execute(plane, &about)?;
        Ok(Some(about.plan))
    }

    /// Everything that a plan is made from. `None` if there can be none: then traffic follows what is ready.
    fn gather(&mut self, plane: usize) -> Result<Option<Inputs>, Broken> {
        let now = self.now();
        let Some(term) = self.planes[plane].term.as_ref() else { return Ok(None) };
        let (epoch, lapsed) = (term.epoch, term.has_lapsed(now));
        let desired =
            if self.store_gone_until > now { Err(StoreError::Unavailable) } else { self.store.desired(epoch) };
        let desired = match desired {
            Err(StoreError::Fenced) => {
                self.fenced(plane, "reading");
                return Ok(None);
            }
            Ok(desired) if !lapsed => desired,
            _ => {
                self.refresh(plane);
                return Ok(None);
            }
        };
        let observation = self.observe(plane, &desired);
        let wall = self.planes[plane].wall(now);
        let Some(term) = self.planes[plane].term.as_mut() else { return Ok(None) };
        let age = term.age(now);
        Ok(Some(Inputs {
            failures: BTreeMap::new(),
            drifts: BTreeMap::new(),
            now: wall,
            epoch,
            deployments: desired,
            aliases: BTreeMap::new(),
            observation,
            evidence: modelyard_core::evidence::merge(term.following.reports()),
            measurements: BTreeMap::new(),
            in_use: term.following.in_use(age),
        }))
    }

    /// What the control plane sees of the runtime: late, in part, or not at all.
    fn observe(&mut self, plane: usize, desired: &BTreeMap<DeploymentName, DesiredDeployment>) -> Observation {
        let now = self.now();
        let skew = self.planes[plane].wall(0);
        let wall = |millis: u64| skew + modelyard_core::Span::from_millis(millis);
        let mut seen = self.runtime.observe(wall);
        let unknown = || Observed::Unknown { reason: "no answer".into() };
        if self.runtime_gone_until > now {
            self.story.count("fault: runtime not observed");
            let ids = desired.iter().flat_map(|(name, d)| d.revisions.values().flat_map(|r| r.workloads(name)));
            return Observation { workloads: ids.map(|workload| (workload.id, unknown())).collect() };
        }
        if self.chance(60)
            && let Some(earlier) = self.runtime.recall(&mut self.rng)
        {
            self.story.count("fault: stale observation");
            self.story.tell(|| "what is seen of the runtime is out of date".into());
            seen = earlier.clone();
        } else if self.chance(80)
            && let Some(earlier) = self.runtime.recall(&mut self.rng).cloned()
        {
            self.story.count("fault: partly stale observation");
            self.story.tell(|| "what is seen of the runtime is out of date in part".into());
            let ids: BTreeSet<_> = seen.workloads.keys().chain(earlier.workloads.keys()).cloned().collect();
            for id in ids.into_iter().filter(|_| self.rng.bool()) {
                match earlier.workloads.get(&id) {
                    Some(status) => drop(seen.workloads.insert(id, status.clone())),
                    None => drop(seen.workloads.remove(&id)),
                }
            }
        }
        if self.chance(60) {
            for (id, status) in &mut seen.workloads {
                if self.rng.bool() {
                    self.story.count("fault: unknown workload");
                    self.story.tell(|| format!("what {id} does is unknown"));
                    *status = unknown();
                }
            }
        }
        self.overlay(plane, &mut seen);
        seen
    }

    /// What is being removed is unknown until the call has ended and a new observation tells.
    fn overlay(&self, plane: usize, seen: &mut Observation) {
        let calls = self.planes[plane].term.iter().flat_map(|term| term.calls.values());
        let removing = calls.filter_map(|under_way| match &under_way.call {
            Call::Remove(id) => Some(id),
            Call::Ensure(_) => None,
        });
        seen.take_for_unknown(removing, "it is being removed");
    }

    /// Something happens between a plan and its execution. `None` if the control plane does not get to it.
    fn interrupt(&mut self, plane: usize, about: About) -> Result<Option<About>, Broken> {
        let now = self.now();
        let name = self.planes[plane].name;
        if self.chance(6) {
            let until = now + self.rng.u64(500..15_000);
            self.story.count("fault: control plane dies before it acts");
            self.story.tell(|| format!("control plane {name} dies before it carries its plan out"));
            self.planes[plane].term = None;
            self.planes[plane].halt = Some(Halt::Down { until });
            return Ok(None);
        }
        if self.chance(12) {
            let (until, is_past_check) = (now + self.rng.u64(500..25_000), self.rng.bool());
            self.story.count("fault: control plane stopped before it acts");
            self.story.tell(|| format!("control plane {name} is stopped before it carries its plan out"));
            let about = Some(Box::new(About { is_past_check, ..about }));
            self.planes[plane].halt = Some(Halt::Stopped { until, about });
            return Ok(None);
        }
        if self.chance(30) {
            self.story.count("people act between plan and commit");
            if self.rng.u32(..4) == 0 {
                // Made anew, it counts its writes from the beginning.
                for name in self.names.clone() {
                    let spec = people::spec(&mut self.rng)?;
                    self.do_act(&name, Act::Delete)?;
                    self.do_act(&name, Act::Apply(Box::new(spec)))?;
                }
            } else {
                self.people_act()?;
            }
        }
        Ok(Some(about))
    }

    /// A control plane that was stopped goes on where it was.
    pub(crate) fn go_on(&mut self, plane: usize) -> Result<(), Broken> {
        let Some(Halt::Stopped { about, .. }) = self.planes[plane].halt.take() else { return Ok(()) };
        let name = self.planes[plane].name;
        self.story.tell(|| format!("control plane {name} goes on"));
        match about {
            Some(about) => self.execute(plane, &about),
            None => Ok(()),
        }
    }

    fn execute(&mut self, plane: usize, about: &About) -> Result<(), Broken> {
        let now = self.now();
        let Some(term) = self.planes[plane].term.as_ref() else { return Ok(()) };
        let lapsed = term.has_lapsed(now) && !about.is_past_check;
        let (undecided, has_failed) = if lapsed {
            (about.plan.commits.keys().cloned().collect(), !about.plan.commits.is_empty())
        } else {
            self.commit(plane, &about.plan.commits)?
        };
        self.publish(plane, about, &undecided);
        for workload in about.plan.ensure.values().filter(|w| !undecided.contains(&w.deployment)) {
            self.call(plane, about, Call::Ensure(Box::new(workload.clone())));
        }
        if undecided.is_empty() {
            for id in &about.plan.remove {
                self.call(plane, about, Call::Remove(id.clone()));
            }
        }
        if has_failed {
            self.refresh(plane);
        }
        Ok(())
    }

    /// The deployments whose decision was not written, as far as the control plane knows; and whether the store failed.
    fn commit(
        &mut self,
        plane: usize,
        commits: &BTreeMap<DeploymentName, Commit>,
    ) -> Result<(BTreeSet<DeploymentName>, bool), Broken> {
        let now = self.now();
        let (wall, who) = (self.planes[plane].wall(now), self.planes[plane].name);
        let mut undecided = BTreeSet::new();
        let mut has_failed = false;
        for (name, commit) in commits {
            let Some(epoch) = self.planes[plane].term.as_ref().map(|term| term.epoch) else {
                return Ok((undecided, true));
            };
            let result = self.commit_one(name, commit, epoch, wall)?;
            match result {
                Ok(()) => self.story.tell(|| told(who, name, commit)),
                Err(StoreError::Fenced) => {
                    self.fenced(plane, "a decision");
                    undecided.insert(name.clone());
                    has_failed = true;
                }
                Err(error) => {
                    self.story.tell(|| format!("{who}'s decision on {name} is not taken: {error:?}"));
                    has_failed |= error == StoreError::Unavailable;
                    undecided.insert(name.clone());
                }
            }
        }
        Ok((undecided, has_failed))
    }

    fn commit_one(
        &mut self,
        name: &DeploymentName,
        commit: &Commit,
        epoch: modelyard_core::Epoch,
        wall: Timestamp,
    ) -> Result<Result<(), StoreError>, Broken> {
        if self.store_gone_until > self.now() || self.chance(30) {
            self.story.count("fault: commit fails");
            return Ok(Err(StoreError::Unavailable));
        }
        let before = self.store.row(name).cloned();
        let written = self.store.commit(name, commit, epoch, wall);
        match (&written, before, self.store.row(name)) {
            (Ok(()), Some(before), Some(after)) => check::written(&before, after, commit)?,
            (Err(StoreError::Stale | StoreError::NotFound), ..) => self.story.count("store refuses a stale decision"),
            _ => {}
        }
        if written.is_ok() {
            check::holds(epoch == self.store.office.epoch, || {
                format!("older writers are refused: the store takes a decision of epoch {epoch}")
            })?;
            self.told(commit);
        }
        if written.is_ok() && self.chance(40) {
            self.story.count("fault: commit's reply lost");
            self.story.tell(|| format!("the decision on {name} is written, and the reply lost"));
            return Ok(Err(StoreError::Unavailable));
        }
        Ok(written)
    }

    /// Counts what a decision tells.
    fn told(&self, commit: &Commit) {
        for event in &commit.events {
            self.story.count(match event.kind {
                modelyard_core::event::EventKind::RolloutCompleted => "decision: rollout completed",
                modelyard_core::event::EventKind::RolledBack => "decision: analysis rolls back",
                modelyard_core::event::EventKind::AnalysisDecided => "decision: analysis decides",
                modelyard_core::event::EventKind::WeightsChanged => "decision: weights change",
                modelyard_core::event::EventKind::WarmEnded => "decision: warmth ends",
                _ => "decision: other",
            });
        }
    }

    fn fenced(&mut self, plane: usize, what: &str) {
        let name = self.planes[plane].name;
        self.story.count("store refuses an earlier epoch");
        self.story.tell(|| format!("the store refuses {what} of control plane {name}: its epoch is over"));
        self.planes[plane].term = None;
    }

    fn publish(&mut self, plane: usize, about: &About, undecided: &BTreeSet<DeploymentName>) {
        let Some(term) = self.planes[plane].term.as_mut() else { return };
        let mut routes = about.plan.routes.clone();
        for name in undecided {
            routes.remove(name);
            routes.extend(term.published.table.deployments.get(name).map(|kept| (name.clone(), kept.clone())));
        }
        if !term.publish(routes, about.observed) {
            return;
        }
        let published = term.published.clone();
        let (name, version) = (self.planes[plane].name, published.table.version);
        self.story
            .tell(|| format!("control plane {name} publishes table {version}: {}", check::shown(&published.table)));
        for index in 0..self.gateways.len() {
            if self.gateways.get(index).is_some_and(|gateway| gateway.link == Some(plane)) {
                self.send_table(index, &published);
            }
        }
    }

    /// No decision can be made: workers that end or come back leave and join the routes all the same.
    fn refresh(&mut self, plane: usize) {
        let observed = self.now();
        let Some(last) = self.planes[plane].term.as_ref().and_then(|term| term.last.clone()) else { return };
        self.story.count("look without a store");
        let observation = self.observe(plane, &last.deployments);
        let plan = plan(&Inputs { observation, ..last });
        let undecided = plan.commits.keys().cloned().collect();
        self.publish(plane, &About { plan, observed, followed: Vec::new(), is_past_check: false }, &undecided);
    }

    /// A call on its way to the runtime; a workload has one at a time.
    fn call(&mut self, plane: usize, about: &About, call: Call) {
        let now = self.now();
        let id: WorkloadId = call.id().clone();
        self.sent += 1;
        let number = self.sent;
        let Some(term) = self.planes[plane].term.as_mut().filter(|term| !term.calls.contains_key(&id)) else { return };
        if term.has_lapsed(now) && !about.is_past_check {
            return;
        }
        let (epoch, name, verb) = (term.epoch, self.planes[plane].name, call.verb());
        let followed = about.followed.clone();
        if let Some(term) = self.planes[plane].term.as_mut() {
            term.calls.insert(id.clone(), UnderWay { call: call.clone(), number });
        }
        let mut takes = self.rng.u64(2..60);
        let mut ends = takes + self.rng.u64(1..20);
        if self.chance(80) {
            takes += self.rng.u64(300..4_000);
            ends = takes + self.rng.u64(1..2_000);
            self.story.count("fault: call delayed");
            self.story.tell(|| format!("{verb}({id}) of {name} takes {takes} ms"));
        }
        let is_lost = self.chance(50);
        if is_lost {
            self.story.count("fault: call lost");
            self.story.tell(|| format!("{verb}({id}) of {name} is lost"));
        } else {
            if self.chance(50) {
                ends += self.rng.u64(500..3_000);
                self.story.count("fault: call's reply lost");
                self.story.tell(|| format!("control plane {name} loses the reply of {verb}({id})"));
            }
            if self.chance(40) {
                let again = self.rng.u64(takes..=ends);
                self.story.count("fault: call duplicated");
                self.story.tell(|| format!("{verb}({id}) of {name} is made twice"));
                self.post(again, Mail::Call { plane, epoch, call: call.clone(), followed: followed.clone() });
            }
            self.post(takes, Mail::Call { plane, epoch, call, followed });
        }
        self.post(ends, Mail::CallEnds { plane, epoch, call: number });
    }
}

fn told(who: &str, name: &DeploymentName, commit: &Commit) -> String {
    let events: Vec<_> = commit.events.iter().map(|event| event.message.as_str()).collect();
    format!("{who} decides on {name}: {}", events.join("; "))
}
