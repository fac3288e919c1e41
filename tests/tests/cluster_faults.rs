//! Faults of a real cluster under load: parts of Kubernetes that are away, workers that the kernel ends or that hang; what
//! callers see of them, and that all heals. Each runs alone (`.config/nextest.toml`): it disturbs the whole cluster.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use modelyard_api::types::{Deployment, Rollback};
use modelyard_core::RevisionNumber;
use modelyard_test_support::{ClusterStack, Load, Stopped, WorkerProcess, eventually_within, manifest};
use rustix::process::Signal;
use serde_json::Value;

const ROLLING: &str = "replicas: 2, resources: {memory: 64Mi}, strategy: {rolling: {}}";
const OUTAGE: Duration = Duration::from_secs(15);
const PATIENCE: Duration = Duration::from_secs(120);
const SILENCE: &str = "Kubernetes does not answer";

#[tokio::test]
async fn an_api_server_that_is_away_is_told_of_and_delays_neither_requests_nor_a_rollback() {
    if !Stopped::is_possible() {
        return;
    }
    let (stack, load) = with_version_1_warm().await;
    let apiserver = Stopped::stop("apiserver").await;
    let gone = Instant::now();
    stack.until("the status tells", |d| text(d).contains(SILENCE)).await;
    eprintln!("API server: its silence was told of after {:?}", gone.elapsed());
    roll_back_to_version_1(&stack, &load).await;
    pass(gone).await;
    apiserver.start().await;

    let back = Instant::now();
    stack.until("all is well again", |d| ready(d) == 4 && !text(d).contains(SILENCE)).await;
    eprintln!("API server: heard of {:?} after its return", back.elapsed());
    a_deleted_pod_is_replaced(&stack).await;
    nothing_was_lost("API server", load).await;
}

