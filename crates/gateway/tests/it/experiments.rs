//! Sticky assignment, rules, previews and mirroring.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::support::{Behaviour, Gateway, route, table};
use modelyard_core::{
    Assignment, CookieName, Evidence, EvidenceReport, HeaderName, MatchRule, Mirror, Redaction, RevisionNumber, Route,
    Slots, StickyBy, VariantEvidence, VariantName, Weight, request_id,
};

const CAT: &str = r#"{"model_name":"m","outputs":[{"name":"y","datatype":"FP32","shape":[1,2],"data":[0.9,0.1]}]}"#;
const DOG: &str = r#"{"model_name":"m","outputs":[{"name":"y","datatype":"FP32","shape":[1,2],"data":[0.2,0.8]}]}"#;

fn sticky(mut route: Route, sticky_by: StickyBy) -> Route {
    let weights: Vec<_> = route.variants.iter().map(|v| (v.name.clone(), v.weight)).collect();
    route.assignment =
        Some(Assignment { sticky_by, salt: "m/2".parse().unwrap(), slots: Slots::of(&weights).unwrap() });
    route
}

fn by_user() -> StickyBy {
    StickyBy::Header("x-user-id".parse::<HeaderName>().unwrap())
}

fn mirrored(mut route: Route, share: Weight) -> Route {
    route.mirror = Some(Mirror::new(VariantName::canary(), share));
    route
}

async fn variants_of_users(gateway: &Gateway, users: u32) -> BTreeMap<u32, String> {
    let mut all = BTreeMap::new();
    for user in 0..users {
        let answer = gateway.infer("m", &format!("x-user-id: user-{user}\r\n")).await;
        assert_eq!(answer.status, 200);
        all.insert(user, answer.header("x-modelyard-variant"));
    }
    all
}

#[tokio::test]
async fn a_user_keeps_its_variant_through_other_weights_a_restart_and_on_another_gateway() {
    let mut gateway = Gateway::start().await;
    let mut other = Gateway::start().await;
    let (old, new) = (gateway.backend(Behaviour::Ok("1")).await, gateway.backend(Behaviour::Ok("2")).await);
    let half = sticky(route(1, &[("1", 5_000, &[old]), ("2", 5_000, &[new])]), by_user());
    gateway.publish(table(1, half.clone())).await;
    other.publish(table(1, half.clone())).await;
    let before = variants_of_users(&gateway, 200).await;
    assert_eq!(variants_of_users(&other, 200).await, before);
    gateway.restart().await;
    assert_eq!(variants_of_users(&gateway, 200).await, before);

    let mut more = route(1, &[("1", 3_000, &[old]), ("2", 7_000, &[new])]);
    let mut assignment = half.assignment.unwrap();
    let weights: Vec<_> = more.variants.iter().map(|v| (v.name.clone(), v.weight)).collect();
    assignment.slots = assignment.slots.reweighted(&weights).unwrap();
    more.assignment = Some(assignment);
    gateway.publish(table(2, more)).await;
    let after = variants_of_users(&gateway, 200).await;
    let moved: Vec<_> = before.iter().filter(|(user, variant)| after[user] != **variant).collect();
    assert!(moved.iter().all(|(_, variant)| *variant == "stable"), "nobody leaves the one that grew");
    // A fifth of the users; binomial, n 200, p 0.2, outside with a probability below 1e-4, and the hash is fixed.
    assert!((18..=65).contains(&moved.len()), "{} of 200 moved", moved.len());
}

