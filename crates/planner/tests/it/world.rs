//! A world for plans: it keeps what a store keeps, runs what a runtime runs, and counts what gateways count.

use std::collections::{BTreeMap, BTreeSet};

use modelyard_core::inputs::{DesiredDeployment, Inputs};
use modelyard_core::plan::{Commit, DeploymentReport, Plan};
use modelyard_core::state::{Cause, Control, DeploymentState, Outcome, Revision, Rollout};
use modelyard_core::{
    AbTest, AbVariant, Actor, Canary, DeploymentName, DeploymentSpec, Digest, Epoch, Evidence, EvidenceKey, Format,
    LatencyHistogram, ModelName, ModelVersion, Observed, OnInconclusive, ReplicaPhase, ReplicaStatus, Resources,
    RevisionNumber, RevisionVariant, Route, Signature, Span, StateVersion, Step, StickyBy, Strategy, Timestamp,
    VariantName, VersionName, VersionRef, Weight, Window, WorkloadId, WorkloadStatus,
};
use modelyard_planner::plan;

pub(crate) struct World {
    pub(crate) inputs: Inputs,
    /// Every revision there ever was; plans are made from fewer.
    pub(crate) history: BTreeMap<RevisionNumber, Revision>,
    pub(crate) outcomes: BTreeMap<RevisionNumber, Outcome>,
    /// The workloads of the route table published last.
    published: BTreeSet<WorkloadId>,
    pub(crate) name: DeploymentName,
}

pub(crate) fn weight(percent: f64) -> Weight {
    Weight::from_percent(percent).unwrap()
}

pub(crate) fn canary() -> Canary {
    let step = |percent, hold| Step { weight: weight(percent), hold: Span::from_secs(hold) };
    let analysis = modelyard_core::Analysis {
        min_requests: 100,
        max_error_rate: Some(modelyard_core::Rate::from_share(0.01).unwrap()),
        max_latency_p99: Some(Span::from_millis(50)),
        // What a window shows counts from its first request, unless a test is about the warm-up.
        warmup: 0,
        ..modelyard_core::Analysis::default()
    };
    Canary {
        shadow: None,
        max_surge: None,
        steps: vec![step(10.0, 30), step(50.0, 60)],
        analysis: Some(analysis),
        on_inconclusive: OnInconclusive::Hold,
        progress_deadline: Span::from_secs(600),
    }
}

/// Of `(name, version, weight in per cent)`.
pub(crate) fn ab_test(variants: &[(&str, &str, f64)]) -> Strategy {
    let variant = |(name, version, percent): &(&str, &str, f64)| AbVariant {
        name: name.parse().unwrap(),
        model: None,
        version: version.parse().unwrap(),
        weight: weight(*percent),
    };
    Strategy::AbTest(AbTest {
        variants: variants.iter().map(variant).collect(),
        sticky_by: StickyBy::Header("x-user-id".parse().unwrap()),
        rules: Vec::new(),
        holdout: None,
        salt: None,
        metrics: Vec::new(),
    })
}

pub(crate) fn model_version(model: &ModelName, version: &VersionName) -> ModelVersion {
    ModelVersion {
        model: model.clone(),
        version: version.clone(),
        format: Format::Onnx,
        digest: Digest::of(version.as_str().as_bytes()),
        size: 1,
        signature: Signature::default(),
        labels: BTreeMap::new(),
        metadata: BTreeMap::new(),
    }
}

/// What a store makes of the variants that a spec names.
fn variants(spec: &DeploymentSpec, baseline: &VersionName) -> Vec<RevisionVariant> {
    let Some(test) = spec.strategy.ab_test() else { return Vec::new() };
    let versions = test.versions(&spec.model, baseline);
    let resolved = test.shares().into_iter().zip(versions).map(|((name, weight), (model, version))| RevisionVariant {
        name,
        version: model_version(&model, &version),
        weight,
    });
    resolved.collect()
}

/// What a revision on its way is called: without traffic, by its strategy.
pub(crate) fn variant_on_trial(revision: &Revision, rollout: &Rollout) -> VariantName {
    let course = revision.spec.strategy.course().filter(|_| rollout.weight == Weight::ZERO);
    course.map_or_else(VariantName::canary, |course| course.variant())
}

