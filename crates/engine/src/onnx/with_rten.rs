//! rten: ONNX in Rust. It knows f32, i32, i8 and u8; what a model declares beside those is converted here, both ways.

use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;

use half::f16;
use modelyard_core::{Datatype, Signature, TensorSpec};
use modelyard_protocol::{Tensor, TensorData};
use rten::{LoadErrorKind, Model, NodeId, RunOptions, ThreadPool, Value};
use rten_tensor::Layout as _;

use super::graph::Outline;
use crate::Engine;
use crate::check;
use crate::error::{InferError, LoadError, no_panic};

const NAME: &str = "rten";

thread_local! {
    /// The pool of one thread that the current thread belongs to, or sends its work to.
    static POOL: RefCell<Option<Arc<ThreadPool>>> = const { RefCell::new(None) };
}

pub(super) struct Rten {
    model: Model,
    signature: Signature,
    unranked: Vec<String>,
    inputs: Vec<NodeId>,
    outputs: Vec<NodeId>,
    /// For all callers together, if an inference may use more than its caller's thread.
    shared_pool: Option<Arc<ThreadPool>>,
    threads: usize,
}

impl Rten {
    pub(super) fn load(path: &Path, outline: Outline, threads: usize) -> Result<Self, LoadError> {
        let Outline { signature, unranked, .. } = outline;
        let needs = |reason| LoadError::NeedsOnnxRuntime { engine: NAME, reason };
        if let Some(spec) = signature.inputs.iter().chain(&signature.outputs).find(|s| !known(s.datatype)) {
            return Err(needs(format!("it has no {}, which `{}` is", spec.datatype, spec.name)));
        }
        let bytes = std::fs::read(path).map_err(LoadError::Io)?;
        let model = match no_panic(|| Model::load(bytes)) {
            Ok(Ok(model)) => model,
            Ok(Err(error)) if matches!(error.kind(), LoadErrorKind::ParseError | LoadErrorKind::UnknownFileType) => {
                return Err(LoadError::Engine { engine: NAME, reason: error.to_string() });
            }
            Ok(Err(error)) => return Err(needs(error.to_string())),
            Err(panic) => return Err(LoadError::Panicked(NAME, panic)),
        };
        let node = |spec: &TensorSpec| {
            model.node_id(&spec.name).map_err(|e| LoadError::Engine { engine: NAME, reason: e.to_string() })
        };
        let inputs = signature.inputs.iter().map(node).collect::<Result<_, _>>()?;
        let outputs = signature.outputs.iter().map(node).collect::<Result<_, _>>()?;
        let shared_pool = (threads > 1).then(|| Arc::new(ThreadPool::with_num_threads(threads)));
        Ok(Self { model, signature, unranked, inputs, outputs, shared_pool, threads })
    }
}

impl Engine for Rten {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn name(&self) -> &'static str {
        NAME
    }

    fn infer(&self, inputs: Vec<Tensor>, outputs: &[String]) -> Result<Vec<Tensor>, InferError> {
        let places = check::outputs(&self.signature, outputs)?;
        let inputs = check::inputs(&self.signature, &self.unranked, inputs)?;
        let values = self.inputs.iter().zip(inputs).map(|(id, tensor)| Ok((*id, to_value(tensor)?.into())));
        let values = values.collect::<Result<_, InferError>>()?;
        let nodes: Vec<NodeId> = places.iter().map(|place| self.outputs[*place]).collect();
        let pool = self.shared_pool.clone().unwrap_or_else(pool);
        let options = RunOptions::default().with_thread_pool(Some(pool));
        let values = no_panic(|| self.model.run(values, &nodes, Some(options)))
            .map_err(|panic| InferError::Failed(format!("rten crashed: {panic}")))?
            .map_err(|error| InferError::Failed(error.to_string()))?;
        places.iter().zip(values).map(|(place, value)| to_tensor(&self.signature.outputs[*place], value)).collect()
    }

    fn details(&self) -> Vec<(&'static str, String)> {
        vec![("intra_threads", self.threads.to_string())]
    }
}

/// Runs `body` within a pool of one thread, where a run needs no switch of threads (some 12 µs).
pub(crate) fn in_pool(body: &mut (dyn FnMut() + Send)) {
    let pool = Arc::new(ThreadPool::with_num_threads(1));
    pool.run(|| {
        POOL.set(Some(pool.clone()));
        body();
        POOL.set(None);
    });
}

fn pool() -> Arc<ThreadPool> {
    POOL.with_borrow_mut(|pool| pool.get_or_insert_with(|| Arc::new(ThreadPool::with_num_threads(1))).clone())
}

