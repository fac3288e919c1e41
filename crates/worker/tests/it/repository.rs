//! Many models in one worker: loaded, swapped and unloaded while others are served, within the memory that they may have.

use std::fs;
use std::path::Path;
use std::thread;

use serde_json::{Value, json};

use crate::client::{Answer, call};
use crate::overload::{WIDTH, request, slow_model};
use crate::process::{Worker, example, wait};

const REQUEST: &str = r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[[3,4]]}]}"#;

/// Puts an example into a repository.
fn put(repository: &Path, name: &str, version: &str, artifact: &str) {
    let file = if artifact.ends_with("json") { "model.json" } else { "model.onnx" };
    let dir = repository.join(name).join(version);
    fs::create_dir_all(&dir).unwrap();
    fs::copy(example(artifact), dir.join(file)).unwrap();
}

/// One layer that adds `bias`, which takes some memory.
fn put_dense(repository: &Path, name: &str, bias: usize) {
    let dir = repository.join(name).join("1");
    fs::create_dir_all(&dir).unwrap();
    let model = json!({"layers": [{"weights": [[1.0, 1.0]], "bias": [bias]}]});
    fs::write(dir.join("model.json"), model.to_string()).unwrap();
}

fn post(worker: &Worker, path: &str, body: &str) -> Answer {
    call(worker.address, "POST", path, body).unwrap()
}

fn manage(worker: &Worker, name: &str, action: &str) -> Answer {
    post(worker, &format!("/v2/repository/models/{name}/{action}"), "")
}

fn infer(worker: &Worker, name: &str) -> Answer {
    post(worker, &format!("/v2/models/{name}/infer"), REQUEST)
}

/// The first output and the version that gave it.
fn told(answer: &Answer) -> (f64, String) {
    assert_eq!(answer.status, 200, "{answer:?}");
    let json = answer.json();
    let first = json["outputs"][0]["data"][0].as_f64().unwrap();
    (first, json["model_version"].as_str().unwrap().to_owned())
}

/// The states by name and version.
fn index(worker: &Worker) -> Vec<(String, String, String)> {
    let text = |item: &Value, key: &str| item[key].as_str().unwrap().to_owned();
    let items = post(worker, "/v2/repository/index", "").json();
    let items = items.as_array().unwrap().iter();
    items.map(|item| (text(item, "name"), text(item, "version"), text(item, "state"))).collect()
}

fn state(worker: &Worker, name: &str) -> String {
    index(worker).into_iter().find(|(found, ..)| found == name).unwrap().2
}

