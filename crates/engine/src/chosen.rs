//! An engine, and why it was chosen.

use modelyard_core::{Format, Signature};
use modelyard_protocol::Tensor;

use crate::Engine;
use crate::error::InferError;

struct Chosen<E> {
    engine: E,
    reason: String,
}

pub(crate) fn because(engine: impl Engine + 'static, reason: impl Into<String>) -> Box<dyn Engine> {
    Box::new(Chosen { engine, reason: reason.into() })
}

/// Of a format that has one engine.
pub(crate) fn only(engine: impl Engine + 'static, format: Format) -> Box<dyn Engine> {
    because(engine, format!("it is the engine for the format {format}"))
}

impl<E: Engine> Engine for Chosen<E> {
    fn signature(&self) -> &Signature {
        self.engine.signature()
    }

    fn name(&self) -> &'static str {
        self.engine.name()
    }

    fn infer(&self, inputs: Vec<Tensor>, outputs: &[String]) -> Result<Vec<Tensor>, InferError> {
        self.engine.infer(inputs, outputs)
    }

    fn details(&self) -> Vec<(&'static str, String)> {
        let mut details = vec![("engine_reason", self.reason.clone())];
        details.extend(self.engine.details());
        details
    }
}

impl Engine for Box<dyn Engine> {
    fn signature(&self) -> &Signature {
        (**self).signature()
    }

    fn name(&self) -> &'static str {
        (**self).name()
    }

    fn infer(&self, inputs: Vec<Tensor>, outputs: &[String]) -> Result<Vec<Tensor>, InferError> {
        (**self).infer(inputs, outputs)
    }

    fn details(&self) -> Vec<(&'static str, String)> {
        (**self).details()
    }
}
