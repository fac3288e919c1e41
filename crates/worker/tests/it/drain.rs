//! Stopping: nothing that was begun is lost, and nothing waits for ever.

use std::time::{Duration, Instant};

use crate::client::Sending;
use crate::process::{Worker, wait};

const REQUEST: &str = r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[[3,4]]}]}"#;

/// A request of which half is sent.
fn half_sent(worker: &Worker) -> Sending {
    let path = "/v2/models/linear/infer";
    let mut sending = Sending::head(worker.address, "POST", path, REQUEST.len()).unwrap();
    sending.body(&REQUEST[..20]).unwrap();
    sending
}

#[test]
fn a_worker_that_drains_is_not_ready_but_answers() {
    let worker = Worker::start("linear-1.onnx", &["--drain-timeout", "20s"]);
    assert_eq!(worker.infer(REQUEST).header("connection"), None);
    let mut in_flight = half_sent(&worker);
    // Answered after the half of the request above has surely arrived.
    assert_eq!(worker.infer(REQUEST).status, 200);
    worker.terminate();
    wait("the drain", || (worker.get("/v2/health/ready").status == 503).then_some(()));
    assert_eq!(worker.get("/v2/models/linear/ready").status, 503);
    assert_eq!(worker.get("/v2/health/live").status, 200);

    let late = worker.infer(REQUEST);
    assert_eq!((late.status, late.header("connection")), (200, Some("close")));

    in_flight.body(&REQUEST[20..]).unwrap();
    let answer = in_flight.answer().unwrap();
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")), "{answer:?}");
    assert_eq!(answer.json()["outputs"][0]["data"][0], 3.0);
    let (status, log) = worker.ended();
    assert_eq!(status.code(), Some(0), "{log}");
}

#[test]
fn a_request_that_never_ends_does_not_hold_a_worker_for_ever() {
    let worker = Worker::start("linear-1.onnx", &["--drain-timeout", "500ms"]);
    let _in_flight = half_sent(&worker);
    assert_eq!(worker.infer(REQUEST).status, 200);
    let begun = Instant::now();
    worker.terminate();
    let (status, log) = worker.ended();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("the time to drain is over"), "{log}");
    assert!(begun.elapsed() >= Duration::from_millis(500), "{:?}", begun.elapsed());
}

#[test]
fn an_idle_worker_stops_soon() {
    let worker = Worker::start("linear-1.onnx", &["--drain-timeout", "1h"]);
    worker.terminate();
    assert_eq!(worker.ended().0.code(), Some(0));
}
