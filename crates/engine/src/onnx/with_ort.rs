//! ONNX Runtime, through its own library, which is loaded when the first model needs it.
//!
//! A session runs one inference at a time, on the caller's thread; a few of them make a pool.

use std::borrow::Cow;
use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};

use modelyard_core::Signature;
use modelyard_protocol::{Tensor, TensorData};
use ort::environment::Environment;
use ort::session::{Session, SessionInputValue};
use ort::value::{DynValue, PrimitiveTensorElementType, TensorElementType, TensorRef};

use super::graph::Outline;
use super::zip_map;
use crate::Engine;
use crate::check;
use crate::error::{InferError, LoadError, no_panic};

const NAME: &str = "onnxruntime";

/// A process can load one library, and gets one environment of it.
static ENVIRONMENT: Mutex<Option<(PathBuf, Environment)>> = Mutex::new(None);

pub(super) struct OnnxRuntime {
    signature: Signature,
    unranked: Vec<String>,
    sessions: Pool,
}

impl OnnxRuntime {
    pub(super) fn load(path: &Path, outline: Outline, library: &Path, sessions: usize) -> Result<Self, LoadError> {
        let environment = environment(library)?;
        let rewritten = if outline.has_zip_map { Some(zip_map::replaced(path)?) } else { None };
        let open = || match no_panic(|| session(&environment, path, rewritten.as_deref())) {
            Ok(Ok(session)) => Ok(session),
            Ok(Err(error)) => Err(LoadError::Engine { engine: NAME, reason: error.to_string() }),
            Err(panic) => Err(LoadError::Panicked(NAME, panic)),
        };
        let sessions = (0..sessions.max(1)).map(|_| open()).collect::<Result<Vec<_>, _>>()?;
        let Outline { signature, unranked, .. } = outline;
        Ok(Self { signature, unranked, sessions: Pool { free: Mutex::new(sessions), returned: Condvar::new() } })
    }
}

fn environment(library: &Path) -> Result<Environment, LoadError> {
    // A relative path would be looked up beside the executable.
    let path = std::path::absolute(library).unwrap_or_else(|_| library.to_owned());
    let mut loaded = ENVIRONMENT.lock().unwrap_or_else(PoisonError::into_inner);
    let refuse = |reason| LoadError::Library { path: path.clone(), reason };
    match &*loaded {
        Some((first, environment)) if *first == path => return Ok(environment.clone()),
        Some((first, _)) => return Err(refuse(format!("this process uses {} already", first.display()))),
        None => {}
    }
    let build = || -> Result<Environment, String> {
        let builder = ort::init_from(&path).map_err(|e| e.to_string())?.with_telemetry(false);
        let environment = builder.build().map_err(|e| e.to_string())?;
        environment.set_log_level(ort::logging::LogLevel::Error);
        Ok(environment)
    };
    let environment = no_panic(build).and_then(|built| built).map_err(refuse)?;
    *loaded = Some((path.clone(), environment.clone()));
    Ok(environment)
}

/// `rewritten`: what to load instead of the file.
fn session(environment: &Environment, path: &Path, rewritten: Option<&[u8]>) -> Result<Session, ort::Error> {
    let builder = Session::builder(environment)?;
    let mut builder = builder.with_intra_threads(1)?;
    match rewritten {
        Some(bytes) => builder.commit_from_memory(bytes),
        None => builder.commit_from_file(path),
    }
}

impl Engine for OnnxRuntime {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn name(&self) -> &'static str {
        NAME
    }

    fn infer(&self, inputs: Vec<Tensor>, outputs: &[String]) -> Result<Vec<Tensor>, InferError> {
        let places = check::outputs(&self.signature, outputs)?;
        let inputs = check::inputs(&self.signature, &self.unranked, inputs)?;
        let values = inputs.iter().map(|t| Ok((Cow::Borrowed(t.name.as_str()), to_value(t)?)));
        let values = values.collect::<Result<Vec<_>, InferError>>()?;
        let mut session = self.sessions.take();
        let run = || -> Result<Vec<Tensor>, InferError> {
            let given = session.get().run(values).map_err(|error| failed(&error))?;
            let one = |place: &usize| {
                let name = &self.signature.outputs[*place].name;
                let value = given.get(name).ok_or_else(|| InferError::Failed(format!("it gave no output `{name}`")))?;
                to_tensor(name, value)
            };
            places.iter().map(one).collect()
        };
        no_panic(run).map_err(|panic| InferError::Failed(format!("ONNX Runtime crashed: {panic}")))?
    }
}

fn failed(error: &ort::Error) -> InferError {
    InferError::Failed(error.to_string())
}

