//! More requests than can be computed: refused at once, and not computed for nobody.

use std::fmt::Write as _;

use crate::client::Sending;
use crate::process::{Worker, wait};

pub(crate) const WIDTH: usize = 512;

/// A dense layer that takes its time.
pub(crate) fn slow_model() -> String {
    let row = format!("[{}]", vec!["1"; WIDTH].join(","));
    format!(r#"{{"layers":[{{"weights":[{}]}}]}}"#, vec![row; WIDTH].join(","))
}

pub(crate) fn request(rows: usize) -> String {
    let zeros = vec!["0"; rows * WIDTH].join(",");
    let mut body = String::new();
    write!(body, r#"{{"inputs":[{{"name":"x","datatype":"FP32","shape":[{rows},{WIDTH}],"data":[{zeros}]}}]}}"#)
        .unwrap();
    body
}

pub(crate) fn send(worker: &Worker, body: &str) -> Sending {
    let mut sending = Sending::head(worker.address, "POST", "/v2/models/linear/infer", body.len()).unwrap();
    sending.body(body).unwrap();
    sending
}

fn has(worker: &Worker, metric: &str) -> bool {
    worker.get("/metrics").body.lines().any(|line| line == format!("modelyard_worker_{metric}"))
}

#[test]
fn a_full_queue_answers_429_and_clients_that_left_cost_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let artifact = dir.path().join("slow.json");
    std::fs::write(&artifact, slow_model()).unwrap();
    let worker = Worker::start_at(&artifact, &["--threads", "1", "--queue", "1"]);

    let computed = send(&worker, &request(4000));
    wait("it to be computed", || has(&worker, "busy_threads 1").then_some(()));
    let waiting = send(&worker, &request(1));
    wait("the other to wait for it", || has(&worker, "queue_depth 1").then_some(()));
    let refused = worker.infer(&request(1));
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("1")), "{refused:?}");

    drop((computed, waiting));
    wait("the queue to be empty", || has(&worker, "queue_depth 0").then_some(()));
    assert_eq!(worker.infer(&request(1)).status, 200);
    // The first and the last.
    assert!(has(&worker, "inference_seconds_count 2"), "{}", worker.get("/metrics").body);
}
