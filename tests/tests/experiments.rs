//! An A/B test on real processes: users keep their variant, outcomes find it, and the winner takes all.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use modelyard_api::types::Conclude;
use modelyard_core::outcomes::{Leader, NewOutcome};
use modelyard_core::state::Cause;
use modelyard_core::{DeploymentName, Experiment, RevisionNumber, VariantName, request_id};
use modelyard_test_support::{Stack, eventually, manifest};

fn linear() -> DeploymentName {
    "linear".parse().unwrap()
}

/// Version 2 beside version 1, by users.
fn tested(control: u32, treatment: u32) -> String {
    format!(
        "replicas: 1, strategy: {{abTest: {{variants: [{{name: control, version: \"1\", weight: {control}}}, \
         {{name: treatment, version: \"2\", weight: {treatment}}}], stickyBy: {{header: x-user-id}}, \
         match: [{{header: x-cohort, equals: beta, variant: treatment}}], metrics: [{{name: clicked}}]}}}}"
    )
}

/// What one answer says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Answer {
    variant: String,
    version: String,
    request_id: String,
}

async fn ask(stack: &Stack, headers: &[(&str, &str)]) -> Answer {
    let url = format!("{}/v2/models/linear/infer", stack.gateway_url());
    let body = r#"{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[3,4]}]}"#;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let request =
        headers.iter().fold(http.post(url).body(body), |request, (name, value)| request.header(*name, *value));
    let response = request.send().await.unwrap();
    assert!(response.status().is_success(), "{response:?}");
    let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
    Answer {
        variant: header("x-modelyard-variant"),
        version: header("x-modelyard-version"),
        request_id: header("x-request-id"),
    }
}

async fn ask_as(stack: &Stack, user: usize) -> Answer {
    ask(stack, &[("x-user-id", &format!("user-{user}"))]).await
}

async fn ask_all(stack: &Stack, users: usize) -> Vec<Answer> {
    let mut answers = Vec::new();
    for user in 0..users {
        answers.push(ask_as(stack, user).await);
    }
    answers
}

/// Both versions are registered, and the test serves as revision 2.
async fn under_test() -> Stack {
    let stack = Stack::start().await;
    stack.apply_and_wait(&manifest("2", "strategy: {rolling: {}}")).await;
    stack.apply_and_wait(&manifest("1", &tested(50, 50))).await;
    stack.weight("2", 50.0).await;
    eventually("the gateway follows", async || {
        let answer = ask_as(&stack, 0).await;
        ["control", "treatment"].contains(&answer.variant.as_str()).then_some(())
    })
    .await;
    stack
}