#[tokio::test]
async fn what_was_assigned_is_counted_by_request_and_unit_and_told_by_the_request_id() {
    let mut gateway = Gateway::start().await;
    let (old, new) = (gateway.backend(Behaviour::Ok("1")).await, gateway.backend(Behaviour::Ok("2")).await);
    gateway.publish(table(1, sticky(route(1, &[("1", 5_000, &[old]), ("2", 5_000, &[new])]), by_user()))).await;
    for _ in 0..2 {
        for user in 0..50 {
            let answer = gateway.infer("m", &format!("x-user-id: user-{user}\r\n")).await;
            let (revision, variant) = request_id::assigned(&answer.header("x-request-id")).unwrap();
            assert_eq!(variant.as_str(), answer.header("x-modelyard-variant"));
            assert_eq!(revision.to_string(), answer.header("x-modelyard-version"), "as this table numbers them");
        }
    }
    let requests = |report: &EvidenceReport| report.variants.iter().map(|v| v.evidence.exposure.requests).sum::<u64>();
    gateway.reported(|report| requests(report) == 100).await;
    let report = gateway.last_report();
    let exposures = || report.variants.iter().map(|v| &v.evidence.exposure);
    assert_eq!(exposures().map(|e| e.units.estimate()).sum::<u64>(), 50);
    assert!(exposures().all(|e| e.requests == 2 * e.units.estimate() && e.requests > 20), "{report:?}");
    let asked_for = gateway.infer("m", "x-user-id: u\r\nx-modelyard-variant: canary\r\n").await;
    assert_eq!(asked_for.header("x-request-id").len(), 32, "it says nothing of an assignment, as there was none");
}

#[tokio::test]
async fn a_client_gets_a_cookie_once_and_keeps_its_variant_by_it() {
    let mut gateway = Gateway::start().await;
    let (old, new) = (gateway.backend(Behaviour::Ok("1")).await, gateway.backend(Behaviour::Ok("2")).await);
    let route = route(1, &[("1", 5_000, &[old]), ("2", 5_000, &[new])]);
    gateway.publish(table(1, sticky(route, StickyBy::Cookie(CookieName::unit())))).await;
    for _ in 0..20 {
        let first = gateway.infer("m", "").await;
        let cookie = first.header("set-cookie");
        let (pair, attributes) = cookie.split_once(';').unwrap();
        assert!(pair.starts_with("modelyard-unit=") && attributes.contains("HttpOnly"), "{cookie}");
        let again = gateway.infer("m", &format!("cookie: theme=dark; {pair}\r\n")).await;
        assert_eq!(again.header("x-modelyard-variant"), first.header("x-modelyard-variant"));
        assert_eq!(again.header("set-cookie"), "");
    }
}

#[tokio::test]
async fn rules_and_previews_reach_variants_without_weight() {
    let mut gateway = Gateway::start().await;
    let (old, new) = (gateway.backend(Behaviour::Ok("1")).await, gateway.backend(Behaviour::Ok("2")).await);
    let mut route = route(1, &[("1", 10_000, &[old]), ("2", 0, &[new])]);
    let (header, variant) = ("x-cohort".parse().unwrap(), VariantName::canary());
    route.rules = vec![MatchRule { header, equals: "beta".into(), variant }];
    gateway.publish(table(1, route)).await;
    assert_eq!(gateway.infer("m", "").await.body, "1");
    assert_eq!(gateway.infer("m", "x-cohort: beta\r\n").await.body, "2");
    assert_eq!(gateway.infer("m", "x-modelyard-variant: canary\r\n").await.body, "2");
    assert_eq!(gateway.infer("m", "x-cohort: beta\r\nx-modelyard-variant: stable\r\n").await.body, "1");
    let unknown = gateway.infer("m", "x-modelyard-variant: green\r\n").await;
    assert_eq!(unknown.status, 404);
    assert!(unknown.body.contains("there is no variant green here; there are: stable, canary"), "{}", unknown.body);
}