/// Nothing refuses a connection, and none that is open is closed: only silence tells. A watch is taken for dead after 65 s.
#[tokio::test]
async fn an_api_server_that_hangs_is_told_of_and_heard_of_again() {
    if !Stopped::is_possible() {
        return;
    }
    let (stack, load) = with_version_1_warm().await;
    let apiserver = Stopped::freeze("apiserver").await;
    let frozen = Instant::now();
    stack.until("the status tells", |d| text(d).contains(SILENCE)).await;
    eprintln!("hung API server: its silence was told of after {:?}", frozen.elapsed());
    assert!(frozen.elapsed() < Duration::from_secs(90), "65 s, and two attempts to connect");
    // Told once, it stays told: no attempt that merely takes its time is taken for an answer.
    let watched = Instant::now();
    while watched.elapsed() < OUTAGE {
        let deployment = stack.deployment().await;
        assert!(text(&deployment).contains(SILENCE), "after {:?}: {}", frozen.elapsed(), text(&deployment));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    roll_back_to_version_1(&stack, &load).await;
    apiserver.start().await;

    let back = Instant::now();
    stack.until("all is well again", |d| ready(d) == 4 && !text(d).contains(SILENCE)).await;
    eprintln!("hung API server: heard of {:?} after it goes on", back.elapsed());
    a_deleted_pod_is_replaced(&stack).await;
    nothing_was_lost("hung API server", load).await;
}

#[tokio::test]
async fn an_etcd_that_is_away_delays_neither_requests_nor_a_rollback() {
    if !Stopped::is_possible() {
        return;
    }
    let (stack, load) = with_version_1_warm().await;
    let etcd = Stopped::stop("etcd").await;
    let gone = Instant::now();
    roll_back_to_version_1(&stack, &load).await;
    pass(gone).await;
    etcd.start().await;

    a_deleted_pod_is_replaced(&stack).await;
    nothing_was_lost("etcd", load).await;
}

/// Nobody is told by Kubernetes whether the pods of that node live; they do, and there are no others.
#[tokio::test]
async fn workers_on_the_only_node_serve_on_while_its_kubelet_is_away() {
    if !Stopped::is_possible() {
        return;
    }
    let stack = ClusterStack::start().await;
    stack.apply_and_wait(&manifest("1", ROLLING)).await;
    let load = Load::start(&stack.gateway_url(), "linear");
    load.answers(50).await;
    let kubelet = Stopped::stop("kubelet").await;
    let gone = Instant::now();
    // One pod is marked before the other; with both marked, both are backends again.
    let both = |d: &Deployment| text(d).matches("NodeNotReady: the node of pod").count() == 2 && ready(d) == 2;
    stack.until("the status tells, and both are still backends", both).await;
    eprintln!("kubelet: its silence was told of after {:?}", gone.elapsed());
    load.answers(100).await;
    kubelet.start().await;

    let back = Instant::now();
    stack.until("all is well again", |d| ready(d) == 2 && !text(d).contains("NodeNotReady")).await;
    eprintln!("kubelet: heard of {:?} after its return", back.elapsed());
    a_deleted_pod_is_replaced(&stack).await;
    nothing_was_lost("kubelet", load).await;
}

/// By a request that takes more memory than the worker may have, sent to one of two.
#[tokio::test]
async fn a_worker_that_runs_out_of_memory_is_started_again_and_its_requests_are_asked_of_the_other() {
    let stack = ClusterStack::start().await;
    stack.apply_and_wait(&manifest("1", ROLLING)).await;
    let load = Load::start(&stack.gateway_url(), "linear");
    load.answers(50).await;
    let address = stack.pods()[0]["status"]["podIP"].as_str().unwrap().to_owned();
    let numbers = vec!["3"; 20_000_000].join(",");
    let body = format!(r#"{{"inputs":[{{"name":"x","shape":[10000000,2],"datatype":"FP32","data":[{numbers}]}}]}}"#);
    let asked = Instant::now();
    let url = format!("http://{address}:8000/v2/models/linear/infer");
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = http.post(url).body(body).send().await;
    assert!(answer.is_err(), "it cannot be answered in 64 MiB: {answer:?}");
    let ended = Instant::now();
    eprintln!("out of memory: the worker was ended {:?} after the large request", ended - asked);

    let told = stack.until("it is told, and started again", |d| ready(d) == 2 && text(d).contains("OOMKilled")).await;
    eprintln!("out of memory: two are ready {:?} later", ended.elapsed());
    assert_eq!(told.status.iter().flat_map(|s| &s.variants).map(|v| v.restarts).sum::<u32>(), 1);
    load.answers(100).await;
    nothing_was_lost("out of memory", load).await;
}

/// Connections to it are taken and nothing comes back, as when a process is suspended or spins.
#[tokio::test]
async fn a_worker_that_hangs_leaves_the_routes_and_what_it_was_asked_is_asked_of_the_other() {
    let stack = ClusterStack::start().await;
    stack.apply_and_wait(&manifest("1", ROLLING)).await;
    let load = Load::start(&stack.gateway_url(), "linear");
    load.answers(50).await;
    let Some(worker) = WorkerProcess::of(&stack.pods()[0]) else { return };
    worker.signal(Signal::STOP);
    let stopped = Instant::now();
    stack.until("it is not ready", |d| ready(d) == 1 && text(d).contains("Unready")).await;
    eprintln!("hung worker: out of the routes after {:?}", stopped.elapsed());
    assert!(stopped.elapsed() < Duration::from_secs(20), "a probe per second, three times, with 2 s to answer each");
    load.answers(100).await;
    // Every caller has had an answer while it hung: none waits for it to go on.
    eventually_within(PATIENCE, "no request hangs", async || (load.longest_wait() < SOON).then_some(())).await;
    eprintln!("hung worker: the last caller has its answer after {:?}", stopped.elapsed());
    worker.signal(Signal::CONT);
    let resumed = Instant::now();
    stack.until("both are ready", |d| ready(d) == 2).await;
    eprintln!("hung worker: back in the routes {:?} after it goes on", resumed.elapsed());
    assert_eq!(stack.pods().len(), 2);
    load.answers(100).await;
    nothing_was_lost("hung worker", load).await;
}

/// Far longer than any answer takes, and shorter than a probe.
const SOON: Duration = Duration::from_secs(1);

/// Version 2 serves, under load, and version 1 is warm.
async fn with_version_1_warm() -> (ClusterStack, Load) {
    let stack = ClusterStack::start().await;
    stack.apply_and_wait(&manifest("1", ROLLING)).await;
    stack.apply_and_wait(&manifest("2", ROLLING)).await;
    stack.until("version 1 is warm", |d| ready(d) == 4).await;
    let load = Load::start(&stack.gateway_url(), "linear");
    load.answers(50).await;
    (stack, load)
}

async fn roll_back_to_version_1(stack: &ClusterStack, load: &Load) {
    let asked = Instant::now();
    let rollback = Rollback { to_revision: Some(RevisionNumber(1)), reason: None };
    stack.client.rollback(&ClusterStack::linear(), &rollback, None).await.unwrap();
    let acknowledged = asked.elapsed();
    let flipped = async || load.split_since(asked).contains_key("1").then(|| asked.elapsed());
    let flipped = eventually_within(PATIENCE, "version 1 answers", flipped).await;
    stack.completed(RevisionNumber(3)).await;
    eprintln!("rollback: acknowledged after {acknowledged:?}, seen by a client within {flipped:?}");
    assert!(flipped < Duration::from_secs(2), "it waits for nothing of Kubernetes: {flipped:?}");
    let done = Instant::now();
    load.answers(50).await;
    assert_eq!(load.split_since(done).keys().collect::<Vec<_>>(), ["1"]);
}

/// The fault's length is what is tested.
async fn pass(gone: Instant) {
    tokio::time::sleep(OUTAGE.saturating_sub(gone.elapsed())).await;
}

/// Everything takes part in that: the API server, etcd, the controllers, the kubelet, and our watches.
async fn a_deleted_pod_is_replaced(stack: &ClusterStack) {
    let before = ready(&stack.deployment().await);
    let name = |pod: &Value| pod["metadata"]["name"].as_str().unwrap().to_owned();
    let began = Instant::now();
    // The API server may be there and not yet able to do this.
    let pod = eventually_within(PATIENCE, "a pod can be deleted", async || {
        let pods =
            stack.kubectl.attempt(&["get", "pods", "-l", "app.kubernetes.io/managed-by=modelyard", "-o", "name"]);
        let pod = pods.ok()?.lines().next()?.trim_start_matches("pod/").to_owned();
        stack.kubectl.attempt(&["delete", "pod", &pod, "--wait=false"]).ok().map(|_| pod)
    })
    .await;
    eventually_within(PATIENCE, "it goes", async || (!stack.pods().iter().any(|p| name(p) == pod)).then_some(())).await;
    stack.until("another takes its place", |d| ready(d) == before).await;
    eprintln!("a pod was deleted and replaced within {:?}", began.elapsed());
}

async fn nothing_was_lost(fault: &str, load: Load) {
    load.answers(100).await;
    let report = load.stop().await;
    eprintln!("{fault}: {} requests sent, {} failed", report.sent, report.failures.len());
    report.assert_nothing_lost();
}

fn ready(deployment: &Deployment) -> u32 {
    deployment.status.iter().flat_map(|s| &s.variants).map(|v| v.ready).sum()
}

/// All that the status says.
fn text(deployment: &Deployment) -> String {
    serde_json::to_string_pretty(&deployment.status).unwrap()
}
