//! Batches of documents: what each comes to, and that all or none are applied.

use modelyard_store::{ApplyBatch, Change, ProblemStatus, StoreError};

use crate::support::*;

fn changes(outcome: &modelyard_store::ApplyOutcome) -> Vec<Change> {
    outcome.documents.iter().map(|d| d.change).collect()
}

#[tokio::test]
async fn documents_are_created_unchanged_or_updated() {
    let fixture = Fixture::with_deployment().await;
    let mut again = ApplyBatch::default();
    again.add_model(0, model("m"));
    again.add_version(1, version("m", "1", "one"));
    again.add_deployment(2, deployment("m", "1"), None);
    let outcome = fixture.apply(again).await.unwrap();
    assert_eq!(changes(&outcome), [Change::Unchanged; 3]);
    assert_eq!(outcome.documents[2].revision, Some(revision(1)));
    assert_eq!(outcome.desired_before, outcome.desired_after);

    let mut other = ApplyBatch::default();
    other.add_model(0, modelyard_core::manifest::ModelManifest { owner: Some("ann".into()), ..model("m") });
    let mut relabelled = version("m", "1", "one");
    relabelled.metadata.insert("auc".into(), "0.9".into());
    other.add_version(1, relabelled);
    other.add_deployment(2, deployment("m", "2"), None);
    let outcome = fixture.apply(other).await.unwrap();
    assert_eq!(changes(&outcome), [Change::Updated; 3]);
    assert_eq!(outcome.documents[2].revision, Some(revision(2)));
}

#[tokio::test]
async fn labels_alone_make_no_revision() {
    let fixture = Fixture::with_deployment().await;
    let mut batch = ApplyBatch::default();
    let mut relabelled = deployment("m", "1");
    relabelled.labels.insert("team".into(), "pricing".into());
    batch.add_deployment(0, relabelled, None);
    let outcome = fixture.apply(batch).await.unwrap();
    assert_eq!((outcome.documents[0].change, outcome.documents[0].revision), (Change::Updated, Some(revision(1))));
    assert_eq!(fixture.store.deployment(&name("m")).await.unwrap().labels["team"], "pricing");
}

#[tokio::test]
async fn the_problems_of_all_documents_are_told_and_nothing_is_applied() {
    let fixture = Fixture::with_deployment().await;
    let mut batch = ApplyBatch::default();
    batch.add_model(0, model("fine"));
    batch.add_version(1, version("m", "1", "another content"));
    batch.add_version(
        2,
        modelyard_core::ModelVersion { format: modelyard_core::Format::Dense, ..version("m", "2", "two") },
    );
    batch.add_version(3, version("nobody", "1", "x"));
    batch.add_deployment(4, deployment("m", "7"), None);
    batch.add_deployment(5, deployment("nobody", "1"), None);
    batch.add_deployment(6, deployment("m", "alias:none"), Some(revision(1)));
    let StoreError::Refused(problems) = fixture.apply(batch).await.unwrap_err() else { panic!() };
    let told: Vec<_> = problems.iter().map(|p| (p.document, p.path.as_str(), p.status)).collect();
    assert_eq!(
        told,
        [
            (1, "spec.version", ProblemStatus::Conflict),
            (2, "spec.format", ProblemStatus::Conflict),
            (3, "spec.model", ProblemStatus::Invalid),
            (4, "spec.version", ProblemStatus::Invalid),
            (5, "spec.model", ProblemStatus::Invalid),
            (6, "spec.version", ProblemStatus::Invalid),
        ]
    );
    assert!(problems[0].message.contains("immutable"));
    assert!(fixture.store.model(&"fine".parse().unwrap()).await.is_err());
    assert_eq!(fixture.latest().await, revision(1));
}

#[tokio::test]
async fn a_stale_expectation_is_refused() {
    let fixture = Fixture::with_deployment().await;
    fixture.deploy("2").await;
    for (target, expected) in [("m", revision(1)), ("m", revision(3))] {
        let mut batch = ApplyBatch::default();
        batch.add_deployment(0, deployment(target, "1"), Some(expected));
        let StoreError::Refused(problems) = fixture.apply(batch).await.unwrap_err() else { panic!() };
        assert_eq!(problems[0].status, ProblemStatus::Stale);
    }
}

#[tokio::test]
async fn a_dry_run_tells_all_and_changes_nothing() {
    let fixture = Fixture::with_deployment().await;
    let mut batch = ApplyBatch::default();
    batch.add_deployment(0, deployment("m", "2"), None);
    let outcome = fixture.store.apply(batch, true, &ann(), now()).await.unwrap();
    assert_eq!(outcome.documents[0].revision, Some(revision(2)));
    assert_eq!(outcome.desired_before[&name("m")].target, revision(1));
    assert_eq!(outcome.desired_after[&name("m")].target, revision(2));
    assert_eq!(fixture.latest().await, revision(1));
    assert_eq!(fixture.deploy("2").await, revision(2), "the number was not used up");
}

#[tokio::test]
async fn numbers_go_on_after_a_deployment_was_deleted_and_its_events_stay() {
    let fixture = Fixture::with_deployment().await;
    fixture.store.delete_deployment(&name("m"), None, &ann(), now()).await.unwrap();
    assert!(fixture.store.desired(fixture.epoch).await.unwrap().is_empty());
    assert_eq!(fixture.deploy("1").await, revision(2));
    let filter = modelyard_store::EventFilter { deployment: Some(name("m")), ..Default::default() };
    let kinds: Vec<_> =
        fixture.store.events(&filter, 100).await.unwrap().iter().map(|e| e.what.kind.to_string()).collect();
    assert_eq!(kinds, ["RevisionCreated", "DeploymentDeleted", "RevisionCreated"]);
}
