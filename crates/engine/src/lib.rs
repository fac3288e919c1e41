//! Loading models and running them: ONNX by ONNX Runtime, rten or onnx-ml, and dense networks in JSON. Frozen
//! TensorFlow graphs are read here, and run by `modelyard-engine-tensorflow`, a crate of its own since it is heavy.
//!
//! Synchronous: whoever calls [`Engine::infer`] brings the thread. Knows no HTTP, no registry and no digests; it never
//! fetches anything, and never unpickles or otherwise executes what an artifact holds beyond the model's own graph.

mod check;
mod chosen;
mod dense;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod graph_def;
mod onnx;
mod protobuf;
mod sniff;

use std::fs::File;
use std::path::{Path, PathBuf};

use modelyard_core::{EngineSpec, Format, Signature};
use modelyard_protocol::{Tensor, TensorData};

pub use check::{inputs as check_inputs, outputs as check_outputs};
pub use error::{InferError, LoadError, no_panic};
pub use graph_def::{GraphDefOutline, read_graph_def};
pub use onnx::{Precision, Quantized, quantize};

/// A loaded model.
pub trait Engine: Send + Sync {
    /// The inputs and outputs as the artifact declares them.
    fn signature(&self) -> &Signature;

    /// What runs it: `onnxruntime`, `rten`, `onnx-ml`, `tensorflow` or `dense`.
    fn name(&self) -> &'static str;

    /// Runs the model. `outputs` names those wanted, in order; all of them if it is empty.
    ///
    /// # Errors
    /// [`InferError::BadInput`] if inputs or output names do not match the signature, [`InferError::Failed`] if the
    /// model failed on them.
    fn infer(&self, inputs: Vec<Tensor>, outputs: &[String]) -> Result<Vec<Tensor>, InferError>;

    /// Why it and no other runs the model, and how, for people; with names that stay.
    fn details(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}

/// Runs `body` where calls of [`Engine::infer`] are cheapest, whichever engines they are of. A thread that serves many
/// does so inside.
pub fn in_engines_pool(body: &mut (dyn FnMut() + Send)) {
    onnx::in_pool(body);
}

/// Checks a request as [`Engine::infer`] does, without running it: the inputs, in the order of the signature. Not for
/// models with inputs whose rank is open.
///
/// # Errors
/// [`InferError::BadInput`].
pub fn fit(signature: &Signature, inputs: Vec<Tensor>, outputs: &[String]) -> Result<Vec<Tensor>, InferError> {
    check::outputs(signature, outputs)?;
    check::inputs(signature, &[], inputs)
}

/// Loads a frozen TensorFlow graph with what [`read_graph_def`] read of it.
pub type TensorflowLoader = fn(&Path, GraphDefOutline) -> Result<Box<dyn Engine>, LoadError>;

/// How to load.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// The library of ONNX Runtime, `libonnxruntime.so*`. Without it ONNX models run on onnx-ml, if they have operators
    /// of `ai.onnx.ml`, and on rten. One process can load one library only.
    pub onnxruntime: Option<PathBuf>,
    /// How many calls of [`Engine::infer`] may run at once, at least 1; the memory of ONNX Runtime grows with it.
    pub parallelism: usize,
    /// The engine for frozen TensorFlow graphs, where it is built in.
    pub tensorflow: Option<TensorflowLoader>,
    /// What the engine is asked to be.
    pub spec: EngineSpec,
    /// The beginning of a file's path, of this model alone, where ONNX Runtime may keep its rewritten graph.
    pub optimized: Option<PathBuf>,
}

impl Default for EngineOptions {
    /// What needs nothing installed, for one call at a time.
    fn default() -> Self {
        Self { onnxruntime: None, parallelism: 1, tensorflow: None, spec: EngineSpec::default(), optimized: None }
    }
}

/// Refuses what is no model by its first bytes and its structure, without reading or loading all of it. What passes
/// may still be refused by [`load`].
///
/// # Errors
/// See [`LoadError`].
pub fn examine(format: Format, path: &Path) -> Result<(), LoadError> {
    let kind = sniff::look(path)?;
    match format {
        Format::Dense => kind.must_be_text(),
        Format::Onnx => {
            kind.must_be_binary()?;
            onnx::examine(path)
        }
        Format::Tensorflow => {
            kind.must_be_binary()?;
            read_graph_def(path).map(drop)
        }
    }
}

/// Loads the artifact at `path`.
///
/// # Errors
/// See [`LoadError`].
pub fn load(format: Format, path: &Path, options: &EngineOptions) -> Result<Box<dyn Engine>, LoadError> {
    if let Some(engine) = options.spec.name.filter(|engine| engine.format() != format) {
        return Err(LoadError::OtherFormat { engine, format });
    }
    let kind = sniff::look(path)?;
    match format {
        Format::Dense => {
            kind.must_be_text()?;
            Ok(chosen::only(dense::Dense::load(path)?, format))
        }
        Format::Onnx => {
            kind.must_be_binary()?;
            onnx::load(path, options)
        }
        Format::Tensorflow => {
            kind.must_be_binary()?;
            let outline = read_graph_def(path)?;
            Ok(chosen::only(options.tensorflow.ok_or(LoadError::UnsupportedFormat)?(path, outline)?, format))
        }
    }
}

/// Opens an artifact.
fn open(path: &Path) -> Result<File, LoadError> {
    File::open(path).map_err(LoadError::Io)
}

/// The largest input of a warm-up, in elements.
const LARGEST_WARM_UP: usize = 1 << 24;

/// One inference on zeros, with free dimensions set to 1: pages weights in and makes engines allocate their buffers.
///
/// # Errors
/// As [`Engine::infer`]. Models may be pickier than zeros, so a failure says little.
pub fn warm_up(engine: &dyn Engine) -> Result<(), InferError> {
    let zeros = |spec: &modelyard_core::TensorSpec| {
        let shape: Vec<usize> = spec.shape.iter().map(|d| usize::try_from(*d).unwrap_or(1)).collect();
        let count = shape
            .iter()
            .try_fold(1_usize, |n, d| n.checked_mul(*d))
            .filter(|n| *n <= LARGEST_WARM_UP)
            .ok_or_else(|| InferError::BadInput(format!("input `{}` is too large to warm up with", spec.name)))?;
        Ok(Tensor { name: spec.name.clone(), shape, data: TensorData::zeros(spec.datatype, count) })
    };
    let inputs = engine.signature().inputs.iter().map(zeros).collect::<Result<_, InferError>>()?;
    engine.infer(inputs, &[]).map(drop)
}