#[tokio::test]
async fn answers_of_a_mirrored_variant_are_compared_and_counted_and_no_client_sees_them() {
    let mut gateway = Gateway::start().await;
    let (old, new) = (gateway.backend(Behaviour::Ok(CAT)).await, gateway.backend(Behaviour::Ok(DOG)).await);
    let shadow = mirrored(route(1, &[("1", 10_000, &[old]), ("2", 0, &[new])]), Weight::FULL);
    gateway.publish(table(1, shadow)).await;
    for _ in 0..20 {
        let answer = gateway.infer("m", "").await;
        assert_eq!((answer.body.as_str(), answer.header("x-modelyard-variant").as_str()), (CAT, "stable"));
    }
    let seen = gateway.evidence(2, |e| e.disagreement.compared == 20).await;
    assert_eq!((seen.requests, seen.errors, seen.latency.count()), (20, 0, 20));
    let disagreement = &seen.disagreement;
    assert_eq!((disagreement.mirrored, disagreement.differing, disagreement.dropped), (20, 20, 0));
    let y = &disagreement.outputs["y"];
    assert_eq!((y.labels, y.flips, y.mismatched), (20, 20, 0));
    assert!((y.largest_absolute.get() - 0.7).abs() < 1e-6, "{:?}", y.largest_absolute);
    assert!((y.drift() - 0.5).abs() < 1e-9, "{}", y.drift());
    assert_eq!(gateway.evidence(1, |e| e.requests == 20).await.disagreement, Evidence::default().disagreement);
    assert!(gateway.last_report().variants.iter().all(|v| v.examples.is_empty()), "none unless they are asked for");
    let metrics = gateway.get("/metrics").await.body;
    for line in ["mirrored_total", "mirror_compared_total", "mirror_differing_total"] {
        let line = format!("modelyard_gateway_{line}{{deployment=\"m\",variant=\"canary\",version=\"2\"}} 20");
        assert!(metrics.lines().any(|l| l == line), "{line} is not in {metrics}");
    }
}

#[tokio::test]
async fn a_share_is_mirrored_and_only_what_another_variant_answered_well() {
    let mut gateway = Gateway::start().await;
    let (old, new) = (gateway.backend(Behaviour::Ok(CAT)).await, gateway.backend(Behaviour::Ok(CAT)).await);
    let tenth = Weight::from_basis_points(1_000).unwrap();
    gateway.publish(table(1, mirrored(route(1, &[("1", 10_000, &[old]), ("2", 0, &[new])]), tenth))).await;
    for _ in 0..500 {
        gateway.infer("m", "").await;
    }
    gateway.infer("m/versions/1", "").await;
    let seen = gateway.evidence(2, |e| e.disagreement.mirrored >= 20).await.disagreement;
    // Binomial, n 500, p 0.1: outside with a probability below 1e-5.
    assert!(seen.mirrored <= 85 && seen.differing == 0, "{seen:?}");

    let bad = gateway.backend(Behaviour::Status(400)).await;
    let shadow = mirrored(route(2, &[("1", 5_000, &[bad]), ("2", 5_000, &[new])]), Weight::FULL);
    gateway.publish(table(2, shadow)).await;
    for _ in 0..20 {
        gateway.infer("m", "").await;
    }
    let in_window = |v: &&VariantEvidence| v.window.revision == RevisionNumber(2);
    let requests = |r: &EvidenceReport| r.variants.iter().filter(in_window).map(|v| v.evidence.requests).sum::<u64>();
    gateway.reported(|report| requests(report) == 20).await;
    let report = gateway.last_report();
    assert!(report.variants.iter().filter(in_window).all(|v| v.evidence.disagreement.is_empty()), "{report:?}");
}

#[tokio::test]
async fn what_a_mirrored_variant_fails_are_its_errors_and_what_cannot_be_read_is_counted() {
    let mut gateway = Gateway::start().await;
    let old = gateway.backend(Behaviour::Ok(CAT)).await;
    for (window, behaviour) in [(1, Behaviour::Status(500)), (2, Behaviour::Status(400)), (3, Behaviour::BreakOff)] {
        let bad = gateway.backend(behaviour).await;
        let shadow = mirrored(route(window, &[("1", 10_000, &[old]), ("2", 0, &[bad])]), Weight::FULL);
        gateway.publish(table(window, shadow)).await;
        assert_eq!(gateway.infer("m", "").await.status, 200);
        let in_window =
            |v: &&VariantEvidence| v.window.revision == RevisionNumber(window) && v.revision == RevisionNumber(2);
        gateway.reported(|r| r.variants.iter().find(in_window).is_some_and(|v| v.evidence.errors == 1)).await;
        let report = gateway.last_report();
        let seen = &report.variants.iter().find(in_window).unwrap().evidence;
        assert_eq!((seen.requests, seen.disagreement.mirrored, seen.disagreement.compared), (1, 1, 0));
    }
    let text = gateway.backend(Behaviour::Ok("not json")).await;
    gateway.publish(table(4, mirrored(route(9, &[("1", 10_000, &[old]), ("2", 0, &[text])]), Weight::FULL))).await;
    gateway.infer("m", "").await;
    gateway.reported(|r| r.variants.iter().any(|v| v.evidence.disagreement.unreadable == 1)).await;
}

