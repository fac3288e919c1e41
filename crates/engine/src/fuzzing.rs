//! Parts of this crate by themselves, for fuzz targets, which the rest of the house gets by way of [`crate::load`] only.
//! No promise to anyone else.

use std::path::Path;

use modelyard_core::Signature;

use crate::Engine;
use crate::dense::Dense;
use crate::error::LoadError;
use crate::onnx::{graph, ml, zip_map};

/// What an ONNX file declares.
pub struct Outline {
    pub signature: Signature,
    pub has_zip_map: bool,
}

/// # Errors
/// See [`LoadError`].
pub fn outline(path: &Path) -> Result<Outline, LoadError> {
    graph::read(path).map(|outline| Outline { signature: outline.signature, has_zip_map: outline.has_zip_map })
}

/// The bytes of an ONNX file without its ZipMap nodes.
///
/// # Errors
/// See [`LoadError`].
pub fn without_zip_maps(path: &Path) -> Result<Vec<u8>, LoadError> {
    zip_map::replaced(path)
}

/// An ONNX model on onnx-ml, whether it has operators of `ai.onnx.ml` or not.
///
/// # Errors
/// See [`LoadError`].
pub fn onnx_ml(path: &Path) -> Result<Box<dyn Engine>, LoadError> {
    Ok(Box::new(ml::OnnxMl::load(path, graph::read(path)?)?))
}

/// # Errors
/// See [`LoadError`].
pub fn dense(json: &[u8]) -> Result<Box<dyn Engine>, LoadError> {
    Ok(Box::new(Dense::parse(json)?))
}
