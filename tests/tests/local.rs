//! The main job on one machine, with real processes: YAML in, workers running, a canary, and a rollback that loses
//! nothing.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use futures::StreamExt;
use modelyard_api::ClientError;
use modelyard_api::types::{Action, Rollback};
use modelyard_core::state::Outcome;
use modelyard_core::{DeploymentName, Digest, RevisionNumber};
use modelyard_test_support::{Load, Stack, eventually, manifest};

const ROLLING: &str = "replicas: 2, strategy: {rolling: {}}";
const CANARY: &str = "replicas: 1, strategy: {canary: {steps: [{weight: 10, hold: 2s}, {weight: 50, hold: 2s}], \
                      analysis: {minRequests: 10, maxErrorRate: 0.05, maxLatencyP95: 2s}}}";
/// A canary that stays where it is.
const HELD: &str = "replicas: 1, strategy: {canary: {steps: [{weight: 20, hold: 1h}]}}";

fn linear() -> DeploymentName {
    "linear".parse().unwrap()
}

#[tokio::test]
async fn what_is_applied_is_served() {
    let stack = Stack::start().await;
    let applied = stack.apply(&manifest("1", ROLLING)).await;
    assert!(applied.documents.iter().all(|d| d.action == Action::Created), "{applied:?}");
    stack.completed(RevisionNumber(1)).await;
    assert_eq!(stack.infer().await, ("1".into(), 3.0));

    let again = stack.apply(&manifest("1", ROLLING)).await;
    assert!(again.documents.iter().all(|d| d.action == Action::Unchanged), "{again:?}");
    assert!(again.plan.is_empty());

    stack.apply_and_wait(&manifest("2", ROLLING)).await;
    let (version, number) = stack.infer().await;
    assert!(version == "2" && (number - 3.6).abs() < 1e-5, "{version} {number}");
}

#[tokio::test]
async fn a_canary_walks_its_steps_under_load() {
    let stack = Stack::start().await;
    stack.apply_and_wait(&manifest("1", ROLLING)).await;
    let load = Load::start(&stack.gateway_url(), "linear");
    stack.apply(&manifest("2", CANARY)).await;
    stack.weight("2", 50.0).await;
    let half = Instant::now();
    load.answers(200).await;
    let split = load.split_since(half);
    let share = split["2"] as f64 / split.values().sum::<usize>() as f64;
    assert!((0.3..=0.7).contains(&share), "{split:?} at 50 %");
    stack.completed(RevisionNumber(2)).await;
    let verdicts = stack.client.rollout(&linear()).await.unwrap().verdicts;
    assert_eq!(verdicts.len(), 2, "each step has its verdict, with its numbers: {verdicts:?}");
    load.stop().await.assert_nothing_lost();
}

#[tokio::test]
async fn a_bad_version_is_taken_back_by_the_system_and_no_caller_sees_it() {
    let stack = Stack::start().await;
    stack.apply_and_wait(&manifest("1", ROLLING)).await;
    let load = Load::start(&stack.gateway_url(), "linear");
    stack.apply(&manifest("3", CANARY)).await;
    let outcome = stack.outcome(2, |o| matches!(o, Outcome::RolledBack { .. })).await;
    assert!(outcome.to_string().contains("maxErrorRate"), "{outcome}");
    let deployment = stack.completed(RevisionNumber(3)).await;
    assert_eq!(deployment.version.as_str(), "1");
    load.answers(100).await;
    load.stop().await.assert_nothing_lost();
    let events = stack.client.events(Some(&linear()), None).await.unwrap();
    assert!(events.iter().any(|e| e.what.kind.as_str() == "RolledBack"), "{events:?}");
    eventually("the workers of the bad version are gone", async || (stack.workers().len() == 2).then_some(())).await;
}

