use modelyard_api::types::{Revision, ServedWeight};
use modelyard_core::event::Event;
use modelyard_core::{DeploymentName, Timestamp};
use serde_json::{Value, json};

use super::{Past, svg};
use crate::client::samples;

fn at(seconds: u64) -> Timestamp {
    "2026-11-24T12:00:00Z".parse::<Timestamp>().unwrap() + modelyard_core::Span::from_secs(seconds)
}

/// An event of the system, `seconds` after noon.
fn event(seconds: u64, kind: &str, message: &str, data: Value) -> Event {
    by("modelyard", seconds, kind, message, data)
}

fn by(actor: &str, seconds: u64, kind: &str, message: &str, data: Value) -> Event {
    serde_json::from_value(json!({
        "id": seconds, "at": at(seconds), "kind": kind, "actor": actor, "model": "linear", "deployment": "linear",
        "message": message, "data": data
    }))
    .unwrap()
}

fn applied(seconds: u64, revision: u64) -> [Event; 2] {
    let data = json!({"revision": revision, "version": revision.to_string(), "cause": {"kind": "applied"}});
    [
        by("ada", seconds, "RevisionCreated", &format!("revision {revision}: applied"), data.clone()),
        event(seconds, "RolloutStarted", "started", data),
    ]
}

/// Of revisions whose number is their version.
fn weights(seconds: u64, shares: &[(u64, f64)]) -> Event {
    let weight = |(revision, weight): &(u64, f64)| json!({"variant": "stable", "revision": revision, "version": revision.to_string(), "weight": weight});
    let weights: Vec<_> = shares.iter().map(weight).collect();
    event(seconds, "WeightsChanged", "traffic", json!({"weights": weights}))
}

fn verdict(seconds: u64, step: u32, kind: &str, holds: bool) -> Event {
    let check = |limit: &str, holds: bool| json!({"limit": limit, "wanted": "0.01", "measured": "7 of 300", "holds": holds, "passes": holds});
    let checks = [check("maxErrorRate", holds), check("maxDisagreement", true)];
    let verdict =
        json!({"decision": {"kind": kind}, "requests": 300, "errors": 7, "p99Micros": null, "checks": checks});
    event(seconds, "AnalysisDecided", "analysis", json!({"revision": 2, "step": step, "verdict": verdict}))
}

fn rolled_back(seconds: u64, reason: &str) -> Event {
    let data = json!({"from": 2, "to": 1, "revision": 3, "reason": reason});
    event(seconds, "RolledBack", &format!("revision 2 was rolled back to revision 1: {reason}"), data)
}

/// The walk of a revision, by its strategy.
fn revision(number: u64, strategy: Value) -> Revision {
    let sample = samples::revision(number, json!({"kind": "pending"}), json!({"kind": "applied"}));
    let mut revision = serde_json::to_value(sample).unwrap();
    revision["spec"]["strategy"] = strategy;
    serde_json::from_value(revision).unwrap()
}

fn drawn(before: &[ServedWeight], events: &[Event], revisions: &[Revision]) -> String {
    let name: DeploymentName = "linear".parse().unwrap();
    svg(&Past { name: &name, before, events, revisions, since: None, until: None })
}

/// The texts of a picture, in order.
fn words(svg: &str) -> Vec<&str> {
    let texts = svg.split("<text").skip(1);
    texts.filter_map(|text| text.split_once('>')?.1.split_once("</text>")).map(|(words, _)| words).collect()
}

#[test]
fn a_canary_that_was_taken_back_is_a_picture() {
    let mut events = vec![weights(0, &[(1, 100.0)])];
    events.extend(applied(10, 2));
    events.extend([
        weights(12, &[(1, 90.0), (2, 10.0)]),
        verdict(30, 0, "pass", true),
        weights(30, &[(1, 50.0), (2, 50.0)]),
        verdict(45, 1, "fail", false),
        rolled_back(45, "maxErrorRate 7 of 300 exceeds 0.01"),
        weights(45, &[(1, 100.0)]),
    ]);
    insta::assert_snapshot!(drawn(&[], &events, &[]));
}

