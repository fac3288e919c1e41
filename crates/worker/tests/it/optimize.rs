//! Copies with narrower weights: what they gain, and that they are refused when they answer otherwise.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::process::{binary, digest, example};

fn run(artifact: &Path, out: &Path, args: &[&str]) -> (Option<i32>, Value) {
    let output = binary()
        .args(["optimize", "--format", "onnx", "--sha256", &digest(artifact)])
        .arg("--artifact")
        .arg(artifact)
        .arg("--out")
        .arg(out)
        .args(args)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), 1, "{text} {}", String::from_utf8_lossy(&output.stderr));
    (output.status.code(), serde_json::from_str(&text).unwrap())
}

fn field(out: &mut Vec<u8>, number: u64, bytes: &[u8]) {
    out.push(u8::try_from(number << 3 | 2).unwrap());
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
        length >>= 7;
    }
    out.push(u8::try_from(length).unwrap());
    out.extend(bytes);
}

/// y = x·w of opset 13, with `w` [64, 32] in waves, the first of its columns `scale` times as large.
fn model(dir: &Path, scale: f32) -> PathBuf {
    let wave = |at: u16| (f32::from(at) * 0.37).sin() * if at.is_multiple_of(32) { scale } else { 1.0 };
    let raw: Vec<u8> = (0..64 * 32).flat_map(|at| wave(at).to_le_bytes()).collect();
    let (mut node, mut weights, mut graph, mut opset) = (Vec::new(), vec![8, 64, 8, 32, 16, 1], Vec::new(), Vec::new());
    for (number, text) in [(1, "x"), (1, "w"), (2, "y"), (4, "MatMul")] {
        field(&mut node, number, text.as_bytes());
    }
    field(&mut weights, 8, b"w");
    field(&mut weights, 9, &raw);
    field(&mut graph, 1, &node);
    field(&mut graph, 2, b"waves");
    field(&mut graph, 5, &weights);
    for (number, name, width) in [(11, "x", 64), (12, "y", 32)] {
        let mut value = Vec::new();
        field(&mut value, 1, name.as_bytes());
        // TypeProto: FP32 [rows, width].
        field(&mut value, 2, &[10, 15, 8, 1, 18, 11, 10, 5, 18, 3, b'r', b'o', b'w', 10, 2, 8, width]);
        field(&mut graph, number, &value);
    }
    opset.extend([16, 13]);
    let mut whole = vec![8, 8];
    field(&mut whole, 7, &graph);
    field(&mut whole, 8, &opset);
    let path = dir.join("waves.onnx");
    std::fs::write(&path, whole).unwrap();
    path
}

#[test]
fn a_copy_is_smaller_and_says_what_it_costs() {
    let dir = tempfile::tempdir().unwrap();
    let (artifact, out) = (model(dir.path(), 1.0), dir.path().join("out.onnx"));
    for (precision, share, bound) in [("int8", 0.35, 0.02), ("fp16", 0.6, 0.005)] {
        let args = ["--quantize", precision, "--max-difference", &bound.to_string()];
        let (exit, report) = run(&artifact, &out, &args);
        assert_eq!(exit, Some(0), "{report}");
        let report = &report["ok"];
        assert_eq!((&report["tensors"], &report["samples"]), (&json!(1), &json!(64)));
        let size = |which: &str| report["size"][which].as_u64().unwrap();
        assert_eq!(size("after"), std::fs::metadata(&out).unwrap().len());
        assert_eq!(report["sha256"], digest(&out));
        #[expect(clippy::cast_precision_loss, reason = "a few kilobytes")]
        let kept = size("after") as f64 / size("before") as f64;
        assert!(kept < share, "{report}");
        // It is another model, but not by more than it says.
        let difference = report["difference"].as_f64().unwrap();
        assert!(difference > 0.0 && difference <= bound, "{report}");
    }
}

#[test]
fn channels_have_their_own_scale() {
    let dir = tempfile::tempdir().unwrap();
    // The first column is large, but not in the first row, which these ask for: with one scale for all columns, the rest
    // of that row would be zeros.
    let (artifact, out) = (model(dir.path(), 1000.0), dir.path().join("out.onnx"));
    let request = |first: f32| {
        let x: Vec<f32> = (0..64).map(|at| if at == 0 { first } else { 0.0 }).collect();
        json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 64], "data": x}]})
    };
    let samples = dir.path().join("samples.jsonl");
    std::fs::write(&samples, format!("{}\n\n{}\n", request(1.0), request(-1.0))).unwrap();
    let args = ["--quantize", "int8", "--samples", samples.to_str().unwrap()];
    let (exit, report) = run(&artifact, &out, &args);
    assert_eq!((exit, &report["ok"]["samples"]), (Some(0), &json!(2)), "{report}");
}

#[test]
fn a_copy_that_answers_otherwise_is_refused_and_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (artifact, out) = (model(dir.path(), 1.0), dir.path().join("out.onnx"));
    let (exit, report) = run(&artifact, &out, &["--quantize", "int8", "--max-difference", "0.000001"]);
    assert_eq!((exit, &report["refused"]["code"]), (Some(3), &json!("difference")), "{report}");
    assert!(report["refused"]["message"].as_str().unwrap().contains("output `y` differs by"), "{report}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "neither a copy nor a part of it");
}

#[test]
fn what_cannot_be_narrowed_is_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.onnx");
    let (exit, report) = run(&example("linear-1.onnx"), &out, &["--quantize", "fp16"]);
    assert_eq!((exit, &report["refused"]["code"]), (Some(3), &json!("quantize")), "{report}");
    let artifact = model(dir.path(), 1.0);
    let samples = dir.path().join("samples.jsonl");
    std::fs::write(&samples, "{\"inputs\": []}\nnonsense\n").unwrap();
    let (exit, report) = run(&artifact, &out, &["--quantize", "fp16", "--samples", samples.to_str().unwrap()]);
    assert_eq!((exit, &report["refused"]["code"]), (Some(3), &json!("samples")), "{report}");
    assert!(report["refused"]["message"].as_str().unwrap().contains("line 2"), "{report}");
}