#[tokio::test]
async fn a_rollback_by_command_is_instant_while_warm_and_loses_nothing() {
    let stack = Stack::start().await;
    stack.apply_and_wait(&manifest("1", ROLLING)).await;
    stack.apply_and_wait(&manifest("2", ROLLING)).await;
    let load = Load::start(&stack.gateway_url(), "linear");
    load.answers(50).await;
    let rollback = Rollback { to_revision: None, reason: Some("it is worse".into()) };
    let revision = stack.client.rollback(&linear(), &rollback, None).await.unwrap();
    assert_eq!((revision.number, revision.version.as_str()), (RevisionNumber(3), "1"));
    stack.completed(RevisionNumber(3)).await;
    let done = Instant::now();
    load.answers(100).await;
    assert_eq!(load.split_since(done).keys().collect::<Vec<_>>(), ["1"]);
    load.stop().await.assert_nothing_lost();
    assert!(stack.revision(3).await.cause.to_string().contains("it is worse"));

    let (name, to_itself) = (linear(), Rollback { to_revision: Some(RevisionNumber(1)), reason: None });
    let nothing = stack.client.rollback(&name, &to_itself, None);
    assert_eq!(nothing.await.unwrap_err().status(), Some(409), "revision 1 is what serves");
}

#[tokio::test]
async fn a_rollout_is_paused_resumed_promoted_and_aborted() {
    let stack = Stack::start().await;
    stack.apply_and_wait(&manifest("1", "strategy: {rolling: {}}")).await;
    let (name, client) = (linear(), &stack.client);
    assert_eq!(client.drive(&name, "pause", None).await.unwrap_err().status(), Some(409), "there is no rollout");

    stack.apply(&manifest("2", CANARY)).await;
    client.drive(&name, "pause", None).await.unwrap();
    let paused = stack.until("it is paused", |d| d.status.as_ref().is_some_and(|s| s.paused)).await;
    assert!(paused.status.unwrap().waiting_on.iter().any(|w| w.contains("paused by test")));
    client.drive(&name, "resume", None).await.unwrap();
    client.drive(&name, "promote", None).await.unwrap();
    stack.completed(RevisionNumber(2)).await;

    stack.apply(&manifest("1", HELD)).await;
    stack.weight("1", 20.0).await;
    client.drive(&name, "abort", None).await.unwrap();
    let deployment = stack.completed(RevisionNumber(4)).await;
    assert_eq!(deployment.version.as_str(), "2");
    let outcome = stack.outcome(3, |o| matches!(o, Outcome::RolledBack { .. })).await;
    assert!(outcome.to_string().contains("aborted by test"), "{outcome}");
}

#[tokio::test]
async fn deployments_roll_when_the_alias_they_follow_moves() {
    let stack = Stack::start().await;
    stack.apply(&manifest("1", "strategy: {rolling: {}}")).await;
    stack.apply(&manifest("2", "strategy: {rolling: {}}").split("---").take(2).collect::<Vec<_>>().join("---")).await;
    let (model, alias) = ("linear".parse().unwrap(), "stable".parse().unwrap());
    stack.client.move_alias(&model, &alias, "1".parse().unwrap()).await.unwrap();
    let follow = manifest("1", "strategy: {rolling: {}}")
        .replace("{model: linear, version: \"1\", strategy", "{model: linear, version: \"alias:stable\", strategy");
    stack.apply_and_wait(&follow).await;
    let moved = stack.client.move_alias(&model, &alias, "2".parse().unwrap()).await.unwrap();
    assert_eq!(moved.rolled.len(), 1, "{moved:?}");
    stack.completed(moved.rolled[0].revision).await;
    assert_eq!(stack.infer().await.0, "2");
    assert_eq!(stack.client.drop_alias(&model, &alias).await.unwrap_err().status(), Some(409), "it is followed");
}

#[tokio::test]
async fn what_is_deleted_stops_and_its_numbers_are_not_used_again() {
    let stack = Stack::start().await;
    stack.apply_and_wait(&manifest("1", ROLLING)).await;
    let version = "1".parse().unwrap();
    let in_use = stack.client.delete_version(&"linear".parse().unwrap(), &version).await.unwrap_err();
    assert!(in_use.status() == Some(409) && in_use.to_string().contains("deployment linear"), "{in_use}");
    stack.client.delete_deployment(&linear()).await.unwrap();
    eventually("its workers are gone", async || stack.workers().is_empty().then_some(())).await;
    let served =
        stack.client.served(&linear(), modelyard_core::Timestamp::from_millis(7_258_118_400_000)).await.unwrap();
    assert!(served.weights.is_empty(), "{served:?}");
    assert_eq!(stack.apply_and_wait(&manifest("1", ROLLING)).await, RevisionNumber(2));
}

