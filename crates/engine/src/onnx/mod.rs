//! ONNX models: read the outline, then let ONNX Runtime run them where its library is at hand; else onnx-ml, which is
//! of this crate, what has operators of `ai.onnx.ml`, and rten the rest.

pub(crate) mod graph;
pub(crate) mod ml;
mod protobuf;
mod with_ort;
mod with_rten;
pub(crate) mod zip_map;

use std::path::Path;

pub(crate) use with_rten::in_pool;

use crate::error::LoadError;
use crate::{Engine, EngineOptions};

/// Reads the outline only.
pub(crate) fn examine(path: &Path) -> Result<(), LoadError> {
    graph::read(path).map(drop)
}

pub(crate) fn load(path: &Path, options: &EngineOptions) -> Result<Box<dyn Engine>, LoadError> {
    let outline = graph::read(path)?;
    match &options.onnxruntime {
        Some(library) => Ok(Box::new(with_ort::OnnxRuntime::load(path, outline, library, options.parallelism)?)),
        None if outline.has_ml => Ok(Box::new(ml::OnnxMl::load(path, outline)?)),
        None => Ok(Box::new(with_rten::Rten::load(path, outline)?)),
    }
}
