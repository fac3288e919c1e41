//! Model files: what is refused at the first look, what their outlines are, and that what loads runs.

use std::io::Write as _;

use modelyard_core::{Format, TensorSpec};
use modelyard_engine::{Engine, InferError, LoadError, fuzzing};
use modelyard_protocol::{Tensor, TensorData};
use tempfile::NamedTempFile;

use crate::requests::assert_whole;

/// Engines read files.
fn file(bytes: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::new().expect("a temporary file");
    file.write_all(bytes).expect("room for a temporary file");
    file
}

/// A file is refused for what it is: never by a crash, nor since it could not be read, which it can.
fn assert_orderly(error: &LoadError) {
    assert!(!matches!(error, LoadError::Panicked(..) | LoadError::Io(_) | LoadError::Library { .. }), "{error}");
    assert!(!error.code().is_empty());
}

fn loaded<T>(result: Result<T, LoadError>) -> Option<T> {
    result.inspect_err(assert_orderly).ok()
}

pub(crate) fn sniff(bytes: &[u8]) {
    let file = file(bytes);
    let is_fine = |format| loaded(modelyard_engine::examine(format, file.path())).is_some();
    let (onnx, dense, _) = (is_fine(Format::Onnx), is_fine(Format::Dense), is_fine(Format::Tensorflow));
    assert!(!(dense && onnx), "the same bytes are text and binary");
    assert!(!bytes.is_empty() || !(onnx || dense));
}

pub(crate) fn onnx_outline(bytes: &[u8]) {
    let file = file(bytes);
    let Some(outline) = loaded(fuzzing::outline(file.path())) else { return };
    assert!(!outline.signature.outputs.is_empty());
    let specs = outline.signature.inputs.iter().chain(&outline.signature.outputs);
    for TensorSpec { shape, .. } in specs {
        assert!(shape.iter().all(|d| *d >= -1), "{shape:?}");
    }
}

/// Without its ZipMap a model has the same inputs, and outputs of the same names.
pub(crate) fn onnx_zip_map(bytes: &[u8]) {
    let before = file(bytes);
    let Some(outline) = loaded(fuzzing::outline(before.path())) else { return };
    let Some(rewritten) = loaded(fuzzing::without_zip_maps(before.path())) else { return };
    let after = loaded(fuzzing::outline(file(&rewritten).path())).expect("what was rewritten is a model");
    assert!(!after.has_zip_map);
    assert_eq!(after.signature.inputs, outline.signature.inputs);
    let names = |specs: &[TensorSpec]| specs.iter().map(|spec| spec.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&after.signature.outputs), names(&outline.signature.outputs));
}

/// Loads it for the evaluator of this house, whatever operators it has, and runs it.
pub(crate) fn onnx_ml(bytes: &[u8]) {
    if let Some(engine) = loaded(fuzzing::onnx_ml(file(bytes).path())) {
        runs(engine.as_ref());
    }
}

pub(crate) fn dense(bytes: &[u8]) {
    if let Some(engine) = loaded(fuzzing::dense(bytes)) {
        for answer in runs(engine.as_ref()) {
            answer.expect("a dense model that was loaded answers");
        }
    }
}

/// What is small enough to be asked of any model.
const MOST_ELEMENTS: usize = 1 << 16;

/// Infers zeros and ones, one row and three of them. What comes is whole and what the signature says.
fn runs(engine: &dyn Engine) -> Vec<Result<Vec<Tensor>, InferError>> {
    let mut answers = Vec::new();
    for (batch, is_one) in [(1, false), (3, true)] {
        let tensor = |spec: &TensorSpec| {
            let shape: Vec<usize> = spec.shape.iter().map(|d| usize::try_from(*d).unwrap_or(batch)).collect();
            let count = shape.iter().try_fold(1_usize, |n, d| n.checked_mul(*d)).filter(|n| *n <= MOST_ELEMENTS)?;
            let mut data = TensorData::zeros(spec.datatype, count);
            if is_one {
                ones(&mut data);
            }
            Tensor::new(spec.name.clone(), shape, data).ok()
        };
        let Some(inputs) = engine.signature().inputs.iter().map(tensor).collect::<Option<Vec<_>>>() else { continue };
        let answer = engine.infer(inputs, &[]);
        match &answer {
            Ok(outputs) => {
                assert_whole(outputs);
                let specs = &engine.signature().outputs;
                assert_eq!(outputs.len(), specs.len());
                for (output, spec) in outputs.iter().zip(specs) {
                    assert_eq!((&output.name, output.datatype()), (&spec.name, spec.datatype));
                }
            }
            Err(error) => assert!(!error.to_string().contains("crashed"), "{error}"),
        }
        answers.push(answer);
    }
    answers
}

fn ones(data: &mut TensorData) {
    match data {
        TensorData::Bool(v) => v.fill(true),
        TensorData::Int32(v) => v.fill(1),
        TensorData::Int64(v) => v.fill(1),
        TensorData::Fp32(v) => v.fill(1.0),
        TensorData::Fp64(v) => v.fill(1.0),
        TensorData::Bytes(v) => v.fill(b"1".to_vec()),
        _ => {}
    }
}