#[tokio::test]
async fn each_artifact_that_cannot_be_served_is_refused_in_its_own_words_and_leaves_nothing() {
    let stack = Stack::start().await;
    let dir = tempfile::tempdir().unwrap();
    let good = std::fs::read(modelyard_test_support::model_file("linear-1.onnx")).unwrap();
    let cases: [(&str, Vec<u8>, &str); 5] = [
        ("a pickle", b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00}\x94.".to_vec(), "pickle"),
        ("a truncated file", good[..good.len() / 2].to_vec(), "cut off"),
        ("a web page", b"<!DOCTYPE html><html><body>404</body></html>".to_vec(), "HTML"),
        ("an empty file", Vec::new(), "empty"),
        ("unknown bytes", (0..2000u32).map(|n| (n * 7919 % 251) as u8).collect(), "ONNX"),
    ];
    for (what, bytes, word) in cases {
        let path = dir.path().join("model.onnx");
        std::fs::write(&path, &bytes).unwrap();
        let text = format!(
            "apiVersion: modelyard.dev/v1\nkind: Model\nmetadata: {{name: m}}\n---\n\
             apiVersion: modelyard.dev/v1\nkind: ModelVersion\nmetadata: {{name: m-1}}\n\
             spec: {{model: m, version: \"1\", format: onnx, artifact: {{uri: 'file://{}'}}}}\n",
            path.display()
        );
        let ClientError::Refused(problem) = stack.try_apply(&text, false, None).await.unwrap_err() else { panic!() };
        assert_eq!(problem.status, 422, "{what}");
        let error = &problem.errors[0];
        assert!(error.message.to_lowercase().contains(&word.to_lowercase()), "{what}: {error}");
        assert_eq!((error.line, error.path.as_str()), (Some(8), "spec.artifact.uri"), "{error}");
        assert!(!stack.client.has_artifact(&Digest::of(&bytes)).await.unwrap(), "{what} stays behind");
    }
    assert!(stack.client.models().await.unwrap().is_empty(), "all documents or none");
}

#[tokio::test]
async fn an_engine_that_cannot_load_the_version_is_refused_at_its_line_and_one_that_can_is_used() {
    let stack = Stack::start().await;
    for (engine, words) in
        [("dense", "it is onnx, and dense loads dense"), ("tensorflow", "tensorflow loads tensorflow")]
    {
        let text = manifest("3", &format!("engine: {engine}, {ROLLING}"));
        let refused = stack.try_apply(&text, false, None).await.unwrap_err();
        let ClientError::Refused(problem) = refused else { panic!("{refused}") };
        let error = &problem.errors[0];
        assert_eq!((problem.status, error.path.as_str(), error.line), (422, "spec.engine", Some(13)), "{error}");
        assert!(error.message.contains(words), "{error}");
    }
    assert!(stack.client.models().await.unwrap().is_empty(), "all documents or none");
    stack.apply_and_wait(&manifest("1", &format!("engine: rten, {ROLLING}"))).await;
    assert_eq!(stack.infer().await, ("1".into(), 3.0));
    // Another engine is another set of workers, and so a revision.
    let with_threads = manifest("1", &format!("engine: {{name: rten, threads: {{intra: 2}}}}, {ROLLING}"));
    assert_eq!(stack.apply_and_wait(&with_threads).await, RevisionNumber(2));
    assert_eq!(stack.infer().await, ("1".into(), 3.0));
}

#[tokio::test]
async fn a_version_is_immutable_and_a_pinned_digest_is_kept_to() {
    let stack = Stack::start().await;
    stack.apply(&manifest("1", ROLLING)).await;
    let other = manifest("1", ROLLING).replace("linear-1.onnx", "linear-2.onnx");
    let refused = stack.try_apply(&other, false, None).await.unwrap_err();
    let ClientError::Refused(problem) = refused else { panic!() };
    assert!(problem.status == 409 && problem.errors[0].message.contains("immutable"), "{problem:?}");

    let pinned = manifest("2", ROLLING)
        .replace("{uri: linear-2.onnx}", &format!("{{uri: linear-2.onnx, sha256: {}}}", Digest::of(b"x")));
    let ClientError::Refused(problem) = stack.try_apply(&pinned, false, None).await.unwrap_err() else { panic!() };
    assert!(problem.errors[0].path == "spec.artifact.sha256", "{problem:?}");
}