/// Two replicas of a version, ten minutes of warmth.
pub(crate) fn spec(version: &str, strategy: Strategy) -> DeploymentSpec {
    DeploymentSpec {
        model: "linear".parse().unwrap(),
        version: VersionRef::Exact(version.parse().unwrap()),
        replicas: 2,
        resources: Resources::default(),
        node_selector: BTreeMap::new(),
        tolerations: Vec::new(),
        autoscaling: None,
        disruption_budget: None,
        batching: None,
        engine: modelyard_core::EngineSpec::default(),
        rollback_window: Span::from_secs(600),
        allow_schema_change: false,
        strategy,
    }
}

impl World {
    pub(crate) fn new() -> Self {
        let inputs = Inputs {
            now: Timestamp::from_millis(1_764_000_000_000),
            epoch: Epoch(1),
            in_use: Observed::Known(BTreeSet::new()),
            ..Inputs::default()
        };
        let name = "linear".parse().unwrap();
        Self { inputs, history: BTreeMap::new(), outcomes: BTreeMap::new(), published: BTreeSet::new(), name }
    }

    /// A world in which version 1 serves.
    pub(crate) fn with_version_1() -> Self {
        let mut world = Self::new();
        world.apply(spec("1", Strategy::rolling()));
        world.settle();
        world
    }

    /// ... and version 2 is at the first step of its canary.
    pub(crate) fn in_first_step() -> Self {
        let mut world = Self::with_version_1();
        world.apply(spec("2", Strategy::Canary(canary())));
        world.run();
        world.all_ready();
        world.run();
        world
    }

    // ---- what people do ----------------------------------------------------------------------------------------

    pub(crate) fn apply(&mut self, spec: DeploymentSpec) -> RevisionNumber {
        let VersionRef::Exact(version) = &spec.version else { panic!("resolve aliases first") };
        let version = model_version(&spec.model, version);
        self.add_revision(spec, version, Cause::Applied)
    }

    pub(crate) fn roll_back(&mut self, to: u64) -> RevisionNumber {
        let (from, to) = (self.desired().target, RevisionNumber(to));
        let copied = self.history[&to].clone();
        let cause = Cause::Rollback { from, to, reason: "asked for".into() };
        self.add_revision(copied.spec, copied.version, cause)
    }

    pub(crate) fn add_revision(&mut self, spec: DeploymentSpec, version: ModelVersion, cause: Cause) -> RevisionNumber {
        let now = self.inputs.now;
        let desired = self.inputs.deployments.entry(self.name.clone()).or_insert_with(|| DesiredDeployment {
            target: RevisionNumber(0),
            revisions: BTreeMap::new(),
            control: Control::default(),
            state: DeploymentState::default(),
            parent: StateVersion(0),
        });
        let number = desired.target.next();
        let actor = Actor::system();
        let variants = variants(&spec, &version.version);
        self.history.insert(number, Revision { number, spec, version, variants, cause, actor, created_at: now });
        desired.target = number;
        desired.parent = desired.parent.next();
        self.load();
        number
    }

    /// Of the revisions, a store gives those that are pending, the target, and those that the state names.
    fn load(&mut self) {
        let desired = self.inputs.deployments.get_mut(&self.name).unwrap();
        let state = &desired.state;
        let is_named = |n: RevisionNumber| {
            n == desired.target
                || state.stable == Some(n)
                || state.rollout.as_ref().is_some_and(|r| r.revision == n)
                || state.warm.iter().any(|w| w.revision == n)
        };
        let is_loaded = |n: RevisionNumber| is_named(n) || !self.outcomes.contains_key(&n);
        let loaded = self.history.iter().filter(|(n, _)| is_loaded(**n));
        desired.revisions = loaded.map(|(n, revision)| (*n, revision.clone())).collect();
    }

    pub(crate) fn control(&mut self, change: impl FnOnce(&mut Control)) {
        let desired = self.desired_mut();
        if desired.control.revision != desired.target {
            desired.control = Control { revision: desired.target, ..Control::default() };
        }
        change(&mut desired.control);
        desired.parent = desired.parent.next();
    }

    pub(crate) fn pause(&mut self) {
        self.control(|c| c.paused_by = Some("ann".parse().unwrap()));
    }

