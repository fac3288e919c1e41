//! Deadlines: what nobody waits for any more is not computed.

use crate::client::{Answer, Sending};
use crate::overload::{request, send, slow_model};
use crate::process::{Worker, wait};

fn ask(worker: &Worker, fields: &str, body: &str) -> Answer {
    let fields = format!("{fields}content-length: {}\r\n", body.len());
    let mut sending = Sending::with(worker.address, "POST", "/v2/models/linear/infer", &fields).unwrap();
    sending.body(body).unwrap();
    sending.answer().unwrap()
}

fn is_late(answer: &Answer) {
    assert_eq!((answer.status, answer.json()["error"].as_str()), (504, Some("Deadline exceeded")), "{answer:?}");
}

#[test]
fn a_request_without_time_is_not_computed_and_one_with_enough_is() {
    let worker = Worker::start("linear-1.onnx", &[]);
    let body = r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[[3,4]]}]}"#;
    for none in
        ["x-modelyard-timeout: 0ms\r\n", "grpc-timeout: 0S\r\n", "x-modelyard-timeout: 1h\r\ngrpc-timeout: 0m\r\n"]
    {
        is_late(&ask(&worker, none, body));
    }
    assert_eq!(worker.metric("inference_seconds_count"), Some(0.0));
    assert_eq!(ask(&worker, "x-modelyard-timeout: 1h\r\n", body).status, 200);
}

#[test]
fn a_timeout_that_is_not_understood_is_refused() {
    let worker = Worker::start("linear-1.onnx", &[]);
    let body = r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[[3,4]]}]}"#;
    let answer = ask(&worker, "x-modelyard-timeout: soon\r\n", body);
    let why = "x-modelyard-timeout must be a whole number and a unit: 500us, 250ms, 30s, 2m or 1h";
    assert_eq!((answer.status, answer.json()["error"].as_str()), (400, Some(why)));
    let answer = ask(&worker, "", &body.replacen('{', r#"{"parameters":{"timeout":true},"#, 1));
    let why = "the parameter `timeout` must be a whole number of microseconds";
    assert_eq!((answer.status, answer.json()["error"].as_str()), (400, Some(why)));
    for fields in ["x-modelyard-timeout: 1h\r\n", "grpc-timeout: 1H\r\n"] {
        let body = body.replacen('{', r#"{"parameters":{"timeout":3600000000},"#, 1);
        assert_eq!(ask(&worker, fields, &body).status, 200);
    }
}

#[test]
fn a_request_whose_deadline_passes_while_it_waits_is_told_so_and_not_computed() {
    let dir = tempfile::tempdir().unwrap();
    let artifact = dir.path().join("slow.json");
    std::fs::write(&artifact, slow_model()).unwrap();
    for batching in [&[][..], &["--max-batch-size", "4000", "--max-batch-delay", "1ms"]] {
        let worker = Worker::start_at(&artifact, &[&["--threads", "1"], batching].concat());
        let busy = send(&worker, &request(4000));
        wait("it to be computed", || (worker.metric("busy_threads") == Some(1.0)).then_some(()));
        // In their heads, and in their bodies, which are read when it is their turn.
        let in_bodies = send(&worker, &request(1).replacen('{', r#"{"parameters":{"timeout":1},"#, 1));
        is_late(&ask(&worker, "x-modelyard-timeout: 5ms\r\n", &request(1)));
        assert_eq!(busy.answer().unwrap().status, 200);
        is_late(&in_bodies.answer().unwrap());
        assert_eq!(worker.metric("inference_seconds_count"), Some(1.0));
        assert_eq!(worker.infer(&request(1)).status, 200);
    }
}