#[tokio::test]
async fn a_mirrored_variant_that_hangs_slows_nobody_and_what_does_not_fit_is_dropped_and_counted() {
    let mut gateway = Gateway::start_with(&["--mirror-queue", "3", "--mirror-tasks", "2"]).await;
    let old = gateway.backend(Behaviour::Ok(CAT)).await;
    let hung = gateway.backend(Behaviour::Slow(Duration::from_secs(3600), DOG)).await;
    gateway.publish(table(1, mirrored(route(1, &[("1", 10_000, &[old]), ("2", 0, &[hung])]), Weight::FULL))).await;
    let began = std::time::Instant::now();
    for _ in 0..2 {
        assert_eq!(gateway.infer("m", "").await.status, 200);
    }
    gateway.evidence(2, |e| e.disagreement.mirrored == 2).await;
    for _ in 0..48 {
        assert_eq!(gateway.infer("m", "").await.status, 200);
    }
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    let seen = gateway.evidence(2, |e| e.disagreement.dropped == 45).await;
    assert_eq!(seen.disagreement.mirrored, 2, "two are asked, three wait, the others are dropped");
}

#[tokio::test]
async fn bodies_beyond_the_bytes_of_the_queue_are_dropped() {
    let mut gateway = Gateway::start_with(&["--mirror-bytes", "10000"]).await;
    let (old, new) = (gateway.backend(Behaviour::Ok(CAT)).await, gateway.backend(Behaviour::Ok(CAT)).await);
    gateway.publish(table(1, mirrored(route(1, &[("1", 10_000, &[old]), ("2", 0, &[new])]), Weight::FULL))).await;
    gateway.post("/v2/models/m/infer", "", &vec![b'x'; 20_000]).await;
    gateway.post("/v2/models/m/infer", "", b"{}").await;
    let seen = gateway.evidence(2, |e| e.disagreement.compared == 1).await.disagreement;
    assert_eq!((seen.dropped, seen.mirrored), (1, 1));
}

#[tokio::test]
async fn examples_are_bounded_and_say_no_more_than_they_may() {
    let mut gateway = Gateway::start().await;
    let (old, new) = (gateway.backend(Behaviour::Ok(CAT)).await, gateway.backend(Behaviour::Ok(DOG)).await);
    for (sequence, redact) in [(1, Redaction::Values), (2, Redaction::Inputs), (3, Redaction::Nothing)] {
        let mut shadow = mirrored(route(sequence, &[("1", 10_000, &[old]), ("2", 0, &[new])]), Weight::FULL);
        let mirror = shadow.mirror.as_mut().unwrap();
        (mirror.keep_examples, mirror.redact) = (3, redact);
        gateway.publish(table(sequence, shadow)).await;
        for n in 0..5 {
            gateway.infer("m", &format!("x-request-id: {sequence}-{n}\r\n")).await;
        }
        let of_window = |v: &&VariantEvidence| v.window.revision == RevisionNumber(sequence);
        let is_done = |v: &VariantEvidence| v.evidence.disagreement.compared == 5;
        gateway.reported(|r| r.variants.iter().filter(of_window).any(is_done)).await;
        let report = gateway.last_report();
        let all: Vec<_> = report.variants.iter().filter(of_window).flat_map(|v| &v.examples).collect();
        assert_eq!(all.len(), 3);
        for example in all {
            assert!(example.request_id.starts_with(&format!("{sequence}-")));
            assert_eq!((example.reference.as_str(), example.candidate.as_str()), ("stable", "canary"));
            let what = "`y`: 1 of 1 labels differ";
            let (difference, answer) = match redact {
                Redaction::Values => (what.to_owned(), None),
                _ => (format!("{what} (label 0 became 1 at 0)"), Some(DOG)),
            };
            assert_eq!(example.differences, [difference]);
            assert_eq!(example.candidate_answer.as_deref(), answer);
            assert_eq!(example.request.is_some(), redact == Redaction::Nothing);
        }
    }
}
