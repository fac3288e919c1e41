//! Batching, as clients and metrics see it.

use std::thread;

use serde_json::{Value, json};

use crate::overload::{WIDTH, request, send, slow_model};
use crate::process::{Worker, wait};

fn body(rows: &[[i64; 2]]) -> String {
    json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [rows.len(), 2], "data": rows}]}).to_string()
}

/// The value of a metric without labels.
fn metric(worker: &Worker, name: &str) -> f64 {
    let text = worker.get("/metrics").body;
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("modelyard_worker_{name} ")));
    line.unwrap_or_else(|| panic!("{name} is not in\n{text}")).parse().unwrap()
}

/// What linear-1 makes of it: exact, since these numbers are small.
fn expected(rows: &[[i64; 2]]) -> Value {
    #[expect(clippy::cast_precision_loss, reason = "they are small")]
    let y = |[a, b]: &[i64; 2]| *a as f64 - 0.5 * *b as f64 + 2.0;
    let data: Vec<f64> = rows.iter().map(y).collect();
    json!([{"name": "y", "datatype": "FP32", "shape": [rows.len(), 1], "data": data}])
}

#[test]
fn everyone_gets_their_own_rows_whatever_batches_form() {
    const CLIENTS: usize = 16;
    const REQUESTS: usize = 40;
    for (artifact, threads) in [("linear-1.onnx", "2"), ("linear-dense.json", "1")] {
        let worker =
            Worker::start(artifact, &["--threads", threads, "--max-batch-size", "8", "--max-batch-delay", "20ms"]);
        let seed = fastrand::u64(..);
        thread::scope(|scope| {
            for client in 0..CLIENTS as u64 {
                let worker = &worker;
                scope.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(seed ^ client);
                    for _ in 0..REQUESTS {
                        // Some more than a batch may have.
                        let count = if random.u8(..10) == 0 { 9 } else { random.usize(1..=5) };
                        let rows: Vec<_> = (0..count).map(|_| [random.i64(-999..999), random.i64(-999..999)]).collect();
                        let answer = worker.infer(&body(&rows));
                        assert_eq!(answer.status, 200, "{answer:?}");
                        assert_eq!(answer.json()["outputs"], expected(&rows), "{rows:?} of seed {seed}");
                    }
                });
            }
        });
        let (requests, batches) = ((CLIENTS * REQUESTS) as f64, metric(&worker, "batch_rows_count"));
        assert!(batches < requests / 1.2, "{batches} batches of {requests} requests");
        assert!(metric(&worker, "queue_seconds_count") >= requests);
    }
}

#[test]
fn a_lone_client_is_answered_without_waiting() {
    // Longer than any answer is waited for.
    let worker = Worker::start("linear-1.onnx", &["--max-batch-size", "32", "--max-batch-delay", "60s"]);
    for n in 0..20 {
        assert_eq!(worker.infer(&body(&[[n, 4]])).json()["outputs"], expected(&[[n, 4]]));
    }
    assert_eq!(metric(&worker, "batch_rows_count"), 20.0);
    let metadata = worker.get("/v2/models/linear").json();
    let said = |name: &str| metadata["parameters"][name].clone();
    assert_eq!((said("max_batch_size"), said("max_batch_delay_ms")), (json!(32), json!(60_000)));
}

#[test]
fn a_request_that_is_refused_or_fails_does_so_alone() {
    // Which fails on all but zeros.
    let worker =
        Worker::start("linear-3.onnx", &["--threads", "1", "--max-batch-size", "64", "--max-batch-delay", "50ms"]);
    let (good, bad) = (body(&[[0, 0]]), body(&[[3, 4]]));
    let misfit = good.replace("\"x\"", "\"z\"");
    // Until they met.
    wait("one to fail in a batch", || {
        let sent: Vec<_> = [&good, &bad, &misfit, &good, &good].map(|body| send(&worker, body)).into();
        let statuses: Vec<_> = sent.into_iter().map(|sending| sending.answer().unwrap().status).collect();
        assert_eq!(statuses, [200, 500, 400, 200, 200]);
        // More calls of the engine than batches: some were done again, one by one.
        (metric(&worker, "inference_seconds_count") > metric(&worker, "batch_rows_count")).then_some(())
    });
}

#[test]
fn clients_that_left_are_not_computed() {
    let dir = tempfile::tempdir().unwrap();
    let worker = slow_worker(&dir);
    let busy = send(&worker, &request(4000));
    wait("it to be computed", || (metric(&worker, "batch_rows_count") > 0.0).then_some(()));
    let left = [1, 1, 1].map(|rows| send(&worker, &request(rows)));
    wait("the others to wait for it", || (metric(&worker, "queue_depth") == 3.0).then_some(()));
    drop(left);
    assert_eq!(busy.answer().unwrap().status, 200);
    wait("the queue to be empty", || (metric(&worker, "queue_depth") == 0.0).then_some(()));
    assert_eq!(worker.infer(&request(1)).status, 200);
    assert_eq!(metric(&worker, "inference_seconds_count"), 2.0);
}

#[test]
fn batches_form_behind_a_busy_thread() {
    let dir = tempfile::tempdir().unwrap();
    let worker = slow_worker(&dir);
    let busy = send(&worker, &request(4000));
    wait("it to be computed", || (metric(&worker, "batch_rows_count") > 0.0).then_some(()));
    let behind = [1, 2, 3].map(|rows| send(&worker, &request(rows)));
    wait("the others to wait for it", || (metric(&worker, "queue_depth") == 3.0).then_some(()));
    assert_eq!(busy.answer().unwrap().status, 200);
    for (rows, sending) in (1..).zip(behind) {
        assert_eq!(sending.answer().unwrap().json()["outputs"][0]["shape"], json!([rows, WIDTH]));
    }
    assert_eq!((metric(&worker, "batch_rows_count"), metric(&worker, "batch_rows_sum")), (2.0, 4006.0));
}

fn slow_worker(dir: &tempfile::TempDir) -> Worker {
    let artifact = dir.path().join("slow.json");
    std::fs::write(&artifact, slow_model()).unwrap();
    Worker::start_at(&artifact, &["--threads", "1", "--max-batch-size", "4000", "--max-batch-delay", "1ms"])
}
