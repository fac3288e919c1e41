//! The main job: YAML in, pods running, a canary, rollbacks, edits by others; and what callers see of them.

use std::time::{Duration, Instant};

use modelyard_api::types::Rollback;
use modelyard_core::RevisionNumber;
use modelyard_core::event::EventKind;
use modelyard_core::state::Outcome;
use modelyard_test_support::{ClusterStack, Load, eventually_within, manifest};
use serde_json::Value;

const ROLLING: &str = "replicas: 2, strategy: {rolling: {}}";
const CANARY: &str = "replicas: 1, strategy: {canary: {steps: [{weight: 10, hold: 2s}, {weight: 50, hold: 2s}], \
                      analysis: {minRequests: 10, maxErrorRate: 0.05}}}";
const PATIENCE: Duration = Duration::from_secs(180);

/// The demo's story: a canary under load, a bad version taken back by the system, a rollback by command.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_whole_story_of_a_model_in_pods() {
    let stack = ClusterStack::start().await;
    stack.apply_and_wait(&manifest("1", ROLLING)).await;
    let load = Load::start(&stack.gateway_url(), "linear");
    load.answers(50).await;

    stack.apply(&manifest("2", CANARY)).await;
    stack.completed(RevisionNumber(2)).await;
    let verdicts = stack.client.rollout(&ClusterStack::linear()).await.unwrap().verdicts;
    assert_eq!(verdicts.len(), 2, "each step has its verdict: {verdicts:?}");

    stack.apply(&manifest("3", CANARY)).await;
    let outcome = stack.outcome(3, |o| matches!(o, Outcome::RolledBack { .. })).await;
    assert!(outcome.to_string().contains("maxErrorRate"), "{outcome}");
    assert_eq!(stack.completed(RevisionNumber(4)).await.version.as_str(), "2");

    // Version 1 is still warm: the flip is one table away.
    let asked = Instant::now();
    let rollback = Rollback { to_revision: Some(RevisionNumber(1)), reason: Some("not today".into()) };
    stack.client.rollback(&ClusterStack::linear(), &rollback, None).await.unwrap();
    let acknowledged = Instant::now();
    stack.completed(RevisionNumber(5)).await;
    eprintln!("rollback: acknowledged after {:?}, seen complete after {:?}", acknowledged - asked, asked.elapsed());
    load.answers(100).await;
    let later = asked + Duration::from_secs(1);
    eventually_within(PATIENCE, "time passes", async || (Instant::now() > later).then_some(())).await;
    load.answers(50).await;
    let split = load.split_since(later);
    assert_eq!(split.keys().collect::<Vec<_>>(), ["1"], "everything is on version 1 again: {split:?}");
    let report = load.stop().await;
    eprintln!("requests: {} sent, {} failed", report.sent, report.failures.len());
    report.assert_nothing_lost();
}

