//! ONNX models: read the outline, then let ONNX Runtime run them where its library is at hand; else onnx-ml, which is
//! of this crate, what has operators of `ai.onnx.ml`, and rten the rest.

pub(crate) mod graph;
pub(crate) mod ml;
mod optimized;
mod quantize;
mod splice;
mod with_ort;
mod with_rten;
pub(crate) mod zip_map;

use std::path::Path;

use modelyard_core::{EngineName, Provider};

pub use self::quantize::{Precision, Quantized, quantize};
pub(crate) use with_rten::in_pool;

use crate::error::LoadError;
use crate::{Engine, EngineOptions, chosen};

/// Reads the outline only.
pub(crate) fn examine(path: &Path) -> Result<(), LoadError> {
    graph::read(path).map(drop)
}

pub(crate) fn load(path: &Path, options: &EngineOptions) -> Result<Box<dyn Engine>, LoadError> {
    let outline = graph::read(path)?;
    let spec = &options.spec;
    let asked = spec.name.is_some();
    let needs_runtime = !spec.providers.is_empty() && !spec.providers.contains(&Provider::Cpu);
    let told = |reason: &str| if asked { "it was asked for".to_owned() } else { reason.to_owned() };
    match (spec.name, &options.onnxruntime) {
        (Some(EngineName::OnnxRuntime) | None, Some(library)) => {
            let engine = with_ort::OnnxRuntime::load(path, outline, library, options)?;
            Ok(chosen::because(engine, told("ONNX Runtime is at hand, and has every operator")))
        }
        (Some(EngineName::OnnxRuntime), None) => Err(LoadError::NoOnnxRuntime { asked: "by name" }),
        (None, None) if needs_runtime => Err(LoadError::NoOnnxRuntime { asked: "by its execution providers" }),
        (Some(EngineName::OnnxMl), _) | (None, None) if asked || outline.has_ml => {
            let engine = ml::OnnxMl::load(path, outline).map_err(|error| plain(error, asked))?;
            let reason = "the model has operators of ai.onnx.ml, and ONNX Runtime is not at hand";
            Ok(chosen::because(engine, told(reason)))
        }
        _ => {
            let threads = spec.threads.intra.map_or(1, usize::from);
            let engine = with_rten::Rten::load(path, outline, threads).map_err(|error| plain(error, asked))?;
            Ok(chosen::because(engine, told("ONNX Runtime is not at hand")))
        }
    }
}

/// Of an engine that was asked for, others are no remedy.
fn plain(error: LoadError, asked: bool) -> LoadError {
    match error {
        LoadError::NeedsOnnxRuntime { engine, reason } if asked => {
            LoadError::Engine { engine, reason: format!("{reason}; without `engine`, one that can is chosen") }
        }
        error => error,
    }
}
