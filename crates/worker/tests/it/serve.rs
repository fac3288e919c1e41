//! Serving: what is answered, and what a worker that cannot serve says.

use std::process::Stdio;

use serde_json::json;

use crate::client::call;
use crate::process::{Worker, example, serve};

const REQUEST: &str = r#"{"id":"7","inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[[3,4]]}]}"#;

#[test]
fn the_protocol_is_served() {
    let worker = Worker::start("linear-1.onnx", &[]);
    assert_eq!(worker.get("/v2/health/live").json(), json!({"live": true}));
    assert_eq!(worker.get("/v2/health/ready").json(), json!({"ready": true}));
    assert_eq!(worker.get("/v2").json()["name"], "modelyard-worker");
    let metadata = json!({
        "name": "linear", "versions": ["2"], "platform": "onnx_rten",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 1]}],
        "parameters": {"engine": "rten", "engine_reason": "ONNX Runtime is not at hand", "intra_threads": "1"},
    });
    assert_eq!(worker.get("/v2/models/linear").json(), metadata);
    assert_eq!(worker.get("/v2/models/linear/versions/2").json(), metadata);
    assert_eq!(worker.get("/v2/models/linear/ready").json(), json!({"name": "linear", "ready": true}));

    let answer = worker.infer(REQUEST);
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")), "{answer:?}");
    let expected = json!({
        "model_name": "linear", "model_version": "2", "id": "7",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 1], "data": [3.0]}],
    });
    assert_eq!(answer.json(), expected);
    let pinned = call(worker.address, "POST", "/v2/models/linear/versions/2/infer", REQUEST).unwrap();
    assert_eq!(pinned.json(), expected);
}

#[test]
fn what_cannot_be_answered_has_its_status_and_its_reason() {
    let worker = Worker::start("linear-1.onnx", &["--max-body", "1000"]);
    let refused = |method: &str, path: &str, body: &str| {
        let answer = call(worker.address, method, path, body).unwrap();
        (answer.status, answer.json()["error"].as_str().unwrap().to_owned())
    };
    let infer = |body: &str| refused("POST", "/v2/models/linear/infer", body);
    let (status, message) = refused("POST", "/v2/models/other/infer", REQUEST);
    assert_eq!((status, message.as_str()), (404, "there is no model other here: this worker serves linear version 2"));
    assert_eq!(refused("GET", "/v2/models/linear/versions/3", "").0, 404);
    assert_eq!(refused("GET", "/v3/models/linear", "").0, 404);
    assert_eq!(refused("GET", "/v2/models/linear/infer", "").0, 405);
    assert_eq!(infer("{").0, 400);
    let (status, message) = infer(r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1,3],"data":[3,4,5]}]}"#);
    assert_eq!((status, message.as_str()), (400, "input `x` must have shape [-1, 2] (-1 is any), not [1, 3]"));
    let (status, message) = infer(&REQUEST.replace("\"id\"", "\"outputs\":[{\"name\":\"z\"}],\"id\""));
    assert_eq!((status, message.as_str()), (400, "there is no output `z`: the model gives y FP32 [-1, 1]"));
    let (status, message) = infer(&format!("{REQUEST}{}", " ".repeat(1000)));
    assert_eq!((status, message.as_str()), (413, "the body is larger than 1000 bytes"));
}

#[test]
fn no_request_ends_the_worker_or_is_taken_for_a_failure_of_the_model() {
    let worker = Worker::start("linear-1.onnx", &["--threads", "1"]);
    let depth = 1_000_000;
    let (shape, open, close) = (vec!["1"; depth].join(","), "[".repeat(depth), "]".repeat(depth));
    let deep = format!(r#"{{"inputs":[{{"name":"x","datatype":"FP32","shape":[{shape}],"data":{open}7{close}}}]}}"#);
    let twice = REQUEST.replace("\"id\"", r#""outputs":[{"name":"y"},{"name":"y"}],"id""#);
    for (body, message) in [
        (deep, "tensor `x`: its shape has 1000000 dimensions, and at most 64 are taken"),
        (twice, "output `y` is wanted twice"),
    ] {
        let answer = worker.infer(&body);
        assert_eq!((answer.status, answer.json()["error"].as_str()), (400, Some(message)));
        assert_eq!(worker.infer(REQUEST).status, 200);
    }
}

#[test]
fn a_model_that_fails_on_a_request_answers_500_and_goes_on() {
    let worker = Worker::start("linear-3.onnx", &[]);
    for _ in 0..3 {
        let answer = worker.infer(REQUEST);
        assert_eq!(answer.status, 500);
        assert!(answer.json()["error"].as_str().unwrap().starts_with("the model failed: "), "{answer:?}");
    }
    assert_eq!(worker.infer(&REQUEST.replace("[[3,4]]", "[[0,0]]")).status, 200);
    let metrics = worker.get("/metrics").body;
    for line in [
        "modelyard_worker_requests_total{status=\"200\"} 1",
        "modelyard_worker_requests_total{status=\"500\"} 3",
        "modelyard_worker_errors_total 3",
        "modelyard_worker_queue_depth 0",
        "modelyard_worker_inference_seconds_count 4",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
}

#[test]
fn the_repository_is_listed() {
    let worker = Worker::start("linear-1.onnx", &[]);
    let answer = call(worker.address, "POST", "/v2/repository/index", r#"{"ready":true}"#).unwrap();
    assert_eq!(answer.json(), json!([{"name": "linear", "version": "2", "state": "READY", "reason": ""}]));
    assert_eq!(call(worker.address, "GET", "/v2/repository/index", "").unwrap().status, 405);
}

#[test]
fn a_dense_network_is_served_too() {
    let worker = Worker::start("linear-dense.json", &["--threads", "1"]);
    assert_eq!(worker.get("/v2/models/linear").json()["platform"], "dense");
    assert_eq!(worker.infer(REQUEST).json()["outputs"][0]["data"], json!([3.0]));
}

#[test]
fn two_workers_never_share_a_directory() {
    let worker = Worker::start("linear-1.onnx", &[]);
    let twin = serve(worker.dir.path(), &example("linear-1.onnx")).output().unwrap();
    assert_eq!(twin.status.code(), Some(4), "{twin:?}");
    let log = String::from_utf8(twin.stderr).unwrap();
    assert!(log.contains("another worker (pid "), "{log}");
    // The first one's word stands, and it serves.
    assert_eq!(worker.infer(REQUEST).status, 200);
    worker.terminate();
    let dir = worker.dir.path().to_owned();
    assert!(dir.join("status.json").exists());
    assert_eq!(worker.ended().0.code(), Some(0));
}

#[test]
fn a_model_that_cannot_be_loaded_ends_the_worker_with_the_reason_last() {
    let dir = tempfile::tempdir().unwrap();
    let artifact = dir.path().join("model");
    std::fs::write(&artifact, b"\x80\x04\x95.").unwrap();
    let output = serve(dir.path(), &artifact).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(output.status.code(), Some(5), "{output:?}");
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(log.lines().last().unwrap().contains("the model was not loaded: it is a Python pickle"), "{log}");

    std::fs::write(&artifact, b"{}").unwrap();
    let mut changed = serve(dir.path(), &artifact);
    std::fs::write(&artifact, b"{ }").unwrap();
    let output = changed.output().unwrap();
    assert_eq!(output.status.code(), Some(5), "{output:?}");
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(log.lines().last().unwrap().contains("it is not what was registered"), "{log}");
}
