//! onnx-ml: the operators that scikit-learn, XGBoost and LightGBM models are made of (the domain `ai.onnx.ml`, and
//! what converters put around them), which rten has not.
//!
//! A model is refused at load if it has an operator that is not here, or one whose attributes do not fit together:
//! artifacts are not trusted, and what inference indexes by was checked before. Computes on the caller's thread. Operators
//! follow ONNX-ML's specification (github.com/onnx/onnx, docs/Operators-ml.md), and ONNX Runtime where that is vague.

mod attributes;
mod elementwise;
mod encoders;
mod features;
mod limits;
mod linear;
mod matrix;
mod operators;
mod plan;
mod proto;
mod reduce;
mod scalers;
mod scores;
mod shapes;
mod svm;
mod trees;
mod value;

use std::path::Path;

use modelyard_core::Signature;
use modelyard_protocol::Tensor;

use self::plan::Plan;
use self::value::Value;
use super::graph::Outline;
use crate::Engine;
use crate::check;
use crate::error::{InferError, LoadError, no_panic};

const NAME: &str = "onnx-ml";

pub(crate) struct OnnxMl {
    signature: Signature,
    unranked: Vec<String>,
    plan: Plan,
}

impl OnnxMl {
    pub(crate) fn load(path: &Path, outline: Outline) -> Result<Self, LoadError> {
        let graph = proto::read(path)?;
        let plan = match no_panic(|| Plan::new(graph, &outline.signature)) {
            Ok(plan) => plan?,
            Err(panic) => return Err(LoadError::Panicked(NAME, panic)),
        };
        Ok(Self { signature: outline.signature, unranked: outline.unranked, plan })
    }
}

impl Engine for OnnxMl {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn name(&self) -> &'static str {
        NAME
    }

    fn infer(&self, inputs: Vec<Tensor>, outputs: &[String]) -> Result<Vec<Tensor>, InferError> {
        let places = check::outputs(&self.signature, outputs)?;
        let inputs = check::inputs(&self.signature, &self.unranked, inputs)?;
        let inputs = inputs.into_iter().map(|Tensor { shape, data, .. }| Value::new(shape, data));
        let inputs = inputs.collect::<Result<_, _>>().map_err(InferError::BadInput)?;
        let values = no_panic(|| self.plan.run(inputs, &places))
            .map_err(|panic| InferError::Failed(format!("{NAME} crashed: {panic}")))?
            .map_err(InferError::Failed)?;
        let named = |(place, value): (&usize, Value)| {
            let spec = &self.signature.outputs[*place];
            if value.datatype() != spec.datatype {
                let problem = format!("is declared {}, but is {}", spec.datatype, value.datatype());
                return Err(InferError::Failed(format!("output `{}` {problem}", spec.name)));
            }
            Ok(Tensor { name: spec.name.clone(), shape: value.shape, data: value.data })
        };
        places.iter().zip(values).map(named).collect()
    }
}

fn refuse(reason: String) -> LoadError {
    LoadError::Engine { engine: NAME, reason }
}
