//! The schema gate: a version that the callers of the one that serves cannot use does not take its place unasked.

use modelyard_core::{
    AbTest, AbVariant, Datatype, DeploymentSpec, ModelVersion, Signature, StickyBy, Strategy, TensorSpec, Weight,
};
use modelyard_store::{ApplyBatch, ApplyOutcome, ProblemStatus, StoreError};

use crate::support::*;

/// Takes `x` of a width, gives `y`.
fn signature(width: i64) -> Signature {
    let tensor = |name: &str, shape| TensorSpec { name: name.into(), datatype: Datatype::Fp32, shape };
    Signature { inputs: vec![tensor("x", vec![-1, width])], outputs: vec![tensor("y", vec![-1, 1])] }
}

fn with_signature(number: &str, signature: Signature) -> ModelVersion {
    ModelVersion { signature, ..version("s", number, number) }
}

impl Fixture {
    /// Model `s` with versions 1 and 2 of width 2, 3 of width 3 and 4 of none that is known; a deployment `s` that serves version 1.
    async fn with_signatures() -> Self {
        let fixture = Self::new().await;
        let mut batch = ApplyBatch::default();
        batch.add_model(0, model("s"));
        let signatures = [signature(2), signature(2), signature(3), Signature::default()];
        for (n, signature) in (1..).zip(signatures) {
            batch.add_version(n, with_signature(&n.to_string(), signature));
        }
        batch.add_deployment(9, deployment("s", "1"), None);
        fixture.apply(batch).await.unwrap();
        fixture.complete_s().await;
        fixture
    }

    async fn complete_s(&self) {
        let commit = completion_of(&self.store.desired(self.epoch).await.unwrap()[&name("s")]);
        self.store.commit(&name("s"), &commit, self.epoch, now()).await.unwrap();
    }

    async fn ask(&self, version: &str, allow_schema_change: bool) -> Result<ApplyOutcome, StoreError> {
        let mut asked = deployment("s", version);
        asked.spec = DeploymentSpec { allow_schema_change, ..asked.spec };
        let mut batch = ApplyBatch::default();
        batch.add_deployment(0, asked, None);
        self.apply(batch).await
    }

    /// For an A/B test of a version of the model's and another.
    async fn ask_for_test(&self, versions: [&str; 2], allow_schema_change: bool) -> Result<ApplyOutcome, StoreError> {
        let variant = |(variant, version): (&str, &str)| AbVariant {
            name: variant.parse().unwrap(),
            model: None,
            version: version.parse().unwrap(),
            weight: Weight::from_percent(50.0).unwrap(),
        };
        let strategy = Strategy::AbTest(AbTest {
            variants: ["a", "b"].into_iter().zip(versions).map(variant).collect(),
            sticky_by: StickyBy::ClientIp,
            rules: Vec::new(),
            holdout: None,
            salt: None,
            metrics: Vec::new(),
        });
        let mut asked = deployment("s", versions[0]);
        asked.spec = DeploymentSpec { allow_schema_change, strategy, ..asked.spec };
        let mut batch = ApplyBatch::default();
        batch.add_deployment(0, asked, None);
        self.apply(batch).await
    }

    async fn point(&self, version: &str) -> Result<modelyard_store::AliasMoved, StoreError> {
        let (model, alias) = ("s".parse().unwrap(), "stable".parse().unwrap());
        self.store.move_alias(&model, &alias, &version.parse().unwrap(), &ann(), now()).await
    }

    async fn version_of_s(&self) -> String {
        self.store.deployment(&name("s")).await.unwrap().revision.version.version.to_string()
    }
}

#[tokio::test]
async fn a_version_that_callers_cannot_use_is_refused_in_words() {
    let fixture = Fixture::with_signatures().await;
    assert_eq!(fixture.ask("2", false).await.unwrap().warnings, []);
    let StoreError::Refused(problems) = fixture.ask("3", false).await.unwrap_err() else { panic!() };
    let problem = &problems[0];
    assert_eq!((problem.path.as_str(), problem.status), ("spec.version", ProblemStatus::Conflict));
    assert_eq!(
        problem.message,
        "callers of version 1, which serves, cannot use version 3: dimension 1 of input x is 3, not 2. Give it a \
         deployment of its own, or set allowSchemaChange: true in this one's spec"
    );
    assert_eq!(fixture.version_of_s().await, "2");
}