fn known(datatype: Datatype) -> bool {
    match datatype {
        Datatype::Bool
        | Datatype::Uint8
        | Datatype::Int8
        | Datatype::Int32
        | Datatype::Int64
        | Datatype::Fp16
        | Datatype::Fp32
        | Datatype::Fp64 => true,
        Datatype::Uint16 | Datatype::Uint32 | Datatype::Uint64 | Datatype::Int16 | Datatype::Bf16 | Datatype::Bytes => {
            false
        }
    }
}

fn to_value(tensor: Tensor) -> Result<Value, InferError> {
    let Tensor { name, shape, data } = tensor;
    let beyond = |value: &dyn std::fmt::Display, limit: &str| {
        InferError::BadInput(format!("input `{name}`: {value} is beyond {limit}, which the engine rten computes with"))
    };
    let failed = |e: &dyn std::error::Error| InferError::Failed(e.to_string());
    match data {
        TensorData::Fp32(v) => Value::from_shape(&shape, v).map_err(|e| failed(&e)),
        TensorData::Int32(v) => Value::from_shape(&shape, v).map_err(|e| failed(&e)),
        TensorData::Int8(v) => Value::from_shape(&shape, v).map_err(|e| failed(&e)),
        TensorData::Uint8(v) => Value::from_shape(&shape, v).map_err(|e| failed(&e)),
        TensorData::Bool(v) => {
            let v: Vec<i32> = v.into_iter().map(i32::from).collect();
            Value::from_shape(&shape, v).map_err(|e| failed(&e))
        }
        TensorData::Int64(v) => {
            let v = v.into_iter().map(|x| i32::try_from(x).map_err(|_| beyond(&x, "INT32")));
            Value::from_shape(&shape, v.collect::<Result<Vec<i32>, _>>()?).map_err(|e| failed(&e))
        }
        TensorData::Fp16(v) => {
            let v: Vec<f32> = v.into_iter().map(f16::to_f32).collect();
            Value::from_shape(&shape, v).map_err(|e| failed(&e))
        }
        TensorData::Fp64(v) => {
            #[expect(clippy::cast_possible_truncation, reason = "what does not fit becomes infinite, and is refused")]
            let narrow = |x: f64| {
                let narrowed = x as f32;
                if x.is_finite() && narrowed.is_infinite() { Err(beyond(&x, "FP32")) } else { Ok(narrowed) }
            };
            let v = v.into_iter().map(narrow).collect::<Result<Vec<f32>, _>>()?;
            Value::from_shape(&shape, v).map_err(|e| failed(&e))
        }
        other => Err(InferError::Failed(format!("rten has no {}", other.datatype()))),
    }
}

fn to_tensor(spec: &TensorSpec, value: Value) -> Result<Tensor, InferError> {
    let found = value.dtype();
    let (shape, data) = match (spec.datatype, value) {
        (Datatype::Fp32, Value::FloatTensor(t)) => (t.shape().to_vec(), TensorData::Fp32(t.into_data())),
        (Datatype::Fp64, Value::FloatTensor(t)) => {
            (t.shape().to_vec(), TensorData::Fp64(t.into_data().into_iter().map(f64::from).collect()))
        }
        (Datatype::Fp16, Value::FloatTensor(t)) => {
            (t.shape().to_vec(), TensorData::Fp16(t.into_data().into_iter().map(f16::from_f32).collect()))
        }
        (Datatype::Int32, Value::Int32Tensor(t)) => (t.shape().to_vec(), TensorData::Int32(t.into_data())),
        (Datatype::Int64, Value::Int32Tensor(t)) => {
            (t.shape().to_vec(), TensorData::Int64(t.into_data().into_iter().map(i64::from).collect()))
        }
        (Datatype::Bool, Value::Int32Tensor(t)) => {
            (t.shape().to_vec(), TensorData::Bool(t.into_data().into_iter().map(|x| x != 0).collect()))
        }
        (Datatype::Int8, Value::Int8Tensor(t)) => (t.shape().to_vec(), TensorData::Int8(t.into_data())),
        (Datatype::Uint8, Value::UInt8Tensor(t)) => (t.shape().to_vec(), TensorData::Uint8(t.into_data())),
        (declared, _) => {
            return Err(InferError::Failed(format!(
                "output `{}` is declared {declared}, but rten gave {found}",
                spec.name
            )));
        }
    };
    Ok(Tensor { name: spec.name.clone(), shape, data })
}
