//! The engine `tensorflow`: frozen TensorFlow graphs, run by tract in Rust.
//!
//! A crate of its own because tract takes minutes to build; only the worker knows it, by a feature. What tract would
//! compute otherwise than TensorFlow does is either registered anew here or refused: a model is never served with
//! answers that are not its own. Computes on the caller's thread, for any number of callers at once.

mod constants;
mod graph;
mod operators;
mod tensors;

use std::path::Path;

use modelyard_core::Signature;
use modelyard_engine::{Engine, GraphDefOutline, InferError, LoadError, check_inputs, check_outputs, no_panic};
use modelyard_protocol::Tensor;
use tract_tensorflow::prelude::{TVec, TypedRunnableModel};

use crate::tensors::{from_tract, to_tract};

const NAME: &str = "tensorflow";

/// A frozen graph, ready to run.
struct TensorFlow {
    signature: Signature,
    plan: std::sync::Arc<TypedRunnableModel>,
}

/// Loads the GraphDef at `path`, of which `outline` was read; a [`modelyard_engine::TensorflowLoader`].
///
/// # Errors
/// If it has an operator, or a use of one, that is not computed here; it is named.
pub fn load(path: &Path, outline: GraphDefOutline) -> Result<Box<dyn Engine>, LoadError> {
    let bytes = std::fs::read(path).map_err(LoadError::Io)?;
    match no_panic(|| graph::open(&bytes, &outline)) {
        Ok(loaded) => {
            let (signature, plan) = loaded?;
            Ok(Box::new(TensorFlow { signature, plan }))
        }
        Err(panic) => Err(LoadError::Panicked(NAME, panic)),
    }
}

impl Engine for TensorFlow {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn name(&self) -> &'static str {
        NAME
    }

    fn infer(&self, inputs: Vec<Tensor>, outputs: &[String]) -> Result<Vec<Tensor>, InferError> {
        let places = check_outputs(&self.signature, outputs)?;
        let inputs = check_inputs(&self.signature, &[], inputs)?;
        let values = inputs.iter().map(to_tract).collect::<Result<TVec<_>, _>>()?;
        let given = no_panic(|| self.plan.run(values))
            .map_err(|panic| InferError::Failed(format!("tract crashed: {panic}")))?
            .map_err(|error| InferError::Failed(format!("{error:#}")))?;
        let named = |place: &usize| {
            let spec = &self.signature.outputs[*place];
            let value = given.get(*place);
            let value = value.ok_or_else(|| InferError::Failed(format!("it gave no output `{}`", spec.name)))?;
            from_tract(spec, value)
        };
        places.iter().map(named).collect()
    }
}

fn refuse(reason: String) -> LoadError {
    LoadError::Engine { engine: NAME, reason }
}