#[tokio::test]
async fn it_is_refused_from_one_batch_with_its_registration_too() {
    let fixture = Fixture::with_signatures().await;
    let mut batch = ApplyBatch::default();
    batch.add_version(0, with_signature("5", signature(7)));
    batch.add_deployment(1, deployment("s", "5"), None);
    assert!(matches!(fixture.apply(batch).await, Err(StoreError::Refused(problems)) if problems[0].document == 1));
    let found = fixture.store.find_version(&"s".parse().unwrap(), &"5".parse().unwrap()).await.unwrap();
    assert_eq!(found, None, "all documents or none");
}

#[tokio::test]
async fn whoever_allows_it_has_it_with_a_warning() {
    let fixture = Fixture::with_signatures().await;
    let warnings = fixture.ask("3", true).await.unwrap().warnings;
    assert!(warnings[0].message.contains("dimension 1 of input x is 3, not 2"), "{warnings:?}");
    fixture.complete_s().await;
    assert!(fixture.ask("1", false).await.is_err(), "now the callers are those of version 3");
}

#[tokio::test]
async fn each_variant_of_a_test_must_suit_the_callers() {
    let fixture = Fixture::with_signatures().await;
    let StoreError::Refused(problems) = fixture.ask_for_test(["2", "3"], false).await.unwrap_err() else { panic!() };
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(problems[0].path, "spec.strategy.abTest.variants[1].version");
    assert_eq!(problems[0].status, ProblemStatus::Conflict);
    assert!(problems[0].message.starts_with("callers of version 1, which serves, cannot use version 3: "));
    assert_eq!(fixture.ask_for_test(["1", "2"], false).await.unwrap().warnings, []);
    assert_eq!(fixture.ask_for_test(["2", "3"], true).await.unwrap().warnings.len(), 1);
}

#[tokio::test]
async fn what_is_not_known_passes_with_a_warning() {
    let fixture = Fixture::with_signatures().await;
    let warnings = fixture.ask("4", false).await.unwrap().warnings;
    assert!(warnings[0].message.contains("version 4 are not known"), "{warnings:?}");
    fixture.complete_s().await;
    assert_eq!(fixture.ask("3", false).await.unwrap().warnings.len(), 1, "nor from there");
}

#[tokio::test]
async fn a_deployment_without_callers_takes_any_version() {
    let fixture = Fixture::with_signatures().await;
    fixture.store.delete_deployment(&name("s"), None, &ann(), now()).await.unwrap();
    fixture.ask("1", false).await.unwrap();
    assert_eq!(fixture.ask("3", false).await.unwrap().warnings, [], "version 1 has not served yet");
}

#[tokio::test]
async fn a_rollback_is_never_refused() {
    let fixture = Fixture::with_signatures().await;
    fixture.ask("3", true).await.unwrap();
    fixture.complete_s().await;
    fixture.store.rollback(&name("s"), Some(revision(1)), "why", None, &ann(), now()).await.unwrap();
    assert_eq!(fixture.version_of_s().await, "1");
}

#[tokio::test]
async fn an_alias_is_not_moved_to_a_version_that_callers_of_a_follower_cannot_use() {
    let fixture = Fixture::with_signatures().await;
    fixture.point("1").await.unwrap();
    fixture.ask("alias:stable", false).await.unwrap();
    fixture.complete_s().await;
    assert_eq!(fixture.point("2").await.unwrap().rolled.len(), 1);
    let StoreError::Conflict { message } = fixture.point("3").await.unwrap_err() else { panic!() };
    assert!(
        message.starts_with("deployment s: callers of version 1, which serves, cannot use version 3: "),
        "{message}"
    );
    assert_eq!(fixture.version_of_s().await, "2", "nor was the alias moved");
    assert!(fixture.point("2").await.unwrap().rolled.is_empty());
    assert_eq!(fixture.point("4").await.unwrap().warnings.len(), 1);
    fixture.ask("alias:stable", true).await.unwrap();
    assert_eq!(fixture.point("3").await.unwrap().rolled.len(), 1, "the deployment allows it");
}
