//! Inspection: one line of JSON and an exit code.

use std::fs::File;
use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};

use crate::process::{binary, digest, example};

fn run(artifact: &Path, format: &str, sha256: &str, args: &[&str]) -> Output {
    binary()
        .args(["inspect", "--format", format, "--sha256", sha256])
        .args(args)
        .arg("--artifact")
        .arg(artifact)
        .output()
        .unwrap()
}

fn inspect(artifact: &Path, format: &str, sha256: &str) -> (Option<i32>, Value) {
    let output = run(artifact, format, sha256, &["--max-memory", "1073741824"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    (output.status.code(), serde_json::from_str(&text).unwrap())
}

#[test]
fn a_model_is_described() {
    let rten = json!({"engine_reason": "ONNX Runtime is not at hand", "intra_threads": "1"});
    let dense = json!({"engine_reason": "it is the engine for the format dense"});
    for (name, format, engine, details) in
        [("linear-1.onnx", "onnx", "rten", rten), ("linear-dense.json", "dense", "dense", dense)]
    {
        let path = example(name);
        let expected = json!({"ok": {
            "signature": {
                "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
                "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 1]}],
            },
            "engine": engine,
            "details": details,
        }});
        assert_eq!(inspect(&path, format, &digest(&path)), (Some(0), expected), "{name}");
    }
}

#[test]
fn each_refusal_has_its_code_and_message() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model");
    let whole = std::fs::read(example("linear-1.onnx")).unwrap();
    let cases: [(&[u8], &str, &str, &str); 7] = [
        (b"\x80\x04\x95.", "onnx", "pickle", "loading one runs whatever code it holds"),
        (&whole[..100], "onnx", "truncated", "it is cut off"),
        (b"\x00\x01\x02", "onnx", "not-onnx", "it is no ONNX model"),
        (b"", "onnx", "empty", "0 bytes"),
        (b"<html>", "onnx", "html", "HTML page"),
        (br#"{"layers":[{"weights":[[1]],"bias":[1,2]}]}"#, "dense", "dense-invalid", "layer 0"),
        (&whole, "tensorflow", "not-graphdef", "it is no frozen TensorFlow graph"),
    ];
    for (bytes, format, code, message) in cases {
        std::fs::write(&path, bytes).unwrap();
        let (exit, report) = inspect(&path, format, &digest(&path));
        assert_eq!((exit, &report["refused"]["code"]), (Some(3), &json!(code)));
        assert!(report["refused"]["message"].as_str().unwrap().contains(message), "{report}");
    }
    let (exit, report) = inspect(&example("linear-1.onnx"), "onnx", &"0".repeat(64));
    assert_eq!((exit, &report["refused"]["code"]), (Some(3), &json!("digest-mismatch")));
    let (exit, report) = inspect(&dir.path().join("absent"), "onnx", &"0".repeat(64));
    assert_eq!((exit, &report["refused"]["code"]), (Some(3), &json!("io")));
}

#[test]
fn gigabytes_of_nothing_are_refused_in_little_memory() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("zeros");
    // Sparse: 2 GiB that take no disk.
    File::create(&path).unwrap().set_len(2 << 30).unwrap();
    let output = run(&path, "onnx", &"0".repeat(64), &["--max-memory", "268435456"]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(String::from_utf8(output.stdout).unwrap().contains("\"not-onnx\""));
}

#[test]
fn a_model_that_needs_more_memory_than_allowed_ends_the_process_by_a_signal() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wide.json");
    let row = vec!["1"; 200_000].join(",");
    std::fs::write(&path, format!(r#"{{"layers":[{{"weights":[{}]}}]}}"#, vec![format!("[{row}]"); 64].join(",")))
        .unwrap();
    let output = run(&path, "dense", &digest(&path), &["--max-memory", "67108864"]);
    assert_eq!(output.status.code(), None, "{output:?}");
    assert!(output.stdout.is_empty());
}