#[test]
fn models_of_a_repository_are_served_and_listed_and_one_that_is_none_says_why() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), "onnx", "1", "linear-1.onnx");
    put(dir.path(), "dense", "7", "linear-dense.json");
    fs::create_dir_all(dir.path().join("broken/1")).unwrap();
    fs::write(dir.path().join("broken/1/model.onnx"), "<html>").unwrap();
    let worker = Worker::of_repository(dir.path(), &[]);
    assert_eq!(told(&infer(&worker, "onnx")), (3.0, "1".into()));
    assert_eq!(told(&infer(&worker, "dense")), (3.0, "7".into()));
    let pinned = post(&worker, "/v2/models/dense/versions/7/infer", REQUEST);
    assert_eq!(told(&pinned).1, "7");
    assert_eq!(worker.get("/v2/models/onnx").json()["platform"], "onnx_rten");
    assert_eq!(worker.get("/v2/models/onnx/ready").status, 200);

    let items = post(&worker, "/v2/repository/index", "").json();
    assert_eq!(items[0]["name"], "broken");
    let why = items[0]["reason"].as_str().unwrap();
    assert!(why.contains("it is an HTML page"), "{why}");
    let ready = post(&worker, "/v2/repository/index", r#"{"ready":true}"#).json();
    assert_eq!(ready.as_array().unwrap().len(), 2);
    assert_eq!(worker.get("/v2/models/broken/ready").status, 503);
    let answer = infer(&worker, "broken");
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("10")));
    assert_eq!(infer(&worker, "other").status, 404);
    assert_eq!(post(&worker, "/v2/models/onnx/versions/2/infer", REQUEST).status, 404);
    for name in ["other", "..", "%2e%2e"] {
        assert_eq!(manage(&worker, name, "load").status, 404, "{name}");
    }
    let with_file = r#"{"parameters":{"file:1/model.onnx":"aGk="}}"#;
    assert_eq!(post(&worker, "/v2/repository/models/onnx/load", with_file).status, 501);

    let count = |name: &str, status: u16| {
        worker.metric(&format!(r#"model_requests_total{{model="{name}",version="1",status="{status}"}}"#))
    };
    assert_eq!((count("onnx", 200), count("broken", 503)), (Some(1.0), Some(1.0)));
    assert_eq!(worker.metric(r#"model_inference_seconds_count{model="onnx",version="1"}"#), Some(1.0));
}

#[test]
fn a_worker_of_one_model_loads_no_others() {
    let worker = Worker::start("linear-1.onnx", &[]);
    let answer = manage(&worker, "linear", "unload");
    assert_eq!(answer.status, 501);
    assert!(answer.json()["error"].as_str().unwrap().contains("--repository"), "{answer:?}");
    assert_eq!(told(&worker.infer(REQUEST)).0, 3.0);
}

#[test]
fn a_new_version_takes_over_without_a_request_lost() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), "linear", "1", "linear-1.onnx");
    let worker = Worker::of_repository(dir.path(), &[]);
    let is_over = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut versions = Vec::new();
                    while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                        versions.push(told(&infer(&worker, "linear")).1);
                    }
                    versions
                })
            })
            .collect();
        for version in ["2", "10"] {
            put(dir.path(), "linear", version, "linear-2.onnx");
            assert_eq!(manage(&worker, "linear", "load").status, 200);
            assert_eq!(told(&infer(&worker, "linear")).1, version);
        }
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
        for client in clients {
            let versions = client.join().unwrap();
            let mut sorted = versions.clone();
            sorted.sort_by_key(|version| version.parse::<u32>().unwrap());
            assert_eq!(versions, sorted);
        }
    });
    let states: Vec<_> = index(&worker).into_iter().map(|(_, version, state)| (version, state)).collect();
    let expected = [("1", "UNAVAILABLE"), ("2", "UNAVAILABLE"), ("10", "READY")];
    assert_eq!(states, expected.map(|(version, state)| (version.to_owned(), state.to_owned())));
    // Whoever names an older one still gets it.
    let pinned = post(&worker, "/v2/models/linear/versions/1/infer", REQUEST);
    assert_eq!(told(&pinned), (3.0, "1".into()));

    // One that is none changes nothing.
    fs::create_dir_all(dir.path().join("linear/11")).unwrap();
    fs::write(dir.path().join("linear/11/model.json"), "{}").unwrap();
    let answer = manage(&worker, "linear", "load");
    assert_eq!(answer.status, 400, "{answer:?}");
    assert_eq!(told(&infer(&worker, "linear")).1, "10");
}

#[test]
fn a_model_that_is_unloaded_finishes_what_it_was_asked_and_comes_back_when_it_is_loaded() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("slow/1")).unwrap();
    fs::write(dir.path().join("slow/1/model.json"), slow_model()).unwrap();
    put(dir.path(), "linear", "1", "linear-1.onnx");
    let worker = Worker::of_repository(dir.path(), &["--threads", "1"]);
    let asked = thread::scope(|scope| {
        let asked = scope.spawn(|| post(&worker, "/v2/models/slow/infer", &request(2000)));
        wait("it to be computed", || (worker.metric("busy_threads") == Some(1.0)).then_some(()));
        assert_eq!(manage(&worker, "slow", "unload").status, 200);
        asked.join().unwrap()
    });
    assert_eq!(asked.json()["outputs"][0]["shape"], json!([2000, WIDTH]));
    let answer = post(&worker, "/v2/models/slow/infer", &request(1));
    assert_eq!(answer.status, 404);
    assert!(answer.json()["error"].as_str().unwrap().contains("/v2/repository/models/slow/load"), "{answer:?}");
    assert_eq!(state(&worker, "slow"), "UNAVAILABLE");
    assert_eq!(told(&infer(&worker, "linear")).0, 3.0);
    assert_eq!(manage(&worker, "slow", "load").status, 200);
    assert_eq!(post(&worker, "/v2/models/slow/infer", &request(1)).status, 200);
}