#[tokio::test]
async fn of_two_applies_that_expect_the_same_generation_one_wins() {
    let stack = Stack::start().await;
    let revision = stack.apply_and_wait(&manifest("1", ROLLING)).await;
    let (three, four) = (manifest("1", "replicas: 3"), manifest("1", "replicas: 4"));
    let expect = Some(revision);
    let (a, b) = tokio::join!(stack.try_apply(&three, false, expect), stack.try_apply(&four, false, expect));
    let refused: Vec<_> = [a, b].into_iter().filter_map(Result::err).map(|e| e.status()).collect();
    assert_eq!(refused, [Some(412)]);
}

#[tokio::test]
async fn a_dry_run_tells_the_plan_and_does_nothing() {
    let stack = Stack::start().await;
    let told = stack.try_apply(&manifest("1", ROLLING), true, None).await.unwrap();
    assert!(
        told.dry_run && told.plan.iter().any(|line| line.contains("start 2 worker(s) of linear version 1")),
        "{told:?}"
    );
    assert!(stack.client.models().await.unwrap().is_empty() && stack.client.deployments().await.unwrap().is_empty());
}

#[tokio::test]
async fn an_upload_of_two_gigabytes_is_never_whole_in_memory() {
    let stack = Stack::start().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("large");
    std::fs::File::create(&path).unwrap().set_len(2 << 30).unwrap();
    // Of 2 GiB of zeros.
    let digest = "a7c744c13cc101ed66c29f672f92455547889cc586ce6d44fe76ae824958ea51".parse().unwrap();
    let stored = stack.client.upload(&path, &digest, |_| {}).await.unwrap();
    assert_eq!((stored.sha256, stored.size), (digest, 2 << 30));
    let status = std::fs::read_to_string(format!("/proc/{}/status", stack.control_plane_pid())).unwrap();
    let peak = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
    let kilobytes: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(kilobytes < 300_000, "the daemon held {kilobytes} kB");
}

#[tokio::test]
async fn events_are_followed_as_they_happen() {
    let stack = Stack::start().await;
    let mut events = Box::pin(stack.client.follow_events(Some(&linear()), None).await.unwrap());
    stack.apply(&manifest("1", ROLLING)).await;
    let seen = async {
        while let Some(event) = events.next().await {
            if event.unwrap().what.kind.as_str() == "RolloutCompleted" {
                return;
            }
        }
        panic!("the stream ended");
    };
    tokio::time::timeout(Duration::from_secs(60), seen).await.expect("the event comes");
}

#[tokio::test]
async fn workers_outlive_the_control_plane_and_are_taken_over() {
    let mut stack = Stack::start().await;
    stack.apply_and_wait(&manifest("1", ROLLING)).await;
    let before = stack.workers();
    stack.terminate_control_plane();
    assert_eq!(stack.infer().await.0, "1");
    stack.start_control_plane().await;
    stack.completed(RevisionNumber(1)).await;
    stack.kill_control_plane();
    stack.start_control_plane().await;
    stack.completed(RevisionNumber(1)).await;
    assert_eq!(stack.workers(), before, "the same processes, no twins, no orphans");
}

#[tokio::test]
async fn the_openapi_document_is_served_and_checked_in() {
    let stack = Stack::start().await;
    let served = reqwest::get(format!("{}/api/v1/openapi.json", stack.server_url())).await.unwrap();
    let served: serde_json::Value = served.json().await.unwrap();
    let checked_in = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/openapi.json")).unwrap();
    let checked_in: serde_json::Value = serde_json::from_str(&checked_in).unwrap();
    assert_eq!(served, checked_in, "write it anew: modelyard-control-plane openapi > docs/openapi.json");
}
