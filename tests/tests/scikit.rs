//! Models of scikit-learn, converted by skl2onnx with and without ZipMap: what onnx-ml and ONNX Runtime answer on 10,000
//! rows is what scikit-learn does.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::Command;

use modelyard_core::{Datatype, Format};
use modelyard_engine::{Engine, EngineOptions, load};
use modelyard_protocol::{Tensor, TensorData};
use serde::Deserialize;

/// A line of models.json, which `scikit.py` writes.
#[derive(Debug, Deserialize)]
struct Model {
    name: String,
    datatype: String,
    rows: usize,
    columns: usize,
    scores: usize,
    classifier: bool,
    tolerance: f64,
}

fn variable(name: &str) -> PathBuf {
    let hint = "run the tests with `cargo xtask test`, which fetches Python's packages";
    std::env::var_os(name).map(PathBuf::from).unwrap_or_else(|| panic!("{name} is not set: {hint}"))
}

fn numbers<const W: usize, T>(path: &Path, one: fn([u8; W]) -> T) -> Vec<T> {
    let bytes = std::fs::read(path).unwrap();
    bytes.as_chunks::<W>().0.iter().map(|n| one(*n)).collect()
}

impl Model {
    fn file(&self, directory: &Path, extension: &str) -> PathBuf {
        directory.join(format!("{}.{extension}", self.name))
    }

    fn input(&self, directory: &Path) -> Tensor {
        let path = self.file(directory, "input");
        let data = match self.datatype.as_str() {
            "FP32" => TensorData::Fp32(numbers(&path, f32::from_le_bytes)),
            "FP64" => TensorData::Fp64(numbers(&path, f64::from_le_bytes)),
            "INT64" => TensorData::Int64(numbers(&path, i64::from_le_bytes)),
            other => panic!("{other}"),
        };
        Tensor::new("X", vec![self.rows, self.columns], data).unwrap()
    }
}

/// What an engine answers to all rows at once.
struct Answer {
    /// Empty of a regressor.
    labels: Vec<String>,
    scores: Vec<f64>,
}

fn ask(model: &Model, engine: &dyn Engine, input: Tensor) -> Answer {
    let outputs = engine.infer(vec![input], &[]).unwrap_or_else(|e| panic!("{}: {e}", model.name));
    let (mut labels, mut scores) = (Vec::new(), None);
    for (output, spec) in outputs.into_iter().zip(&engine.signature().outputs) {
        assert_eq!((&output.name, output.datatype()), (&spec.name, spec.datatype), "{}", model.name);
        match output.data {
            TensorData::Int64(v) => labels = v.iter().map(ToString::to_string).collect(),
            TensorData::Bytes(v) => labels = v.into_iter().map(|label| String::from_utf8(label).unwrap()).collect(),
            TensorData::Fp32(v) => {
                assert_eq!(output.shape, [model.rows, model.scores], "{}", model.name);
                scores = Some(v.into_iter().map(f64::from).collect());
            }
            other => panic!("{}: {}", model.name, other.datatype()),
        }
    }
    assert_eq!(labels.len(), if model.classifier { model.rows } else { 0 }, "{}", model.name);
    Answer { labels, scores: scores.unwrap() }
}

/// The largest difference, in units of the largest of `expected`, or of 1.
fn difference(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let scale = expected.iter().fold(1.0, |largest: f64, x| largest.max(x.abs()));
    let all = found.iter().zip(expected).map(|(a, b)| (a - b).abs() / scale);
    all.fold(0.0, |largest, one| if one > largest || one.is_nan() { one } else { largest })
}

/// Labels may differ where two classes are as likely, no farther apart than the tolerance.
fn labels_agree(model: &Model, found: &Answer, expected: &Answer) {
    for (row, scores) in expected.scores.chunks(model.scores).enumerate().take(expected.labels.len()) {
        let mut sorted = scores.to_vec();
        sorted.sort_by(f64::total_cmp);
        let is_tie = sorted[model.scores - 1] - sorted[model.scores - 2] <= 2.0 * model.tolerance;
        assert!(is_tie || found.labels[row] == expected.labels[row], "{}: the label of row {row}", model.name);
    }
}

fn expected(model: &Model, directory: &Path) -> Answer {
    let scores = numbers(&model.file(directory, "scores"), f64::from_le_bytes);
    let labels = model.classifier.then(|| std::fs::read_to_string(model.file(directory, "labels")).unwrap());
    Answer { labels: labels.iter().flat_map(|text| text.lines()).map(str::to_owned).collect(), scores }
}

#[test]
fn models_of_scikit_learn_answer_as_it_does() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models/scikit.py");
    let made = Command::new(variable("MODELYARD_TEST_PYTHON")).arg(script).arg(directory).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let models: Vec<Model> = serde_json::from_slice(&std::fs::read(directory.join("models.json")).unwrap()).unwrap();
    assert!(models.len() > 30);

    let ours = EngineOptions::default();
    let theirs =
        EngineOptions { onnxruntime: Some(variable("MODELYARD_TEST_ONNXRUNTIME")), ..EngineOptions::default() };
    for model in models {
        let open = |extension: &str, options: &EngineOptions| {
            let file = model.file(directory, extension);
            load(Format::Onnx, &file, options).unwrap_or_else(|e| panic!("{}: {e}", model.name))
        };
        let engine = open("onnx", &ours);
        let input = model.input(directory);
        let python = expected(&model, directory);
        let found = ask(&model, &*engine, input.clone());
        let runtime = ask(&model, &*open("onnx", &theirs), input.clone());
        assert_eq!(engine.name(), "onnx-ml", "{}", model.name);

        let differences = [
            difference(&found.scores, &python.scores),
            difference(&runtime.scores, &python.scores),
            difference(&found.scores, &runtime.scores),
        ];
        let [a, b, c] = differences;
        eprintln!("{:28} to scikit-learn {a:.1e} (ONNX Runtime {b:.1e}), to ONNX Runtime {c:.1e}", model.name);
        // ONNX Runtime's own sums depend on the processor.
        assert!(a <= model.tolerance && c <= 10.0 * model.tolerance, "{}: {differences:?}", model.name);
        labels_agree(&model, &found, &python);
        labels_agree(&model, &found, &runtime);

        if model.classifier {
            for (options, plain) in [(&ours, &found), (&theirs, &runtime)] {
                let zipped = open("zipmap.onnx", options);
                let spec = &zipped.signature().outputs[1];
                let shape = vec![-1, i64::try_from(model.scores).unwrap()];
                assert_eq!((spec.datatype, &spec.shape), (Datatype::Fp32, &shape), "{}", model.name);
                let found = ask(&model, &*zipped, input.clone());
                assert_eq!(found.labels, plain.labels, "{}", model.name);
                assert_eq!(found.scores, plain.scores, "{}", model.name);
            }
        }
    }
}