#[test]
fn a_shadow_and_a_preview_wait_in_a_lane() {
    let wait = |strategy: Value| {
        let mut events = vec![weights(0, &[(1, 100.0)])];
        events.extend(applied(10, 2));
        events.extend([event(60, "RolloutCompleted", "revision 2 serves all traffic", json!({}))]);
        events.push(weights(60, &[(2, 100.0)]));
        let svg = drawn(&[], &events, &[revision(2, strategy)]);
        words(&svg).into_iter().find(|words| words.starts_with("version 2: ")).map(str::to_owned)
    };
    let told = [
        json!({"shadow": {"share": 50, "hold": "30s"}}),
        json!({"blueGreen": {"hold": "30s"}}),
        json!({"blueGreen": {"hold": "30s", "mirror": {"share": 12.5}}}),
        json!({"canary": {"shadow": {"share": 100, "hold": "5s"}, "steps": [{"weight": 10, "hold": "5s"}]}}),
        json!({"rolling": {}}),
    ]
    .map(|strategy| wait(strategy).unwrap());
    assert_eq!(
        told,
        [
            "version 2: shadow, mirrored 50 %",
            "version 2: preview",
            "version 2: preview, mirrored 12.5 %",
            "version 2: shadow, mirrored 100 %",
            "version 2: starting",
        ]
    );
}

#[test]
fn variants_of_a_test_are_named_beside_their_versions() {
    let variant = |name: &str, version: &str, model: &str| json!({"variant": name, "revision": 2, "version": version, "model": model, "weight": 50});
    let variants = [variant("control", "1", "linear"), variant("treatment", "7", "other")];
    let begun = event(10, "WeightsChanged", "traffic", json!({"weights": variants}));
    let svg = drawn(&[], &[weights(0, &[(1, 100.0)]), begun], &[]);
    let words = words(&svg);
    assert!(words.contains(&"version 1 (control)"), "{words:?}");
    assert!(words.contains(&"version 7 of other (treatment)"), "{words:?}");
}

#[test]
fn a_rollback_without_a_failed_gate_says_why() {
    let inconclusive = || verdict(20, 0, "needMoreData", true);
    let mut events = vec![inconclusive(), rolled_back(20, "no verdict within 10m")];
    events[0].what.data["verdict"]["decision"] = json!({"kind": "needMoreData", "have": 1, "want": 2});
    let svg = drawn(&[], &events, &[]);
    let words = words(&svg);
    assert!(words.iter().any(|words| words.starts_with("step 1 inconclusive: maxErrorRate")), "{words:?}");
    assert!(words.contains(&"revision 2 was rolled back to revision 1: no verdict within 10m"), "{words:?}");
}

#[test]
fn what_served_before_the_first_event_is_drawn_too() {
    let before = samples::served().weights;
    let svg = drawn(&before, &applied(10, 3), &[]);
    let words = words(&svg);
    assert!(words.contains(&"version 1 87.5 %"), "{words:?}");
    assert!(words.contains(&"version 2 12.5 %"), "{words:?}");
}

#[test]
fn nothing_and_one_event_are_pictures_too() {
    let nothing = drawn(&[], &[], &[]);
    assert!(words(&nothing).contains(&"nothing served in this time"));
    let one = drawn(&[], &[weights(0, &[(1, 100.0)])], &[]);
    assert!(words(&one).contains(&"version 1 100 %"));
    let deleted = drawn(&[], &[by("ada", 0, "DeploymentDeleted", "deployment linear was deleted", json!({}))], &[]);
    assert!(words(&deleted).contains(&"deployment linear was deleted (by ada)"));
    assert!([nothing, one, deleted].iter().all(|svg| !svg.contains("NaN") && !svg.contains("inf")));
}

#[test]
fn many_revisions_have_bounded_words() {
    let revisions = (1..=500).flat_map(|n| {
        let [created, started] = applied(n * 60, n);
        [created, started, weights(n * 60 + 5, &[(n, 100.0)])]
    });
    let svg = drawn(&[], &revisions.collect::<Vec<_>>(), &[]);
    let words = words(&svg);
    assert!(words.contains(&"480 decisions before these: see `events`"), "{words:?}");
    assert!(words.contains(&"and 490 more"), "{words:?}");
    assert!(words.contains(&"revision 500: applied (by ada)"), "{words:?}");
    assert!(words.len() < 120, "{}", words.len());
}

#[test]
fn words_of_others_cannot_break_out_of_theirs() {
    let svg = drawn(&[], &[by("<b>&", 0, "RolloutPaused", "a \"pause\"\u{1}</text><script>", json!({}))], &[]);
    assert!(svg.contains("a &quot;pause&quot; &lt;/text&gt;&lt;script&gt; (by &lt;b&gt;&amp;)"), "{svg}");
}
