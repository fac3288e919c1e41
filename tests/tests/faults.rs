//! Faults, under a steady stream of requests: what callers see of them, and that all heals.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use modelyard_api::types::Rollback;
use modelyard_core::state::Outcome;
use modelyard_core::{DeploymentName, RevisionNumber};
use modelyard_test_support::{Load, Options, Stack, eventually, manifest};

const ROLLING: &str = "replicas: 2, strategy: {rolling: {}}";
const CANARY: &str = "replicas: 1, strategy: {canary: {steps: [{weight: 20, hold: 3s}, {weight: 50, hold: 2s}], \
                      analysis: {minRequests: 10, maxErrorRate: 0.05}}}";
const HELD: &str = "replicas: 1, strategy: {canary: {steps: [{weight: 20, hold: 1h}]}}";

fn linear() -> DeploymentName {
    "linear".parse().unwrap()
}

#[tokio::test]
async fn a_killed_control_plane_resumes_the_canary_at_its_step() {
    let mut stack = Stack::start().await;
    stack.apply_and_wait(&manifest("1", ROLLING)).await;
    let load = Load::start(&stack.gateway_url(), "linear");
    stack.apply(&manifest("2", CANARY)).await;
    stack.weight("2", 20.0).await;
    let since = stack.deployment().await.status.unwrap().step.unwrap().since;
    let workers = stack.workers();
    stack.kill_control_plane();
    load.answers(100).await;
    stack.start_control_plane().await;
    let resumed = stack.weight("2", 20.0).await.status.unwrap().step.unwrap();
    assert_eq!((resumed.index, resumed.since), (0, since), "the step goes on from when it began");
    assert_eq!(stack.workers(), workers);
    stack.completed(RevisionNumber(2)).await;
    load.stop().await.assert_nothing_lost();
}

#[tokio::test]
async fn a_killed_worker_is_replaced_and_its_requests_are_asked_again() {
    let stack = Stack::start().await;
    stack.apply_and_wait(&manifest("1", ROLLING)).await;
    let load = Load::start(&stack.gateway_url(), "linear");
    load.answers(50).await;
    let before = stack.workers();
    stack.kill_worker(*before.values().next().unwrap());
    stack
        .until("the worker was restarted", |d| {
            d.status.iter().flat_map(|s| &s.variants).any(|v| v.restarts == 1 && v.ready == 2)
        })
        .await;
    load.answers(100).await;
    load.stop().await.assert_nothing_lost();
    assert_eq!(stack.workers().len(), 2);
    assert_ne!(stack.workers(), before);
}

/// With its own PostgreSQL, which can be stopped.
#[tokio::test]
async fn ten_seconds_without_postgres_lose_no_request_and_no_write() {
    use modelyard_postgres_local::{Cluster, Options as Postgres};
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("postgres");
    let start = |place: std::path::PathBuf| {
        tokio::task::spawn_blocking(move || {
            Cluster::start(&place, &Postgres { durable: true, progress: &|_| {} }).unwrap()
        })
    };
    let cluster = start(place.clone()).await.unwrap();
    cluster.create_database("modelyard").unwrap();
    let url = cluster.url("modelyard");
    let stack = Stack::start_with(Options { database_url: Some(url.clone()), ..Options::default() }).await;
    stack.apply_and_wait(&manifest("1", ROLLING)).await;
    let load = Load::start(&stack.gateway_url(), "linear");
    stack.apply(&manifest("2", CANARY)).await;
    let variants = stack.weight("2", 20.0).await.status.unwrap().variants;
    // The canary has one worker only: what it fails while it is away is held against its version, as it should be.
    let stable = variants.iter().find(|v| v.version.as_str() == "1").unwrap().workload.to_string();

    tokio::task::spawn_blocking(move || cluster.stop().unwrap()).await.unwrap();
    let gone = Instant::now();
    let refused = stack.client.rollback(&linear(), &Rollback::default(), None).await.unwrap_err();
    assert_eq!(refused.status(), Some(503), "a write that cannot be kept is not acknowledged");
    let before = stack.workers();
    stack.kill_worker(*before.iter().find(|(dir, _)| dir.contains(&stable)).unwrap().1);
    eventually("the worker is replaced, with no database", async || {
        let now = stack.workers();
        (now.len() == before.len() && now != before).then_some(())
    })
    .await;
    // The fault's length is what is tested.
    tokio::time::sleep(Duration::from_secs(10).saturating_sub(gone.elapsed())).await;
    let again = start(place).await.unwrap();
    assert_eq!(again.url("modelyard"), url, "it comes back where it was");

    stack.completed(RevisionNumber(2)).await;
    load.answers(100).await;
    load.stop().await.assert_nothing_lost();
    assert_eq!(stack.client.revisions(&linear()).await.unwrap().len(), 2, "what was refused left nothing");
    drop(stack);
    tokio::task::spawn_blocking(move || again.stop().unwrap()).await.unwrap();
}

