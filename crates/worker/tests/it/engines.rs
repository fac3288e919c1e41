//! Which engine runs a model, when it was asked for and when not.

use std::path::Path;

use serde_json::{Value, json};

use crate::client::call;
use crate::process::{Worker, binary, digest, example, serve};

fn inspect(artifact: &Path, format: &str, args: &[&str]) -> (Option<i32>, Value) {
    let output = binary()
        .args(["inspect", "--format", format, "--sha256", &digest(artifact)])
        .args(args)
        .arg("--artifact")
        .arg(artifact)
        .output()
        .unwrap();
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap())
}

/// The library, where there is one.
fn onnxruntime() -> Option<String> {
    let library = std::env::var("MODELYARD_ONNXRUNTIME").ok();
    if library.is_none() {
        eprintln!("NOT TESTED: MODELYARD_ONNXRUNTIME is not set");
    }
    library
}

#[cfg(feature = "tensorflow")]
#[test]
fn a_frozen_tensorflow_graph_is_inspected_and_served() {
    let (exit, report) = inspect(&example("moons.pb"), "tensorflow", &["--max-memory", "1073741824"]);
    assert_eq!(exit, Some(0), "{report}");
    let signature = json!({
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
        "outputs": [{"name": "Identity", "datatype": "FP32", "shape": [-1, 2]}],
    });
    assert_eq!((&report["ok"]["signature"], &report["ok"]["engine"]), (&signature, &json!("tensorflow")));

    let worker = Worker::start("moons.pb", &["--warm-up", "3"]);
    assert_eq!(worker.get("/v2/models/linear").json()["platform"], "tensorflow_graphdef");
    let request = r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[2,2],"data":[0,1,1,-0.5]}]}"#;
    let answer = worker.infer(request).json();
    let p = &answer["outputs"][0]["data"];
    assert!(p[0].as_f64().unwrap() > 0.9 && p[3].as_f64().unwrap() > 0.9, "{answer}");
}

#[test]
fn an_engine_that_was_asked_for_says_so() {
    let args = ["--engine", "rten", "--intra-threads", "2"];
    let worker = Worker::start("linear-1.onnx", &args);
    let metadata = worker.get("/v2/models/linear").json();
    let expected = json!({"engine": "rten", "engine_reason": "it was asked for", "intra_threads": "2"});
    assert_eq!(metadata["parameters"], expected);
    let request = r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[3,4]}]}"#;
    assert_eq!(
        call(worker.address, "POST", "/v2/models/linear/infer", request).unwrap().json()["outputs"][0]["data"],
        json!([3.0])
    );
}

#[test]
fn an_engine_that_cannot_load_the_model_is_refused_with_the_reason() {
    let onnx = example("linear-1.onnx");
    for (format, args, code, words) in [
        ("onnx", &["--engine", "dense"][..], "other-format", "the engine dense loads dense, not onnx"),
        ("onnx", &["--engine", "onnxruntime"], "no-onnxruntime", "MODELYARD_ONNXRUNTIME"),
        ("onnx", &["--providers", "cuda"], "no-onnxruntime", "MODELYARD_ONNXRUNTIME"),
    ] {
        let (exit, report) = inspect(&onnx, format, args);
        assert_eq!((exit, &report["refused"]["code"]), (Some(3), &json!(code)), "{report}");
        assert!(report["refused"]["message"].as_str().unwrap().contains(words), "{report}");
    }
    // Where the pure engines would do, a list that ends with the CPU asks for no more.
    let (exit, report) = inspect(&onnx, "onnx", &["--providers", "cuda,cpu"]);
    assert_eq!((exit, &report["ok"]["engine"]), (Some(0), &json!("rten")), "{report}");

    let dir = tempfile::tempdir().unwrap();
    let ended = serve(dir.path(), &onnx).args(["--engine", "tensorflow"]).output().unwrap();
    assert_eq!(ended.status.code(), Some(5));
    let log = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(log.contains("the engine tensorflow loads tensorflow, not onnx"), "{log}");
}

#[test]
fn onnxruntime_computes_as_it_is_asked_to() {
    let Some(library) = onnxruntime() else { return };
    let base = ["--onnxruntime", &library, "--engine", "onnxruntime"];
    let all = ["--intra-threads", "2", "--inter-threads", "2", "--optimization", "none", "--providers", "cuda,cpu"];
    let (exit, report) = inspect(&example("linear-1.onnx"), "onnx", &[&base[..], &all[..]].concat());
    assert_eq!((exit, &report["ok"]["engine"]), (Some(0), &json!("onnxruntime")), "{report}");
    let details = &report["ok"]["details"];
    let said = |name: &str| details[name].as_str().unwrap_or_default().to_owned();
    assert_eq!(
        (said("intra_threads"), said("inter_threads"), said("graph_optimization")),
        ("2".into(), "2".into(), "none".into())
    );
    assert_eq!(said("engine_reason"), "it was asked for");
    if said("execution_provider") == "cuda" {
        eprintln!("NOT TESTED: there is a GPU, so its absence is not refused");
        return;
    }
    assert!(said("execution_provider_reason").starts_with("cuda: "), "{details}");
    let (exit, report) = inspect(&example("linear-1.onnx"), "onnx", &[&base[..], &["--providers", "cuda"]].concat());
    assert_eq!((exit, &report["refused"]["code"]), (Some(3), &json!("provider")), "{report}");
    let message = report["refused"]["message"].as_str().unwrap();
    assert!(message.contains("cuda") && message.contains("add `cpu`"), "{message}");
}

#[test]
fn a_rewritten_graph_is_kept_for_the_next_start_and_a_broken_one_is_replaced() {
    let Some(library) = onnxruntime() else { return };
    let dir = tempfile::tempdir().unwrap();
    let kept = || {
        let files = std::fs::read_dir(dir.path()).unwrap().flatten().map(|entry| entry.path());
        let named = |path: &std::path::PathBuf| path.file_name().unwrap().to_string_lossy().starts_with("optimized-");
        files.filter(named).collect::<Vec<_>>()
    };
    let request = r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[3,4]}]}"#;
    let mut written = Vec::new();
    for start in 0..3 {
        if start == 2 {
            std::fs::write(&kept()[0], b"broken").unwrap();
        }
        let mut command = serve(dir.path(), &example("linear-1.onnx"));
        command.args(["--onnxruntime", &library, "--threads", "2"]);
        let mut child = command.stderr(std::process::Stdio::null()).spawn().unwrap();
        let status = crate::process::wait("its address", || {
            let status: Value = serde_json::from_slice(&std::fs::read(dir.path().join("status.json")).ok()?).ok()?;
            (status["pid"] == child.id()).then(|| status["address"].as_str().unwrap().parse().unwrap())
        });
        let answer = crate::process::wait("an answer", || {
            let answer = call(status, "POST", "/v2/models/linear/infer", request).ok()?;
            (answer.status == 200).then(|| answer.json())
        });
        assert_eq!(answer["outputs"][0]["data"], json!([3.0]));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(kept().len(), 1, "start {start}: {:?}", kept());
        let bytes = std::fs::read(&kept()[0]).unwrap();
        if start == 0 {
            written = bytes;
        } else {
            assert!(bytes == written, "start {start}");
        }
    }
}