#[test]
fn what_was_unused_for_longest_makes_room_and_is_loaded_again_when_it_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    for (name, bias) in [("a", 10), ("b", 20), ("c", 30)] {
        put_dense(dir.path(), name, bias);
    }
    // Of which two fit: each is taken to need a little more than 1 MiB.
    let worker = Worker::of_repository(dir.path(), &["--memory-budget", "3Mi"]);
    assert_eq!(["a", "b", "c"].map(|name| state(&worker, name)), ["READY", "READY", "UNAVAILABLE"]);
    assert_eq!(told(&infer(&worker, "a")).0, 17.0);
    // `b` makes room for it, since `a` was used.
    assert_eq!(told(&infer(&worker, "c")).0, 37.0);
    assert_eq!(["a", "b", "c"].map(|name| state(&worker, name)), ["READY", "UNAVAILABLE", "READY"]);
    assert_eq!(worker.metric(r#"model_evictions_total{model="b",version="1"}"#), Some(1.0));
    assert_eq!(worker.metric("models_loaded"), Some(2.0));
    // Many that ask for one at once have it loaded once.
    thread::scope(|scope| {
        let asked: Vec<_> = (0..16).map(|_| scope.spawn(|| told(&infer(&worker, "b")).0)).collect();
        asked.into_iter().for_each(|asked| assert_eq!(asked.join().unwrap(), 27.0));
    });
    assert_eq!(worker.metric(r#"model_loads_total{model="b",version="1"}"#), Some(2.0));
    let used = worker.metric("model_memory_bytes").unwrap();
    assert!(used <= f64::from(3 << 20), "{used}");
}

#[test]
fn a_model_beyond_the_budget_is_refused_with_the_figures() {
    let dir = tempfile::tempdir().unwrap();
    put_dense(dir.path(), "small", 1);
    fs::create_dir_all(dir.path().join("large/1")).unwrap();
    fs::write(dir.path().join("large/1/model.json"), slow_model()).unwrap();
    let worker = Worker::of_repository(dir.path(), &["--memory-budget", "1100Ki"]);
    let answer = post(&worker, "/v2/models/large/infer", &request(1));
    assert_eq!(answer.status, 503);
    assert!(answer.json()["error"].as_str().unwrap().contains("--memory-budget is 1.0 MiB"), "{answer:?}");
    assert_eq!(told(&infer(&worker, "small")).0, 8.0);
}

#[test]
fn two_hundred_models_share_one_worker() {
    const COUNT: usize = 200;
    let dir = tempfile::tempdir().unwrap();
    for n in 0..COUNT {
        match n % 2 {
            0 => put(dir.path(), &format!("m{n}"), "1", "linear-1.onnx"),
            _ => put_dense(dir.path(), &format!("m{n}"), n),
        }
    }
    let worker = Worker::of_repository(dir.path(), &["--threads", "2"]);
    assert_eq!(worker.metric("models_loaded"), Some(200.0));
    thread::scope(|scope| {
        for client in 0..4 {
            let worker = &worker;
            scope.spawn(move || {
                for n in (0..COUNT).map(|n| (n + client * 50) % COUNT) {
                    #[expect(clippy::cast_precision_loss, reason = "they are small")]
                    let expected = if n % 2 == 0 { 3.0 } else { 7.0 + n as f64 };
                    assert_eq!(told(&infer(worker, &format!("m{n}"))).0, expected);
                }
            });
        }
    });
    println!("{} KiB for 200 models", worker.memory() >> 10);
}