fn to_value(tensor: &Tensor) -> Result<SessionInputValue<'_>, InferError> {
    fn view<'a, T: PrimitiveTensorElementType + Debug + Clone + 'static>(
        shape: &'a [usize],
        elements: &'a [T],
    ) -> Result<SessionInputValue<'a>, InferError> {
        let value = TensorRef::from_array_view((shape, elements)).map_err(|error| failed(&error))?;
        Ok(value.into())
    }
    let shape = tensor.shape.as_slice();
    match &tensor.data {
        TensorData::Bool(v) => view(shape, v),
        TensorData::Uint8(v) => view(shape, v),
        TensorData::Uint16(v) => view(shape, v),
        TensorData::Uint32(v) => view(shape, v),
        TensorData::Uint64(v) => view(shape, v),
        TensorData::Int8(v) => view(shape, v),
        TensorData::Int16(v) => view(shape, v),
        TensorData::Int32(v) => view(shape, v),
        TensorData::Int64(v) => view(shape, v),
        TensorData::Fp16(v) => view(shape, v),
        TensorData::Fp32(v) => view(shape, v),
        TensorData::Fp64(v) => view(shape, v),
        TensorData::Bf16(v) => view(shape, v),
        TensorData::Bytes(v) => {
            let refuse = || {
                let name = &tensor.name;
                InferError::BadInput(format!("input `{name}`: BYTES must be UTF-8 without NUL for this engine"))
            };
            let text = |e: &'_ Vec<u8>| String::from_utf8(e.clone()).ok().filter(|s| !s.contains('\0'));
            let strings = v.iter().map(text).collect::<Option<Vec<String>>>().ok_or_else(refuse)?;
            let value = ort::value::Tensor::from_string_array((shape, strings.as_slice()));
            Ok(value.map_err(|error| failed(&error))?.into())
        }
    }
}

fn to_tensor(name: &str, value: &DynValue) -> Result<Tensor, InferError> {
    fn elements<T: PrimitiveTensorElementType + Clone>(value: &DynValue) -> Result<Vec<T>, InferError> {
        value.try_extract_tensor::<T>().map(|(_, elements)| elements.to_vec()).map_err(|error| failed(&error))
    }
    let found = || InferError::Failed(format!("output `{name}` is {}, which has no datatype here", value.dtype()));
    let datatype = value.dtype().tensor_type().ok_or_else(found)?;
    let data = match datatype {
        TensorElementType::Bool => TensorData::Bool(elements(value)?),
        TensorElementType::Uint8 => TensorData::Uint8(elements(value)?),
        TensorElementType::Uint16 => TensorData::Uint16(elements(value)?),
        TensorElementType::Uint32 => TensorData::Uint32(elements(value)?),
        TensorElementType::Uint64 => TensorData::Uint64(elements(value)?),
        TensorElementType::Int8 => TensorData::Int8(elements(value)?),
        TensorElementType::Int16 => TensorData::Int16(elements(value)?),
        TensorElementType::Int32 => TensorData::Int32(elements(value)?),
        TensorElementType::Int64 => TensorData::Int64(elements(value)?),
        TensorElementType::Float16 => TensorData::Fp16(elements(value)?),
        TensorElementType::Float32 => TensorData::Fp32(elements(value)?),
        TensorElementType::Float64 => TensorData::Fp64(elements(value)?),
        TensorElementType::Bfloat16 => TensorData::Bf16(elements(value)?),
        TensorElementType::String => {
            let (_, strings) = value.try_extract_strings().map_err(|error| failed(&error))?;
            TensorData::Bytes(strings.into_iter().map(String::into_bytes).collect())
        }
        _ => return Err(found()),
    };
    let shape = value.dtype().tensor_shape().ok_or_else(found)?;
    let shape = shape.iter().map(|d| usize::try_from(*d)).collect::<Result<Vec<_>, _>>().map_err(|_| found())?;
    Ok(Tensor { name: name.to_owned(), shape, data })
}

/// Sessions, each used by one caller at a time.
struct Pool {
    free: Mutex<Vec<Session>>,
    returned: Condvar,
}

struct Lease<'a> {
    pool: &'a Pool,
    session: Option<Session>,
}

impl Pool {
    fn take(&self) -> Lease<'_> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(session) = free.pop() {
                return Lease { pool: self, session: Some(session) };
            }
            free = self.returned.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Lease<'_> {
    fn get(&mut self) -> &mut Session {
        self.session.as_mut().expect("a lease holds its session until it is dropped")
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            self.pool.free.lock().unwrap_or_else(PoisonError::into_inner).push(session);
            self.pool.returned.notify_one();
        }
    }
}
