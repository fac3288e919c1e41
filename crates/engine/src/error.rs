//! Why a model was not loaded, or did not answer.

use std::io;
use std::path::PathBuf;

use modelyard_core::{EngineName, Format};

/// Why an artifact is not served. Each has a stable [`LoadError::code`].
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("the artifact cannot be read: {0}")]
    Io(#[source] io::Error),
    #[error("the artifact is empty (0 bytes)")]
    Empty,
    #[error(
        "it is a Python pickle{0}: loading one runs whatever code it holds, so pickles are never loaded; export the \
         model to ONNX"
    )]
    Pickle(&'static str),
    #[error(
        "it is TorchScript, which is not served: export the model to ONNX (torch.onnx.export) from Python, where it was \
         scripted or traced"
    )]
    TorchScript,
    #[error(
        "it is a TensorFlow SavedModel, which is not served: export it to ONNX (python -m tf2onnx.convert --saved-model \
         DIR --output model.onnx), or freeze it into one GraphDef (docs/engines.md)"
    )]
    SavedModel,
    #[error(
        "it is a Keras model ({0}), which is not served: export it to ONNX (model.export(\"model.onnx\", \
         format=\"onnx\")), or freeze it into one GraphDef (docs/engines.md)"
    )]
    Keras(&'static str),
    #[error(
        "it is a TensorFlow Lite model, which is not served: convert it to ONNX (python -m tf2onnx.convert --tflite \
         model.tflite --output model.onnx)"
    )]
    TfLite,
    #[error("it is an archive ({0}), not a model: name the model file itself")]
    Archive(&'static str),
    #[error("it is a directory, not a model file")]
    Directory,
    #[error("it is a Git LFS pointer, not the file it points to: fetch that first (git lfs pull)")]
    LfsPointer,
    #[error("it is an HTML page, not a model: was a download answered with an error or a login page?")]
    Html,
    #[error("it is a text file, not a model in binary")]
    Text,
    #[error("it is a binary file, not the JSON of a dense model")]
    NotJson,
    #[error("it is no ONNX model: {0}")]
    NotOnnx(String),
    #[error("it is cut off: {0}; was it copied or downloaded whole?")]
    Truncated(String),
    #[error("tensor `{0}` keeps its data in another file, which an artifact cannot have: save the model as one file")]
    ExternalData(String),
    #[error("{0}")]
    UnsupportedSignature(String),
    #[error("it is no valid dense model: {0}")]
    Dense(String),
    #[error("it is no frozen TensorFlow graph: {0}")]
    NotGraphDef(String),
    #[error(
        "it is a TensorFlow graph that is not frozen (node `{node}` is a {op}): its variables and functions must \
         become constants and nodes (convert_variables_to_constants_v2, see docs/engines.md)"
    )]
    NotFrozen { node: String, op: String },
    #[error(
        "format tensorflow needs a worker that was built with it: build modelyard-worker with --features tensorflow"
    )]
    UnsupportedFormat,
    #[error(
        "{engine} cannot run it ({reason}), and ONNX Runtime, which may, was not found: set MODELYARD_ONNXRUNTIME to \
         the path of its library (libonnxruntime.so, from the onnxruntime wheel or a release)"
    )]
    NeedsOnnxRuntime { engine: &'static str, reason: String },
    #[error(
        "the engine onnxruntime was asked for ({asked}), and its library was not found: set MODELYARD_ONNXRUNTIME to \
         its path (libonnxruntime.so, from the onnxruntime wheel or a release)"
    )]
    NoOnnxRuntime { asked: &'static str },
    #[error("the engine {engine} loads {}, not {format}", .engine.format())]
    OtherFormat { engine: EngineName, format: Format },
    #[error("its weights cannot be narrowed: {0}")]
    Quantize(String),
    #[error("it cannot compute where it was asked to: {0}")]
    Provider(String),
    #[error("the ONNX Runtime library {path} cannot be used: {reason}")]
    Library { path: PathBuf, reason: String },
    #[error("{engine} refuses it: {reason}")]
    Engine { engine: &'static str, reason: String },
    #[error("{0} crashed while loading it: {1}")]
    Panicked(&'static str, String),
}

impl LoadError {
    /// A name for programs, which stays when messages change.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Io(_) => "io",
            Self::Empty => "empty",
            Self::Pickle(_) => "pickle",
            Self::SavedModel => "savedmodel",
            Self::Keras(_) => "keras",
            Self::TfLite => "tflite",
            Self::TorchScript => "torchscript",
            Self::Archive(_) => "archive",
            Self::Directory => "directory",
            Self::LfsPointer => "lfs-pointer",
            Self::Html => "html",
            Self::Text => "text",
            Self::NotJson => "not-json",
            Self::NotOnnx(_) => "not-onnx",
            Self::Truncated(_) => "truncated",
            Self::ExternalData(_) => "external-data",
            Self::UnsupportedSignature(_) => "unsupported-signature",
            Self::Dense(_) => "dense-invalid",
            Self::NotGraphDef(_) => "not-graphdef",
            Self::NotFrozen { .. } => "not-frozen",
            Self::UnsupportedFormat => "unsupported-format",
            Self::NeedsOnnxRuntime { .. } => "needs-onnxruntime",
            Self::NoOnnxRuntime { .. } => "no-onnxruntime",
            Self::OtherFormat { .. } => "other-format",
            Self::Quantize(_) => "quantize",
            Self::Provider(_) => "provider",
            Self::Library { .. } => "onnxruntime-library",
            Self::Engine { .. } => "engine-refused",
            Self::Panicked(..) => "engine-crashed",
        }
    }
}

/// Why a request got no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InferError {
    /// The caller's fault: names, datatypes or shapes that are not the model's.
    #[error("{0}")]
    BadInput(String),
    /// The model's, or its engine's.
    #[error("the model failed: {0}")]
    Failed(String),
}

/// Runs `work`, and turns a panic into the message it carried.
///
/// # Errors
/// That message.
pub fn no_panic<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).map_err(|payload| {
        let text = payload.downcast_ref::<&str>().map(|s| (*s).to_owned());
        text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without words".into())
    })
}
