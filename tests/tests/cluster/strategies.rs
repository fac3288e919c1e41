//! Each strategy with pods: what callers get, and what is decided. Canaries are the story's.

use modelyard_api::types::Conclude;
use modelyard_core::RevisionNumber;
use modelyard_core::plan::ConditionKind;
use modelyard_core::state::Outcome;
use modelyard_test_support::{ClusterStack, Load, eventually, manifest};

const ROLLING: &str = "replicas: 1, rollbackWindow: 1h, strategy: {rolling: {}}";
const BLUE_GREEN: &str = "replicas: 1, strategy: {blueGreen: {autoPromote: false}}";
const SHADOW: &str = "replicas: 1, strategy: {shadow: {analysis: {minRequests: 20, maxErrorRate: 0.05, warmup: 0}}}";
const AB_TEST: &str = "replicas: 1, strategy: {abTest: {variants: [{name: control, version: \"1\", weight: 50}, \
                       {name: treatment, version: \"2\", weight: 50}], stickyBy: {header: x-user-id}}}";

/// The version and the variant that answered.
async fn ask(stack: &ClusterStack, header: (&str, &str)) -> (String, String) {
    let body = r#"{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[3,4]}]}"#;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = http.post(format!("{}/v2/models/linear/infer", stack.gateway_url())).body(body);
    let answer = request.header(header.0, header.1).send().await.unwrap();
    let header = |name: &str| answer.headers().get(name).map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default();
    (header("x-modelyard-version"), header("x-modelyard-variant"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preview_is_promoted_a_shadow_that_errs_is_taken_back_and_a_test_is_concluded() {
    let stack = ClusterStack::start().await;
    stack.apply_and_wait(&manifest("1", ROLLING)).await;
    let load = Load::start(&stack.gateway_url(), "linear");

    // Blue/green: seen only by who asks for it, then by all.
    stack.apply(&manifest("2", BLUE_GREEN)).await;
    eventually("the preview answers", async || {
        (ask(&stack, ("x-modelyard-variant", "preview")).await.0 == "2").then_some(())
    })
    .await;
    assert_eq!(ask(&stack, ("x-other", "")).await.0, "1", "nobody else sees it");
    stack.client.drive(&ClusterStack::linear(), "promote", None).await.unwrap();
    stack.completed(RevisionNumber(2)).await;
    assert_eq!(ask(&stack, ("x-other", "")).await.0, "2");

    // A shadow that fails never answers anybody.
    stack.apply(&manifest("3", SHADOW)).await;
    let outcome = stack.outcome(3, |o| matches!(o, Outcome::RolledBack { .. })).await;
    assert!(outcome.to_string().contains("maxErrorRate"), "{outcome}");
    assert_eq!(stack.completed(RevisionNumber(4)).await.version.as_str(), "2");

    // An A/B test: users keep their variant, and the winner takes all.
    stack.apply(&manifest("1", AB_TEST)).await;
    stack.completed(RevisionNumber(5)).await;
    let mut seen = std::collections::BTreeSet::new();
    for user in 0..20 {
        let user = format!("user-{user}");
        let first = ask(&stack, ("x-user-id", &user)).await;
        assert_eq!(ask(&stack, ("x-user-id", &user)).await, first, "{user} keeps its variant");
        seen.insert(first);
    }
    assert_eq!(seen, [("1", "control"), ("2", "treatment")].map(|(a, b)| (a.to_owned(), b.to_owned())).into());
    let winner = Conclude { winner: "treatment".parse().unwrap(), strategy: None };
    stack.client.conclude(&ClusterStack::linear(), &winner, None).await.unwrap();
    stack.completed(RevisionNumber(6)).await;
    assert_eq!(ask(&stack, ("x-user-id", "user-1")).await.0, "2");

    let report = load.stop().await;
    report.assert_nothing_lost();
    assert!(!report.answers.contains_key("3"), "{:?}", report.answers);
}

/// This cluster measures no pods' load: the workers stay as many as they are, and status says why.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_autoscaler_that_has_nothing_to_go_by_is_told_of() {
    let stack = ClusterStack::start().await;
    let scaled = "resources: {cpu: 50m, memory: 64Mi}, autoscaling: {minReplicas: 2, maxReplicas: 4, \
                  targetCpuUtilization: 70}, strategy: {rolling: {}}";
    stack.apply_and_wait(&manifest("1", scaled)).await;
    let deployment = stack
        .until("the autoscaler's trouble is told", |d| {
            let conditions = d.status.iter().flat_map(|status| &status.conditions);
            conditions.into_iter().any(|c| c.kind == ConditionKind::AutoscalerFailing && c.message.contains("metrics"))
        })
        .await;
    let variants = &deployment.status.unwrap().variants;
    assert_eq!((variants[0].ready, variants[0].replicas), (2, 2), "{variants:?}");
}