#[tokio::test]
async fn a_gateway_that_restarts_without_a_control_plane_serves_by_its_last_table() {
    let mut stack = Stack::start().await;
    stack.apply_and_wait(&manifest("1", ROLLING)).await;
    assert_eq!(stack.infer().await.0, "1");
    stack.kill_control_plane();
    stack.kill_gateway();
    stack.start_gateway().await;
    assert_eq!(stack.infer().await.0, "1");
}

#[tokio::test]
async fn a_rollback_in_each_phase_of_a_canary_loses_nothing() {
    let stack = Stack::start().await;
    stack.apply_and_wait(&manifest("1", ROLLING)).await;
    let load = Load::start(&stack.gateway_url(), "linear");
    let mut latest = 1;
    for phase in ["starting", "first step", "paused", "completed"] {
        stack.apply(&manifest("2", HELD)).await;
        latest += 1;
        if phase != "starting" {
            stack.weight("2", 20.0).await;
        }
        match phase {
            "paused" => {
                stack.client.drive(&linear(), "pause", None).await.unwrap();
                stack.until("it is paused", |d| d.status.as_ref().is_some_and(|s| s.paused)).await;
            }
            "completed" => {
                stack.client.drive(&linear(), "promote", None).await.unwrap();
                stack.completed(RevisionNumber(latest)).await;
            }
            _ => {}
        }
        let revision = stack.client.rollback(&linear(), &Rollback::default(), None).await.unwrap();
        latest += 1;
        assert_eq!((revision.number, revision.version.as_str()), (RevisionNumber(latest), "1"), "{phase}");
        stack.completed(RevisionNumber(latest)).await;
        let done = Instant::now();
        load.answers(50).await;
        assert_eq!(load.split_since(done).keys().collect::<Vec<_>>(), ["1"], "{phase}");
        let undone = |o: &Outcome| {
            matches!(o, Outcome::RolledBack { .. } | Outcome::Completed { .. } | Outcome::Superseded { .. })
        };
        stack.outcome(latest - 1, undone).await;
    }
    load.stop().await.assert_nothing_lost();
}

/// Needs root, for a small file system of the test's own; says so where it cannot have one.
#[tokio::test]
async fn a_full_disk_refuses_the_upload_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let mounted =
        std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=48m", "tmpfs"]).arg(dir.path()).output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        eprintln!("not tested: a file system of 48 MiB could not be mounted (it takes root)");
        return;
    }
    let unmount = Unmount(dir.path().to_owned());
    {
        let stack = Stack::start_with(Options { state_dir: Some(dir.path().to_owned()), ..Options::default() }).await;
        stack.apply_and_wait(&manifest("1", ROLLING)).await;
        let load = Load::start(&stack.gateway_url(), "linear");
        let large = tempfile::NamedTempFile::new().unwrap();
        large.as_file().set_len(100 << 20).unwrap();
        // Of 100 MiB of zeros.
        let digest = "20492a4d0d84f8beb1767f6616229f85d44c2827b64bdbfb260ee12fa1109e0e".parse().unwrap();
        let refused = stack.client.upload(large.path(), &digest, |_| {}).await.unwrap_err();
        assert_eq!(refused.status(), Some(507), "{refused}");
        assert!(!stack.client.has_artifact(&digest).await.unwrap());
        let incoming = std::fs::read_dir(dir.path().join("artifacts/incoming")).map_or(0, Iterator::count);
        assert_eq!(incoming, 0, "nothing is left of it");
        stack.apply_and_wait(&manifest("2", ROLLING)).await;
        load.answers(50).await;
        load.stop().await.assert_nothing_lost();
    }
    drop(unmount);
}

struct Unmount(std::path::PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        std::process::Command::new("umount").arg("-l").arg(&self.0).status().ok();
    }
}
