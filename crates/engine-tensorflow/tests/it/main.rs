//! Frozen graphs, by hand and by TensorFlow, and graphs that are none.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod by_hand;
mod by_tensorflow;
mod graph_writer;
mod refusals;

use std::path::Path;

use modelyard_core::Format;
use modelyard_engine::{Engine, EngineOptions, LoadError, load};
use modelyard_protocol::{Tensor, TensorData};

fn options() -> EngineOptions {
    EngineOptions { tensorflow: Some(modelyard_engine_tensorflow::load), ..EngineOptions::default() }
}

fn open(graph: &[u8]) -> Result<Box<dyn Engine>, LoadError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), graph).unwrap();
    open_file(file.path())
}

fn open_file(path: &Path) -> Result<Box<dyn Engine>, LoadError> {
    load(Format::Tensorflow, path, &options())
}

fn floats(name: &str, shape: &[usize], values: &[f32]) -> Tensor {
    Tensor { name: name.into(), shape: shape.to_vec(), data: TensorData::Fp32(values.to_vec()) }
}
