//! One rollout from its first step to its end, decided by the planner.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use fastrand::Rng;
use modelyard_core::inputs::{DesiredDeployment, Inputs};
use modelyard_core::manifest::{Resource, parse};
use modelyard_core::state::{Cause, Control, DeploymentState, Phase, Revision, Rollout};
use modelyard_core::{
    Actor, DeploymentName, DeploymentSpec, Digest, Epoch, EvidenceKey, Format, ModelVersion, Observed, ReplicaPhase,
    ReplicaStatus, RevisionNumber, Route, Signature, Span, StateVersion, Timestamp, VariantName, VersionRef, Weight,
    Workload, WorkloadStatus,
};
use modelyard_planner::plan;

use crate::traffic::Versions;

/// A manifest, and the traffic that its rollout gets.
#[derive(Debug, Clone)]
pub struct Policy {
    name: DeploymentName,
    spec: DeploymentSpec,
    /// Requests per second to all versions together.
    pub requests_per_second: f64,
    /// How often the planner looks, in seconds.
    pub look_every: u32,
    /// After so many seconds a rollout without a decision is given up.
    pub patience: u32,
}

impl Policy {
    /// # Errors
    /// If the text is no manifest of one deployment, with its version named.
    pub fn new(manifest: &str) -> Result<Self> {
        let documents = parse(manifest).map_err(|problems| {
            let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
            anyhow::anyhow!("{}", problems.join("; "))
        })?;
        let [document] = documents.as_slice() else { anyhow::bail!("the manifest must have one document") };
        let Resource::ModelDeployment(deployment) = &document.resource else {
            anyhow::bail!("the manifest must be one of a deployment")
        };
        ensure!(matches!(deployment.spec.version, VersionRef::Exact(_)), "the manifest must name its version");
        let (name, spec) = (deployment.name.clone(), deployment.spec.clone());
        Ok(Self { name, spec, requests_per_second: 100.0, look_every: 1, patience: 1800 })
    }

    /// Version 1 serves, version 2 is what the manifest asks for, and the workers of both are ready.
    fn begin(&self) -> Result<Inputs> {
        let now = Timestamp::from_millis(1_764_000_000_000);
        let revision = |number: u64, version: &str| -> Result<Revision> {
            let version = ModelVersion {
                model: self.spec.model.clone(),
                version: version.parse()?,
                format: Format::Onnx,
                digest: Digest::of(version.as_bytes()),
                size: 1,
                signature: Signature::default(),
                labels: BTreeMap::new(),
                metadata: BTreeMap::new(),
            };
            let (number, spec, actor) = (RevisionNumber(number), self.spec.clone(), Actor::system());
            let (variants, cause) = (Vec::new(), Cause::Applied);
            Ok(Revision { number, spec, version, variants, cause, actor, created_at: now })
        };
        let revisions = BTreeMap::from([(STABLE, revision(1, "1")?), (CANDIDATE, revision(2, "2")?)]);
        let served = Rollout {
            revision: STABLE,
            phase: Phase::Completed,
            step: 0,
            weight: Weight::FULL,
            started_at: now,
            since: now,
            warming: false,
            verdict: None,
        };
        let mut inputs = Inputs { now, epoch: Epoch(1), in_use: Observed::Known(BTreeSet::new()), ..Inputs::default() };
        for revision in revisions.values() {
            let workload = revision.workload(&self.name);
            let status = running(workload.clone())?;
            inputs.observation.workloads.insert(workload.id, Observed::Known(status));
        }
        let desired = DesiredDeployment {
            target: CANDIDATE,
            revisions,
            control: Control::default(),
            state: DeploymentState { stable: Some(STABLE), rollout: Some(served), ..DeploymentState::default() },
            parent: StateVersion(0),
        };
        inputs.deployments.insert(self.name.clone(), desired);
        Ok(inputs)
    }
}

const STABLE: RevisionNumber = RevisionNumber(1);
const CANDIDATE: RevisionNumber = RevisionNumber(2);

fn running(workload: Workload) -> Result<WorkloadStatus> {
    let replica = |n: u32| -> Result<ReplicaStatus> {
        let endpoint = Some(format!("127.0.0.1:{}", 9000 + n).parse()?);
        Ok(ReplicaStatus {
            id: n.to_string().parse()?,
            phase: ReplicaPhase::Ready,
            endpoint,
            restarts: 0,
            message: None,
        })
    };
    let replicas = (0..workload.replicas).map(replica).collect::<Result<_>>()?;
    Ok(WorkloadStatus {
        workload,
        epoch: Epoch(1),
        replicas,
        drift: Vec::new(),
        messages: Vec::new(),
        autoscaler: None,
    })
}

/// How a rollout ended, and what that took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    pub end: End,
    /// Requests of the version on trial until the end, in all steps.
    pub requests: u64,
    pub seconds: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Promoted,
    RolledBack,
    Undecided,
}

impl Policy {
    /// Lets the planner look at what `versions` answer until it has decided.
    ///
    /// # Errors
    /// If the manifest cannot be rolled out at all.
    pub fn roll_out(&self, versions: &Versions, rng: &mut Rng) -> Result<Run> {
        let mut inputs = self.begin()?;
        let (mut requests, mut seconds) = (0, 0);
        loop {
            let next = plan(&inputs);
            if let Some(commit) = next.commits.get(&self.name) {
                if commit.rollback.is_some() {
                    return Ok(Run { end: End::RolledBack, requests, seconds });
                }
                let desired = inputs.deployments.get_mut(&self.name).context("the deployment is there")?;
                desired.state = commit.state.clone();
                if commit.state.rollout.as_ref().is_some_and(|r| r.phase == Phase::Completed) {
                    return Ok(Run { end: End::Promoted, requests, seconds });
                }
            }
            if seconds >= self.patience {
                return Ok(Run { end: End::Undecided, requests, seconds });
            }
            let route = next.routes.get(&self.name).context("the deployment is routed")?;
            let expected = self.requests_per_second * f64::from(self.look_every);
            let batch = versions.serve(expected, share(route), rng);
            requests += batch.candidate.requests;
            let of_variants =
                [(CANDIDATE, VariantName::canary(), batch.candidate), (STABLE, VariantName::stable(), batch.stable)];
            for (revision, variant, evidence) in of_variants {
                let key = EvidenceKey { deployment: self.name.clone(), window: route.window, revision, variant };
                inputs.evidence.entry(key).or_default().merge(&evidence);
            }
            seconds += self.look_every;
            inputs.now = inputs.now + Span::from_secs(u64::from(self.look_every));
        }
    }
}

fn share(route: &Route) -> f64 {
    let canary = route.variants.iter().find(|v| v.name == VariantName::canary());
    canary.map_or(0.0, |v| v.weight.percent() / 100.0)
}
