//! A store with a database of its own, and what to put into it.

use std::collections::BTreeMap;
use std::time::Duration;

use modelyard_core::inputs::DesiredDeployment;
use modelyard_core::manifest::{DeploymentManifest, ModelManifest};
use modelyard_core::plan::Commit;
use modelyard_core::state::{DeploymentState, Outcome, Phase, Rollout};
use modelyard_core::{
    Actor, DeploymentName, DeploymentSpec, Digest, Epoch, Experiment, Format, ModelVersion, Resources, RevisionNumber,
    Signature, Span, Strategy, Timestamp, Weight,
};
use modelyard_store::{ApplyBatch, ApplyOutcome, Candidate, Claim, Standing, Store, StoreError};
use modelyard_test_support::TestDatabase;

pub(crate) struct Fixture {
    pub(crate) store: Store,
    pub(crate) epoch: Epoch,
    pub(crate) database: TestDatabase,
}

pub(crate) fn now() -> Timestamp {
    Timestamp::from_millis(1_764_000_000_000)
}

pub(crate) fn ann() -> Actor {
    "ann".parse().unwrap()
}

pub(crate) fn name(text: &str) -> DeploymentName {
    text.parse().unwrap()
}

pub(crate) fn revision(number: u64) -> RevisionNumber {
    RevisionNumber(number)
}

pub(crate) fn model(text: &str) -> ModelManifest {
    ModelManifest { name: text.parse().unwrap(), labels: BTreeMap::new(), description: None, owner: None }
}

/// A version whose artifact has the given content.
pub(crate) fn version(model: &str, version: &str, content: &str) -> ModelVersion {
    ModelVersion {
        model: model.parse().unwrap(),
        version: version.parse().unwrap(),
        format: Format::Onnx,
        digest: Digest::of(content.as_bytes()),
        size: content.len() as u64,
        signature: Signature::default(),
        labels: BTreeMap::new(),
        metadata: BTreeMap::new(),
    }
}

/// A deployment of the model of the same name.
pub(crate) fn deployment(text: &str, version: &str) -> DeploymentManifest {
    let spec = DeploymentSpec {
        model: text.parse().unwrap(),
        version: version.parse().unwrap(),
        replicas: 1,
        resources: Resources::default(),
        node_selector: BTreeMap::new(),
        tolerations: Vec::new(),
        autoscaling: None,
        disruption_budget: None,
        batching: None,
        engine: modelyard_core::EngineSpec::default(),
        rollback_window: Span::from_secs(600),
        allow_schema_change: false,
        strategy: Strategy::rolling(),
    };
    DeploymentManifest { name: name(text), labels: BTreeMap::new(), spec }
}

/// A vacant office, or one's own.
pub(crate) async fn take_office(store: &Store, identity: &str) -> Epoch {
    let candidate = Candidate { identity: identity.to_owned(), address: format!("http://{identity}") };
    let office = store.office(candidate);
    match office.claim(Claim::Inherited, Duration::from_secs(5)).await.unwrap() {
        Standing::Held { epoch, .. } => epoch,
        Standing::Standby(holder) => panic!("{holder:?} is in office"),
    }
}

/// The commit by which the latest revision of a deployment comes to serve all traffic.
pub(crate) fn completion_of(desired: &DesiredDeployment) -> Commit {
    let rollout = Rollout {
        revision: desired.target,
        phase: Phase::Completed,
        step: 0,
        weight: Weight::FULL,
        started_at: now(),
        since: now(),
        warming: false,
        verdict: None,
    };
    let revision = &desired.revisions[&desired.target];
    let experiment = Experiment::of(revision, None, false, &name("m"), now());
    let state = DeploymentState { stable: Some(desired.target), rollout: Some(rollout), warm: Vec::new(), experiment };
    let outcomes = [(desired.target, Outcome::Completed { at: now() })].into();
    Commit { parent: desired.parent, state, rollback: None, outcomes, events: Vec::new() }
}

impl Fixture {
    pub(crate) async fn new() -> Self {
        let database = TestDatabase::create().await;
        let store = Store::connect(database.url()).unwrap();
        store.migrate().await.unwrap();
        let epoch = take_office(&store, "a").await;
        Self { store, epoch, database }
    }

    /// With model `m`, its versions 1 and 2, and a deployment `m` of version 1.
    pub(crate) async fn with_deployment() -> Self {
        let fixture = Self::new().await;
        let mut batch = ApplyBatch::default();
        batch.add_model(0, model("m"));
        batch.add_version(1, version("m", "1", "one"));
        batch.add_version(2, version("m", "2", "two"));
        batch.add_deployment(3, deployment("m", "1"), None);
        fixture.apply(batch).await.unwrap();
        fixture
    }

    pub(crate) async fn apply(&self, batch: ApplyBatch) -> Result<ApplyOutcome, StoreError> {
        self.store.apply(batch, false, &ann(), now()).await
    }

    pub(crate) async fn deploy(&self, version: &str) -> RevisionNumber {
        let mut batch = ApplyBatch::default();
        batch.add_deployment(0, deployment("m", version), None);
        self.apply(batch).await.unwrap().documents[0].revision.unwrap()
    }

    /// The commit by which the latest revision comes to serve all traffic.
    pub(crate) async fn completion(&self) -> Commit {
        completion_of(&self.store.desired(self.epoch).await.unwrap()[&name("m")])
    }
    pub(crate) async fn commit(&self, commit: &Commit) -> Result<(), StoreError> {
        self.store.commit(&name("m"), commit, self.epoch, now()).await
    }

    pub(crate) async fn complete(&self) {
        let commit = self.completion().await;
        self.commit(&commit).await.unwrap();
    }

    pub(crate) async fn latest(&self) -> RevisionNumber {
        self.store.deployment(&name("m")).await.unwrap().revision.number
    }
}