/// A full cluster: the versions take each other's place, and never ask for more pods than one of them has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_room_for_both_versions_take_each_others_place_and_no_request_is_lost() {
    let stack = ClusterStack::start().await;
    stack.apply_and_wait(&manifest("1", ROLLING)).await;
    let load = Load::start(&stack.gateway_url(), "linear");
    load.answers(50).await;
    stack.apply(&manifest("2", "replicas: 2, rollbackWindow: 0s, strategy: {rolling: {maxSurge: 0}}")).await;
    eventually_within(PATIENCE, "version 2 serves alone", async || {
        let wanted: u64 = stack.workloads().iter().filter_map(|w| w["spec"]["replicas"].as_u64()).sum();
        assert!(wanted <= 2, "{wanted} pods are asked for, and there is room for 2");
        let outcome = stack.client.revision(&ClusterStack::linear(), RevisionNumber(2)).await.ok()?.outcome;
        matches!(outcome, Outcome::Completed { .. }).then_some(())
    })
    .await;
    load.answers(50).await;
    load.stop().await.assert_nothing_lost();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_pod_is_replaced_and_no_request_is_lost() {
    let stack = ClusterStack::start().await;
    stack.apply_and_wait(&manifest("1", ROLLING)).await;
    let load = Load::start(&stack.gateway_url(), "linear");
    load.answers(50).await;
    let pod = name(&stack.pods()[0]);
    stack.kubectl.run(&["delete", "pod", &pod, "--wait=false"]);
    stack.until("another takes its place", |d| ready(d) == 2 && !stack.pods().iter().any(|p| name(p) == pod)).await;
    load.answers(100).await;
    load.stop().await.assert_nothing_lost();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_change_is_set_back_within_a_second() {
    let stack = ClusterStack::start().await;
    stack.apply_and_wait(&manifest("1", ROLLING)).await;
    let workload = name(&stack.workloads()[0]);
    let image = stack.workloads()[0]["spec"]["template"]["spec"]["containers"][0]["image"].clone();

    type Edit<'a> = (&'a str, Vec<&'a str>, Box<dyn Fn() -> bool + 'a>);
    let edits: [Edit<'_>; 3] = [
        (
            "an edited image",
            vec!["set", "image", "deployment", &workload, "worker=nobody/knows:this"],
            Box::new(|| stack.workloads()[0]["spec"]["template"]["spec"]["containers"][0]["image"] == image),
        ),
        (
            "a scaled Deployment",
            vec!["scale", "deployment", &workload, "--replicas=5"],
            Box::new(|| stack.workloads()[0]["spec"]["replicas"] == 2),
        ),
        (
            "a deleted Service",
            vec!["delete", "service", &workload],
            Box::new(|| !stack.kubectl.get(&["service", &workload]).is_null()),
        ),
    ];
    for (times, (what, edit, is_mended)) in (1..).zip(edits) {
        stack.kubectl.run(&edit);
        let edited = Instant::now();
        eventually_within(PATIENCE, what, async || is_mended().then_some(())).await;
        eprintln!("{what}: set back, and seen to be, within {:?} of the end of kubectl", edited.elapsed());
        // It is over before anybody looks, and so is told for a while.
        let words = if times == 1 { "; set back at".to_owned() } else { format!("set back {times} times") };
        stack.until("what was changed is told", |d| text(d).contains(&words)).await;
    }
    let told = stack.deployment().await;
    assert!(text(&told).contains("spec.replicas is 5, not 2"), "{}", text(&told));
    let events = stack.client.events(Some(&ClusterStack::linear()), None).await.unwrap();
    let mended = events.iter().filter(|event| event.what.kind == EventKind::DriftMended).count();
    assert_eq!(mended, 3, "{events:?}");
    // A Deployment that somebody deletes comes back too.
    stack.kubectl.run(&["delete", "deployment", &workload]);
    stack.until("the Deployment is back", |d| ready(d) == 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_taken_out_of_the_manifest_is_taken_out_of_the_cluster_and_nothing_else_is() {
    let stack = ClusterStack::start().await;
    stack.kubectl.run(&["create", "deployment", "bystander", "--image=nobody/knows:this", "--replicas=0"]);
    stack.kubectl.run(&["create", "configmap", "bystander", "--from-literal=a=b"]);
    let budget = "replicas: 1, disruptionBudget: {maxUnavailable: 1}, strategy: {rolling: {}}";
    stack.apply_and_wait(&manifest("1", budget)).await;
    let budgets = || stack.kubectl.list(&["poddisruptionbudgets"]).len();
    assert_eq!(budgets(), 1);
    stack.apply(&manifest("1", "replicas: 1, strategy: {rolling: {}}")).await;
    eventually_within(PATIENCE, "the budget goes", async || (budgets() == 0).then_some(())).await;

    stack.client.delete_deployment(&ClusterStack::linear()).await.unwrap();
    eventually_within(PATIENCE, "the workload goes", async || {
        (stack.workloads().is_empty() && stack.kubectl.list(&["services"]).is_empty()).then_some(())
    })
    .await;
    assert!(!stack.kubectl.get(&["deployment", "bystander"]).is_null());
    assert!(!stack.kubectl.get(&["configmap", "bystander"]).is_null());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_that_cannot_be_had_say_why_in_the_status() {
    let stack = ClusterStack::start().await;
    let says = async |what: &str, spec: &str, words: &str| {
        stack.apply(&manifest("1", spec)).await;
        let told = stack.until(what, |d| text(d).contains(words)).await;
        eprintln!("{what}: {}", text(&told).lines().find(|line| line.contains(words)).unwrap_or_default().trim());
    };
    says("no node has room", "replicas: 1, resources: {cpu: \"900\"}", "Unschedulable").await;
    says("no node fits", "replicas: 1, nodeSelector: {kind: none}", "Unschedulable").await;
    stack.kubectl.apply("apiVersion: v1\nkind: ResourceQuota\nmetadata: {name: tight}\nspec: {hard: {pods: \"0\"}}\n");
    says("a quota is used up", "replicas: 1, resources: {memory: 60Mi}", "exceeded quota").await;
    stack.kubectl.run(&["delete", "resourcequota", "tight"]);
    stack.apply_and_wait(&manifest("1", "replicas: 1, resources: {memory: 16Mi}")).await;
    // More than it may hold: the kernel ends it.
    let url = format!("{}/v2/models/linear/infer", stack.gateway_url());
    eventually_within(PATIENCE, "a worker out of memory is told of", async || {
        reqwest::Client::new().post(&url).body(vec![b' '; 40 << 20]).send().await.ok();
        text(&stack.deployment().await).contains("OOMKilled").then_some(())
    })
    .await;
    stack.ready(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_that_does_not_exist_is_named_and_the_old_version_serves_on() {
    let mut stack = ClusterStack::start().await;
    stack.apply_and_wait(&manifest("1", "replicas: 1, strategy: {rolling: {}}")).await;
    let load = Load::start(&stack.gateway_url(), "linear");
    load.answers(50).await;
    // An upgrade to an image that nobody has: the pods in place stay until their successors are ready.
    stack.kill_control_plane();
    stack.restart_with(&["--worker-image", "nobody/knows:this"]).await;
    stack.until("the image is named", |d| text(d).contains("ImagePull")).await;
    load.answers(100).await;
    stack.kill_control_plane();
    stack.restart_with(&[]).await;
    stack.until("all is well again", |d| ready(d) == 1 && !text(d).contains("ImagePull")).await;
    load.answers(50).await;
    load.stop().await.assert_nothing_lost();
}

fn name(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}

fn ready(deployment: &modelyard_api::types::Deployment) -> u32 {
    deployment.status.iter().flat_map(|s| &s.variants).map(|v| v.ready).sum()
}

/// All that the status says.
fn text(deployment: &modelyard_api::types::Deployment) -> String {
    serde_json::to_string_pretty(&deployment.status).unwrap()
}