    pub(crate) fn resume(&mut self) {
        self.control(|c| c.paused_by = None);
    }

    /// To promote is to resume.
    pub(crate) fn promote(&mut self) {
        self.control(|c| (c.paused_by, c.promoted_by) = (None, Some("ann".parse().unwrap())));
    }

    // ---- what happens ------------------------------------------------------------------------------------------

    pub(crate) fn pass_time(&mut self, seconds: u64) {
        self.inputs.now = self.inputs.now + Span::from_secs(seconds);
    }

    /// What requests to the revision on trial show in the current step.
    pub(crate) fn evidence(&mut self, requests: u64, errors: u64, latency_ms: u64) {
        let rollout = self.desired().state.rollout.clone().unwrap();
        // The warm-up of a step has a window of its own.
        let step = rollout.step + 1 + (u32::from(rollout.warming) << 31);
        let window = Window { revision: rollout.revision, step };
        let variant = variant_on_trial(&self.history[&rollout.revision], &rollout);
        let key = EvidenceKey { deployment: self.name.clone(), window, revision: rollout.revision, variant };
        let mut latency = LatencyHistogram::default();
        latency.add(LatencyHistogram::bucket(latency_ms * 1000), requests);
        self.inputs.evidence.insert(key, Evidence { requests, errors, rescued: 0, latency, ..Evidence::default() });
    }

    /// Every replica that is to run is ready.
    pub(crate) fn all_ready(&mut self) {
        let ids: Vec<_> = self.inputs.observation.workloads.keys().cloned().collect();
        for id in ids {
            self.set_ready(&id, u32::MAX);
        }
    }

    /// Replicas that are to run get ready as far as there is room for `capacity` of them; those that are ready stay.
    pub(crate) fn ready_within(&mut self, capacity: u32) {
        let ids: Vec<_> = self.inputs.observation.workloads.keys().cloned().collect();
        let ready =
            |world: &Self, id: &WorkloadId| world.inputs.observation.of(id).known().map_or(0, |s| s.ready().count());
        let taken: usize = ids.iter().map(|id| ready(self, id)).sum();
        let mut left = capacity.checked_sub(u32::try_from(taken).unwrap()).expect("no more than there is room for");
        for id in ids {
            let before = u32::try_from(ready(self, &id)).unwrap();
            self.set_ready(&id, before + left);
            left -= u32::try_from(ready(self, &id)).unwrap() - before;
        }
    }

    /// How many workers are asked for, by version.
    pub(crate) fn asked(&self) -> Vec<(String, u32)> {
        let known = self.inputs.observation.workloads.values().filter_map(Observed::known);
        let mut asked: Vec<_> = known.map(|s| (s.workload.version.to_string(), s.workload.replicas)).collect();
        asked.sort();
        asked
    }

    /// At most `count` replicas of a workload are ready, the others start.
    pub(crate) fn set_ready(&mut self, id: &WorkloadId, count: u32) {
        let Some(Observed::Known(status)) = self.inputs.observation.workloads.get_mut(id) else { return };
        let replicas = 0..status.workload.replicas;
        status.replicas = replicas
            .map(|n| ReplicaStatus {
                id: n.to_string().parse().unwrap(),
                phase: if n < count { ReplicaPhase::Ready } else { ReplicaPhase::Starting },
                endpoint: Some(format!("127.0.0.1:{}", 9000 + n).parse().unwrap()),
                restarts: 0,
                message: None,
            })
            .collect();
    }

    // ---- what the control plane does ---------------------------------------------------------------------------

    /// One reconcile, which gateways follow at once: plans, and does what the plan says.
    pub(crate) fn run(&mut self) -> Plan {
        let plan = plan(&self.inputs);
        self.execute(&plan);
        self.gateways_report();
        plan
    }

    pub(crate) fn execute(&mut self, plan: &Plan) {
        for commit in plan.commits.values() {
            for (number, outcome) in &commit.outcomes {
                let earlier = self.outcomes.insert(*number, outcome.clone());
                assert_eq!(earlier, None, "the outcome of revision {number} is recorded twice");
            }
            let desired = self.inputs.deployments.get_mut(&self.name).unwrap();
            write(desired, commit, self.inputs.now);
            self.history.extend(desired.revisions.clone());
            self.load();
        }
        self.start(plan);
        self.published = plan.routes.values().flat_map(|r| &r.variants).map(|v| v.workload.clone()).collect();
        if let Observed::Known(in_use) = &mut self.inputs.in_use {
            in_use.extend(self.published.iter().cloned());
        }
        self.stop(plan);
    }

