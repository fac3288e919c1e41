//! Blue/green, and shadows, on real processes: what callers get, and what is decided.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use modelyard_core::RevisionNumber;
use modelyard_core::state::Outcome;
use modelyard_test_support::{Load, Stack, eventually, manifest};

const ROLLING: &str = "replicas: 1, strategy: {rolling: {}}";

/// The status, and the version that answered.
async fn ask(stack: &Stack, variant: &str) -> (u16, String) {
    let body = r#"{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[3,4]}]}"#;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = http.post(format!("{}/v2/models/linear/infer", stack.gateway_url())).body(body);
    let answer = request.header("x-modelyard-variant", variant).send().await.unwrap();
    let version = answer.headers().get("x-modelyard-version").map(|v| v.to_str().unwrap().to_owned());
    (answer.status().as_u16(), version.unwrap_or_default())
}

#[tokio::test]
async fn a_preview_is_looked_at_and_promoted_in_one_flip() {
    let stack = Stack::start().await;
    stack.apply_and_wait(&manifest("1", ROLLING)).await;
    let load = Load::start(&stack.gateway_url(), "linear");
    stack.apply(&manifest("2", "replicas: 1, strategy: {blueGreen: {autoPromote: false}}")).await;
    eventually("the preview answers", async || (ask(&stack, "preview").await == (200, "2".into())).then_some(())).await;
    assert_eq!(ask(&stack, "stable").await, (200, "1".into()));
    assert_eq!(ask(&stack, "green").await.0, 404, "there is no variant of that name");
    load.answers(50).await;
    assert_eq!(stack.infer().await.0, "1", "nobody else sees it");

    stack.client.drive(&"linear".parse().unwrap(), "promote", None).await.unwrap();
    stack.completed(RevisionNumber(2)).await;
    assert_eq!(stack.infer().await.0, "2");
    assert_eq!(ask(&stack, "previous").await, (200, "1".into()), "the old one is warm");
    load.answers(50).await;
    load.stop().await.assert_nothing_lost();
}

#[tokio::test]
async fn a_shadow_that_answers_otherwise_is_taken_back_before_anybody_got_its_answers() {
    let stack = Stack::start().await;
    stack.apply_and_wait(&manifest("1", ROLLING)).await;
    let load = Load::start(&stack.gateway_url(), "linear");
    let shadow = "replicas: 1, strategy: {shadow: {analysis: {minRequests: 20, maxDisagreement: 0.02, warmup: 0}}}";
    stack.apply(&manifest("2", shadow)).await;
    let outcome = stack.outcome(2, |o| matches!(o, Outcome::RolledBack { .. })).await;
    assert!(outcome.to_string().contains("maxDisagreement"), "{outcome}");
    let report = load.stop().await;
    report.assert_nothing_lost();
    assert_eq!(report.answers.keys().collect::<Vec<_>>(), ["1"], "{:?}", report.answers);
}

/// The same weights under another name: what is compared is the same.
#[tokio::test]
async fn a_shadow_that_answers_alike_becomes_the_version_that_serves() {
    let stack = Stack::start().await;
    stack.apply_and_wait(&manifest("1", ROLLING)).await;
    let load = Load::start(&stack.gateway_url(), "linear");
    let shadow = "replicas: 1, strategy: {shadow: {autoPromote: true, analysis: {minRequests: 20, maxDisagreement: 0.2, warmup: 0}}}";
    let twin = manifest("4", shadow).replace("linear-4.onnx", "linear-1.onnx");
    stack.apply(&twin).await;
    stack.completed(RevisionNumber(2)).await;
    assert_eq!(stack.infer().await.0, "4");
    let verdicts = stack.client.rollout(&"linear".parse().unwrap()).await.unwrap().verdicts;
    let compared = verdicts[0].verdict.checks.iter().find(|check| check.limit == "maxDisagreement").unwrap();
    assert!(compared.passes && compared.requests >= 20, "{compared:?}");
    load.stop().await.assert_nothing_lost();
}
