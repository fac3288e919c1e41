//! Models that others' tools would write, loaded and run by every engine at hand; and files that are no models.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod examples;
mod limits;
mod models;
mod onnx_writer;
mod refusals;
mod trees;

use std::path::PathBuf;

use modelyard_engine::EngineOptions;

/// rten, and ONNX Runtime where `MODELYARD_ONNXRUNTIME` names its library.
fn engines() -> Vec<EngineOptions> {
    let mut engines = vec![EngineOptions::default()];
    match std::env::var_os("MODELYARD_ONNXRUNTIME") {
        Some(path) => engines.push(EngineOptions {
            onnxruntime: Some(PathBuf::from(path)),
            parallelism: 2,
            ..EngineOptions::default()
        }),
        None => eprintln!("MODELYARD_ONNXRUNTIME is not set: ONNX Runtime is left out"),
    }
    engines
}

fn rten() -> EngineOptions {
    EngineOptions::default()
}
