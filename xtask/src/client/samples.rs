//! API objects for tests, written as the server sends them.

use modelyard_api::types::{Deployment, Revision, Rollout, Served};
use modelyard_core::event::Event;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

fn read<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn spec() -> Value {
    json!({
        "model": "linear", "version": "alias:stable", "replicas": 2, "rollbackWindow": "10m",
        "strategy": {"canary": {"steps": [{"weight": 10, "hold": "30s"}, {"weight": 50, "hold": "1m"}]}}
    })
}

fn verdict() -> Value {
    json!({
        "decision": {"kind": "needMoreData", "have": 40, "want": 100, "at": "2026-11-24T12:01:00Z"},
        "requests": 40, "errors": 1, "p99Micros": 1_250, "stable": {"requests": 360, "errors": 2, "p99Micros": 1_300},
        "checks": [{
            "limit": "maxErrorRateIncrease", "wanted": "0.005", "measured": "1 of 40 beside 2 of 360", "holds": true,
            "passes": false, "unit": "share", "estimate": 0.019_444, "lower": -0.012, "upper": 0.088, "requests": 40,
            "stableRequests": 360, "why": "both are possible"
        }]
    })
}

fn report() -> Value {
    json!({
        "observedRevision": 2, "phase": "progressing", "paused": false,
        "step": {"index": 0, "count": 2, "since": "2026-11-24T12:00:10Z"},
        "variants": [
            {"name": "stable", "revision": 1, "version": "1", "workload": "linear-0123456789", "weight": 90,
             "replicas": 2, "ready": 2, "restarts": 0},
            {"name": "canary", "revision": 2, "version": "2", "workload": "linear-abcdef0123", "weight": 10,
             "replicas": 2, "ready": 1, "restarts": 3}
        ],
        "conditions": [
            {"kind": "Available", "status": true, "message": "every variant has a ready worker"},
            {"kind": "Degraded", "status": true,
             "message": "1 of 2 workers of version 2 are ready; worker 1: starting (ErrImagePull: not found,\nat all)"}
        ],
        "waitingOn": ["step 1 holds for 12 s more", "1 of 2 workers of version 2"],
        "verdict": verdict()
    })
}

/// In the first step of a canary from version 1 to 2.
pub(super) fn deployment() -> Deployment {
    read(json!({
        "name": "linear", "labels": {"team": "pricing"}, "generation": 2, "spec": spec(), "version": "2", "stable": 1,
        "createdAt": "2026-11-24T11:00:00Z", "status": report()
    }))
}

pub(super) fn rollout() -> Rollout {
    read(json!({
        "deployment": "linear", "revision": 2, "version": "2", "cause": {"kind": "applied"}, "phase": "progressing",
        "outcome": {"kind": "pending"}, "status": report(),
        "verdicts": [{"at": "2026-11-24T12:00:30Z", "step": 0, "verdict": verdict()}]
    }))
}

/// Revision `number`, with the outcome and cause given as the API writes them.
pub(super) fn revision(number: u64, outcome: Value, cause: Value) -> Revision {
    let served = (outcome["kind"] == "completed").then_some("2026-11-24T11:00:05Z");
    read(json!({
        "number": number, "version": number.to_string(), "spec": spec(), "cause": cause, "actor": "ada",
        "createdAt": "2026-11-24T11:00:00Z", "outcome": outcome, "servedAt": served
    }))
}

/// 1 completed, 2 was rolled back by 3.
pub(super) fn revisions() -> Vec<Revision> {
    let applied = || json!({"kind": "applied"});
    let back = json!({"kind": "rollback", "from": 2, "to": 1, "reason": "error rate 0.2"});
    vec![
        revision(3, json!({"kind": "pending"}), back),
        revision(2, json!({"kind": "rolledBack", "by": 3, "reason": "error rate 0.2"}), applied()),
        revision(1, json!({"kind": "completed", "at": "2026-11-24T11:00:05Z"}), applied()),
    ]
}

pub(super) fn events() -> Vec<Event> {
    let event = |id: i64, kind: &str, deployment: Option<&str>, message: &str| {
        read(json!({
            "id": id, "at": "2026-11-24T11:00:00.500Z", "kind": kind, "actor": "ada", "model": "linear",
            "deployment": deployment, "message": message, "data": {}
        }))
    };
    vec![
        event(1, "VersionRegistered", None, "linear version 2 registered"),
        event(2, "RevisionCreated", Some("linear"), "revision 2\nof linear"),
    ]
}

pub(super) fn served() -> Served {
    read(json!({
        "deployment": "linear", "at": "2026-11-24T12:00:00Z", "since": "2026-11-24T11:30:00Z",
        "weights": [
            {"variant": "stable", "revision": 1, "version": "1", "weight": 87.5},
            {"variant": "canary", "revision": 2, "version": "2", "weight": 12.5}
        ]
    }))
}
