//! What served when, and that nobody has changed what is told of it; and versions that callers cannot use.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use modelyard_api::{ClientError, VerifyError};
use modelyard_core::chain::{Broken, Verifier};
use modelyard_core::{ChainHead, DeploymentName, RevisionNumber, Span, Timestamp};
use modelyard_test_support::{Stack, eventually, manifest};

const ROLLING: &str = "replicas: 1, strategy: {rolling: {}}";

fn linear() -> DeploymentName {
    "linear".parse().unwrap()
}

fn just_before(at: Timestamp) -> Timestamp {
    Timestamp::from_millis(at.as_millis() - 1)
}

#[tokio::test]
async fn what_served_is_told_for_each_moment_of_a_deployment_s_life() {
    let stack = Stack::start().await;
    let served = async |at: Timestamp| {
        let served = stack.client.served(&linear(), at).await.unwrap();
        served.weights.iter().map(|w| (w.version.to_string(), w.weight.to_string())).collect::<Vec<_>>()
    };
    let full = |version: &str| vec![(version.to_owned(), "100 %".to_owned())];
    stack.apply_and_wait(&manifest("1", ROLLING)).await;
    stack.apply_and_wait(&manifest("2", ROLLING)).await;
    stack.client.delete_deployment(&linear()).await.unwrap();
    eventually("its workers are gone", async || stack.workers().is_empty().then_some(())).await;
    stack.apply_and_wait(&manifest("1", ROLLING)).await;

    let events = stack.client.events(Some(&linear()), None).await.unwrap();
    let at = |kind: &str| events.iter().filter(|e| e.what.kind.as_str() == kind).map(|e| e.at).collect::<Vec<_>>();
    let (moves, deleted) = (at("WeightsChanged"), at("DeploymentDeleted")[0]);
    let (first, last) = (moves[0], *moves.last().unwrap());
    assert!(first < deleted && deleted < last, "{events:?}");
    assert_eq!(served(just_before(first)).await, []);
    assert_eq!(served(first).await, full("1"), "from the very millisecond on");
    assert_eq!(served(just_before(deleted)).await, full("2"));
    assert_eq!(served(deleted).await, []);
    assert_eq!(served(just_before(last)).await, [], "made again, and not ready yet");
    assert_eq!(served(last).await, full("1"));
    assert_eq!(served(last + Span::from_secs(3600 * 24 * 365 * 5)).await, full("1"));
}

#[tokio::test]
async fn events_are_verified_by_the_client_and_what_was_tampered_with_is_named() {
    let stack = Stack::start().await;
    let verify = async |expected: Option<ChainHead>| {
        stack.client.verify_events(Verifier::new(ChainHead::BEGIN, expected), |_| {}).await
    };
    assert_eq!(stack.client.events_head().await.unwrap(), ChainHead::BEGIN);
    stack.apply_and_wait(&manifest("1", ROLLING)).await;
    let kept = stack.client.events_head().await.unwrap();
    stack.apply_and_wait(&manifest("2", ROLLING)).await;
    let (head, events) = verify(Some(kept)).await.unwrap();
    let all = stack.client.events(None, None).await.unwrap();
    assert!(head.position > kept.position && events >= all.len() as u64, "{head} {events}");

    // Of years of history, the chain is read in pages.
    let pool = sqlx::PgPool::connect(stack.database_url()).await.unwrap();
    sqlx::query(
        "insert into events (at_ms, kind, actor, deployment, message, data)
         select n, 'WeightsChanged', 'system', 'old', 'moved', '{\"weights\": []}' from generate_series(1, 2500) n",
    )
    .execute(&pool)
    .await
    .unwrap();
    let (head, events) = verify(Some(head)).await.unwrap();
    assert!(events > 2500 && u64::try_from(head.position).unwrap() == events, "{head} {events}");

    let id = all[2].id;
    sqlx::query("alter table events disable trigger all").execute(&pool).await.unwrap();
    sqlx::query("update events set actor = 'nobody' where id = $1").bind(id).execute(&pool).await.unwrap();
    match verify(None).await {
        Err(VerifyError::Broken(Broken::Changed { id: named, .. })) => assert_eq!(named, id),
        other => panic!("{other:?}"),
    }
}

/// A dense version with so many inputs, and a deployment of it.
fn dense(dir: &std::path::Path, version: &str, width: usize, spec: &str) -> String {
    let path = dir.join(format!("d-{version}.json"));
    let weights = vec!["1.0"; width].join(", ");
    let layers = format!(r#"[{{"weights": [[{weights}]], "bias": [0.5], "activation": "linear"}}]"#);
    std::fs::write(&path, format!(r#"{{"input": "x", "output": "y", "layers": {layers}}}"#)).unwrap();
    format!(
        "apiVersion: modelyard.dev/v1\nkind: Model\nmetadata: {{name: linear}}\n---\n\
         apiVersion: modelyard.dev/v1\nkind: ModelVersion\nmetadata: {{name: linear-{version}}}\n\
         spec: {{model: linear, version: \"{version}\", format: dense, artifact: {{uri: 'file://{}'}}}}\n---\n\
         apiVersion: modelyard.dev/v1\nkind: ModelDeployment\nmetadata: {{name: linear}}\n\
         spec: {{model: linear, version: \"{version}\", {spec}}}\n",
        path.display()
    )
}

#[tokio::test]
async fn a_version_that_callers_cannot_use_is_refused_at_apply_unless_they_are_told() {
    let stack = Stack::start().await;
    let dir = tempfile::tempdir().unwrap();
    stack.apply_and_wait(&dense(dir.path(), "1", 2, ROLLING)).await;
    let wider = dense(dir.path(), "2", 3, ROLLING);
    for dry_run in [true, false] {
        let ClientError::Refused(problem) = stack.try_apply(&wider, dry_run, None).await.unwrap_err() else { panic!() };
        let error = &problem.errors[0];
        assert_eq!((problem.status, error.path.as_str(), error.line), (409, "spec.version", Some(13)), "{problem:?}");
        assert!(error.message.contains("dimension 1 of input x is 3, not 2"), "{error}");
    }
    assert_eq!(stack.deployment().await.version.as_str(), "1");

    let allowed = dense(dir.path(), "2", 3, &format!("allowSchemaChange: true, {ROLLING}"));
    let applied = stack.try_apply(&allowed, false, None).await.unwrap();
    assert!(applied.warnings.iter().any(|w| w.message.contains("allowSchemaChange")), "{applied:?}");
    stack.completed(RevisionNumber(2)).await;
    let rollback = modelyard_api::types::Rollback { to_revision: Some(RevisionNumber(1)), reason: None };
    stack.client.rollback(&linear(), &rollback, None).await.unwrap();
    assert_eq!(stack.completed(RevisionNumber(3)).await.version.as_str(), "1", "a rollback asks for no leave");
}