#[tokio::test]
async fn users_keep_their_variant_through_restarts_and_only_the_moved_share_changes() {
    let mut stack = under_test().await;
    let before = ask_all(&stack, 200).await;
    let treated = before.iter().filter(|a| a.variant == "treatment").count();
    assert!((60..140).contains(&treated), "{treated} of 200 at 50 %");
    assert!(before.iter().all(|a| (a.variant == "treatment") == (a.version == "2")), "{before:?}");
    for answer in &before {
        let (revision, variant) = request_id::assigned(&answer.request_id).expect("the id says what was assigned");
        assert_eq!((revision, variant.as_str()), (RevisionNumber(2), answer.variant.as_str()));
    }

    stack.kill_gateway();
    stack.kill_control_plane();
    stack.start_control_plane().await;
    stack.start_gateway().await;
    let after = ask_all(&stack, 200).await;
    let variants = |answers: &[Answer]| answers.iter().map(|a| a.variant.clone()).collect::<Vec<_>>();
    assert_eq!(variants(&before), variants(&after), "nobody moved");

    stack.apply_and_wait(&manifest("1", &tested(20, 80))).await;
    eventually("the gateway follows", async || {
        let now = ask_all(&stack, 200).await;
        let moved: Vec<_> = before.iter().zip(&now).filter(|(b, n)| b.variant != n.variant).collect();
        let all_treated = moved.iter().all(|(b, n)| b.variant == "control" && n.variant == "treatment");
        assert!(all_treated, "{moved:?}");
        (30..90).contains(&moved.len()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn rules_and_wishes_come_before_assignment() {
    let stack = under_test().await;
    for user in 0..10 {
        let user = format!("user-{user}");
        let answer = ask(&stack, &[("x-user-id", &user), ("x-cohort", "beta")]).await;
        assert_eq!(answer.variant, "treatment");
        assert_eq!(request_id::assigned(&answer.request_id), None, "it was not assigned");
        let asked_for = ask(&stack, &[("x-user-id", &user), ("x-modelyard-variant", "control")]).await;
        assert_eq!(asked_for.variant, "control");
    }
}

/// Users click by their number: three in ten of the control, seven in ten of the treatment.
fn outcome(user: usize, answer: &Answer) -> NewOutcome {
    let often = if answer.variant == "treatment" { 7 } else { 3 };
    NewOutcome {
        request_id: Some(answer.request_id.parse().unwrap()),
        unit: Some(format!("user-{user}").parse().unwrap()),
        metric: "clicked".parse().unwrap(),
        value: if user % 10 < often { 1.0 } else { 0.0 },
        at: None,
    }
}

#[tokio::test]
async fn outcomes_find_their_variant_and_the_winner_takes_all() {
    let stack = under_test().await;
    let (client, name) = (&stack.client, linear());
    let answers = ask_all(&stack, 600).await;
    let mut posted: Vec<_> = answers.iter().enumerate().map(|(user, answer)| outcome(user, answer)).collect();
    let nobodys = NewOutcome { request_id: Some("mine-1".parse().unwrap()), unit: None, ..posted[0].clone() };
    posted.push(nobodys);
    let taken = client.post_outcomes(&name, posted.clone()).await.unwrap();
    assert_eq!((taken.accepted, taken.known, taken.refused_count, taken.refused[0].index), (600, 0, 1, 600));
    let again = client.post_outcomes(&name, posted).await.unwrap();
    assert_eq!((again.accepted, again.known), (0, 600), "posted again, it counts once");

    let of_unknown =
        client.post_outcomes(&name, vec![NewOutcome { metric: "smiled".parse().unwrap(), ..outcome(0, &answers[0]) }]);
    assert_eq!(of_unknown.await.unwrap_err().status(), Some(422), "the manifest names no such metric");

    let report = eventually("all units are counted", async || {
        let report = client.experiment(&name).await.unwrap();
        (report.variants.iter().map(|v| v.units).sum::<u64>() >= 600).then_some(report)
    })
    .await;
    let treated = answers.iter().filter(|a| a.variant == "treatment").count() as u64;
    let counts: BTreeMap<_, _> =
        report.variants.iter().map(|v| (v.name.as_str(), (v.units, v.outcomes[0].units))).collect();
    assert_eq!(counts["treatment"], (treated, treated));
    assert_eq!(report.sample_ratio.mismatch, Some(false), "{report:?}");
    let treatment: VariantName = "treatment".parse().unwrap();
    assert!(matches!(&report.leader, Leader::Ahead { variant, .. } if *variant == treatment), "{report:?}");
    let comparison = &report.comparisons[0];
    assert!(comparison.interval.unwrap().lower > 0.0 && comparison.p_value.unwrap() < 0.01, "{comparison:?}");

    let conclude = Conclude { winner: treatment.clone(), strategy: None };
    let revision = client.conclude(&name, &conclude, None).await.unwrap();
    assert_eq!(revision.cause, Cause::Concluded { experiment: RevisionNumber(2), winner: treatment });
    stack.completed(revision.number).await;
    eventually("everyone has the winner", async || {
        let answers = ask_all(&stack, 20).await;
        answers.iter().all(|a| a.version == "2" && a.variant == "stable").then_some(())
    })
    .await;
    assert!(!client.experiment(&name).await.unwrap().running);
    let late = client.post_outcomes(&name, vec![outcome(700, &Answer { ..answers[0].clone() })]).await.unwrap();
    assert_eq!(late.known, 1, "it was told before");
    assert_eq!(client.conclude(&name, &conclude, None).await.unwrap_err().status(), Some(409), "it is over");
}

#[tokio::test]
async fn the_control_plane_and_the_gateway_agree_on_units() {
    let stack = under_test().await;
    let store = modelyard_store::Store::connect(stack.database_url()).unwrap();
    let experiment: Experiment = store.experiment(&linear()).await.unwrap().experiment;
    let whole: Vec<_> = ["control", "treatment"].into_iter().map(|n| (n.parse().unwrap(), half())).collect();
    let assignment = experiment.assignment(&whole).unwrap();
    for user in 0..50 {
        let answer = ask_as(&stack, user).await;
        assert_eq!(assignment.variant_of(&format!("user-{user}")).as_str(), answer.variant, "user {user}");
    }
}

fn half() -> modelyard_core::Weight {
    modelyard_core::Weight::from_percent(50.0).unwrap()
}
