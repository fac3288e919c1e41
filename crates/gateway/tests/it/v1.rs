//! TF Serving's and TorchServe's paths: the same variants, fallbacks, evidence and mirroring as any other.

use modelyard_core::{Mirror, VariantName, Weight};
use serde_json::json;

use crate::support::{Behaviour, Gateway, route, table};

fn parsed(body: &str) -> serde_json::Value {
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"))
}

#[tokio::test]
async fn requests_of_all_protocols_reach_the_version_that_they_name() {
    let mut gateway = Gateway::start().await;
    let (old, new) = (gateway.backend(Behaviour::Repeat).await, gateway.backend(Behaviour::Repeat).await);
    let mut both = route(1, &[("1", 10_000, &[old]), ("2", 0, &[new])]);
    both.aliases = [("candidate", "2"), ("retired", "7")].map(|(a, v)| (a.parse().unwrap(), v.parse().unwrap())).into();
    gateway.publish(table(1, both.clone())).await;
    for (path, version, asked) in [
        ("/v1/models/m:predict", "1", "/v1/models/m:predict"),
        ("/v1/models/m/versions/2:classify", "2", "/v1/models/m/versions/2:classify"),
        // Workers know no labels.
        ("/v1/models/m/labels/candidate:predict", "2", "/v1/models/m/versions/2:predict"),
        ("/V1/models/m/Labels/candidate:REGRESS?x=1", "2", "/v1/models/m/versions/2:regress?x=1"),
        ("/predictions/m", "1", "/predictions/m"),
        ("/predictions/m/2", "2", "/predictions/m/2"),
    ] {
        let answer = gateway.post(path, "", b"{}").await;
        assert_eq!((answer.status, answer.header("x-modelyard-version").as_str()), (200, version), "{path}");
        assert_eq!(answer.body, format!("POST {asked} HTTP/1.1"));
        assert_eq!(answer.header("x-request-id").len(), 32);
    }
    let metadata = gateway.get("/v1/models/m/labels/candidate/metadata").await;
    assert_eq!(metadata.body, "GET /v1/models/m/versions/2/metadata HTTP/1.1");
    let unserved = gateway.post("/v1/models/m/labels/retired:predict", "", b"{}").await;
    assert_eq!((unserved.status, unserved.body.contains("version 7 is not served here")), (404, true));
    let unknown = gateway.post("/v1/models/m/labels/nobody:predict", "", b"{}").await;
    assert_eq!(unknown.status, 400);
    assert!(unknown.body.starts_with("{\"error\":\"Unrecognized servable version label: nobody"), "{unknown:?}");

    both.aliases.insert("candidate".parse().unwrap(), "1".parse().unwrap());
    gateway.publish(table(2, both)).await;
    let moved = gateway.post("/v1/models/m/labels/candidate:predict", "", b"{}").await;
    assert_eq!(moved.header("x-modelyard-version"), "1");
    assert_eq!(gateway.evidence(2, |e| e.requests == 6).await.errors, 0);
}

#[tokio::test]
async fn what_a_version_on_trial_fails_is_rescued_in_every_protocol() {
    let mut gateway = Gateway::start().await;
    let (old, bad) = (gateway.backend(Behaviour::Ok("1")).await, gateway.backend(Behaviour::Status(500)).await);
    gateway.publish(table(1, route(1, &[("1", 0, &[old]), ("2", 10_000, &[bad])]))).await;
    for path in ["/v1/models/m:predict", "/v1/models/m:regress", "/predictions/m"] {
        let answer = gateway.post(path, "", b"{}").await;
        assert_eq!((answer.status, answer.header("x-modelyard-variant").as_str()), (200, "stable"), "{path}");
    }
    let trial = gateway.evidence(2, |e| e.requests == 3 && e.errors == 3).await;
    assert_eq!(trial.rescued, 3);
}