    /// The store refuses the decisions, since someone wrote in between: nothing is done for them, and no traffic moves.
    pub(crate) fn execute_refused(&mut self, plan: &Plan) {
        if plan.commits.is_empty() {
            self.start(plan);
        }
        self.stop(plan);
    }

    fn start(&mut self, plan: &Plan) {
        for (id, workload) in &plan.ensure {
            let status = WorkloadStatus {
                workload: workload.clone(),
                epoch: self.inputs.epoch,
                replicas: Vec::new(),
                drift: Vec::new(),
                messages: Vec::new(),
                autoscaler: None,
            };
            let ready = match self.inputs.observation.workloads.insert(id.clone(), Observed::Known(status)) {
                Some(Observed::Known(before)) => u32::try_from(before.ready().count()).unwrap(),
                _ => 0,
            };
            self.set_ready(id, ready);
        }
    }

    fn stop(&mut self, plan: &Plan) {
        for id in &plan.remove {
            self.inputs.observation.workloads.remove(id);
        }
    }

    /// All gateways follow the last table, and have nothing in flight by an earlier one.
    pub(crate) fn gateways_report(&mut self) {
        self.inputs.in_use = Observed::Known(self.published.clone());
    }

    /// Reconciles until there is nothing to do, with all replicas coming up at once.
    pub(crate) fn settle(&mut self) {
        for _ in 0..20 {
            self.all_ready();
            if self.run().is_settled() {
                return;
            }
        }
        panic!("it does not settle");
    }

    // ---- what is seen ------------------------------------------------------------------------------------------

    pub(crate) fn desired(&self) -> &DesiredDeployment {
        &self.inputs.deployments[&self.name]
    }

    pub(crate) fn desired_mut(&mut self) -> &mut DesiredDeployment {
        self.inputs.deployments.get_mut(&self.name).unwrap()
    }

    pub(crate) fn route(&self) -> Route {
        plan(&self.inputs).routes[&self.name].clone()
    }

    pub(crate) fn report(&self) -> DeploymentReport {
        plan(&self.inputs).reports[&self.name].clone()
    }

    /// The share of traffic by version, of those that have any.
    pub(crate) fn split(&self) -> Vec<(String, f64)> {
        let variants = self.route().variants.into_iter().filter(|v| !v.weight.is_zero());
        variants.map(|v| (v.version.to_string(), v.weight.percent())).collect()
    }

    /// The share of traffic by name of the variant, of those that have any.
    pub(crate) fn named_split(&self) -> Vec<(String, f64)> {
        let variants = self.route().variants.into_iter().filter(|v| !v.weight.is_zero());
        variants.map(|v| (v.name.to_string(), v.weight.percent())).collect()
    }

    pub(crate) fn workloads(&self, revision: u64) -> BTreeSet<WorkloadId> {
        let workloads = self.history[&RevisionNumber(revision)].workloads(&self.name);
        workloads.into_iter().map(|workload| workload.id).collect()
    }

    pub(crate) fn workload(&self, revision: u64) -> WorkloadId {
        self.history[&RevisionNumber(revision)].workload(&self.name).id
    }
}

/// What a store does with a commit.
pub(crate) fn write(desired: &mut DesiredDeployment, commit: &Commit, now: Timestamp) {
    assert_eq!(desired.parent, commit.parent);
    desired.state = commit.state.clone();
    desired.parent = desired.parent.next();
    if let Some(draft) = &commit.rollback {
        assert_eq!(draft.number, desired.target.next());
        let copied = desired.revisions[&draft.to].clone();
        let cause = Cause::Rollback { from: draft.from, to: draft.to, reason: draft.reason.clone() };
        let made = Revision { number: draft.number, cause, actor: Actor::system(), created_at: now, ..copied };
        desired.revisions.insert(draft.number, made);
        desired.target = draft.number;
    }
}