#[tokio::test]
async fn versions_are_told_of_from_the_routes() {
    let mut gateway = Gateway::start().await;
    assert_eq!(gateway.get("/ping").await.status, 500, "there is no table yet");
    assert_eq!(gateway.get("/v1/models/m").await.status, 503);
    let backend = gateway.backend(Behaviour::Status(500)).await;
    let mut both = route(1, &[("1", 10_000, &[backend]), ("2", 0, &[])]);
    both.aliases = [("next".parse().unwrap(), "2".parse().unwrap())].into();
    gateway.publish(table(1, both)).await;
    let version = |version: &str, state: &str| json!({"version": version, "state": state, "status": {"error_code": "OK", "error_message": ""}});
    let (first, second) = (version("1", "AVAILABLE"), version("2", "START"));
    let status = |versions: &[&serde_json::Value], ready: bool| json!({"model_version_status": versions, "name": "m", "ready": ready});
    assert_eq!(parsed(&gateway.get("/v1/models/m").await.body), status(&[&first, &second], true));
    assert_eq!(parsed(&gateway.get("/v1/models/m/versions/1").await.body), status(&[&first], true));
    assert_eq!(parsed(&gateway.get("/v1/models/m/labels/next").await.body), status(&[&second], false));
    assert_eq!(gateway.get("/v1/models/m/versions/3").await.status, 404);
    assert_eq!(gateway.get("/v1/models/nobody").await.status, 404);
    assert_eq!(parsed(&gateway.get("/v1/models").await.body), json!({"models": ["m"]}));
    assert_eq!(parsed(&gateway.get("/ping").await.body), json!({"status": "Healthy"}));
    assert_eq!(parsed(&gateway.get("/").await.body), json!({"status": "alive"}));
    let malformed = gateway.get("/v1/models/m/versions").await;
    assert_eq!(
        (malformed.status, malformed.body.contains("Malformed request: GET /v1/models/m/versions")),
        (400, true)
    );
    assert_eq!(gateway.get("/v1/models/m:predict").await.status, 405);
}

#[tokio::test]
async fn errors_of_the_gateway_are_of_the_protocols_form() {
    let mut gateway = Gateway::start().await;
    let gone = crate::support::nobody().await;
    let refuses = gateway.backend(Behaviour::Status(400)).await;
    gateway.publish(table(1, route(1, &[("1", 10_000, &[gone]), ("2", 0, &[refuses])]))).await;
    let unknown = gateway.post("/predictions/nobody", "", b"1").await;
    let expected = json!({"code": 404, "type": "ModelNotFoundException", "message": "there is no deployment nobody"});
    assert_eq!((unknown.status, parsed(&unknown.body)), (404, expected));
    let unreachable = gateway.post("/predictions/m", "", b"1").await;
    let expected =
        json!({"code": 502, "type": "ServiceUnavailableException", "message": "the worker cannot be reached"});
    assert_eq!((unreachable.status, parsed(&unreachable.body)), (502, expected));
    assert_eq!(unreachable.header("x-modelyard-version"), "1");
    assert_eq!(parsed(&gateway.get("/predictions/m").await.body)["code"], 405);
    let tensorflow = gateway.post("/v1/models/nobody:predict", "", b"{}").await;
    assert_eq!((tensorflow.status, parsed(&tensorflow.body)), (404, json!({"error": "there is no deployment nobody"})));
    // A worker's own are passed on.
    assert_eq!(gateway.post("/predictions/m/2", "", b"1").await.body, "{\"error\":\"scripted\"}");
}

#[tokio::test]
async fn answers_without_names_are_compared_by_what_the_worker_says_of_them() {
    const Y: &str = r#"[{"name":"y","datatype":"FP32","shape":[1,2]}]"#;
    let mut gateway = Gateway::start().await;
    for (window, path, old, new) in [
        (1, "/v1/models/m:predict", r#"{"predictions":[[0.9,0.1]]}"#, r#"{"predictions":[[0.2,0.8]]}"#),
        (2, "/predictions/m", "[0.9,0.1]", "[0.2,NaN]"),
    ] {
        let old = gateway.backend(Behaviour::Described(Y, old)).await;
        let new = gateway.backend(Behaviour::Described(Y, new)).await;
        let mut shadow = route(window, &[("1", 10_000, &[old]), ("2", 0, &[new])]);
        shadow.mirror = Some(Mirror::new(VariantName::canary(), Weight::FULL));
        gateway.publish(table(window, shadow)).await;
        assert_eq!(gateway.post(path, "", b"{}").await.header("x-modelyard-variant"), "stable");
        gateway
            .reported(|r| {
                r.variants.iter().any(|v| v.window.revision.0 == window && v.evidence.disagreement.compared == 1)
            })
            .await;
        let report = gateway.last_report();
        let seen =
            report.variants.iter().find(|v| v.window.revision.0 == window && v.evidence.disagreement.compared == 1);
        let y = &seen.unwrap().evidence.disagreement.outputs["y"];
        assert_eq!((y.labels, y.flips, y.mismatched), (1, 1, 0), "{path}");
    }
}
