//! ONNX Runtime, through its own library, which is loaded when the first model needs it.
//!
//! A session runs one inference at a time, on the caller's thread; a few of them make a pool.

use std::borrow::Cow;
use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};

use modelyard_core::{Optimization, Provider, Signature};
use modelyard_protocol::{Tensor, TensorData};
use ort::environment::Environment;
use ort::ep::{CUDA, ExecutionProvider as _};
use ort::session::builder::GraphOptimizationLevel;
use ort::session::{Session, SessionInputValue};
use ort::value::{DynValue, PrimitiveTensorElementType, TensorElementType, TensorRef};

use super::graph::Outline;
use super::optimized::Optimized;
use super::zip_map;
use crate::check;
use crate::error::{InferError, LoadError, no_panic};
use crate::{Engine, EngineOptions};

const NAME: &str = "onnxruntime";

/// A process can load one library, and gets one environment of it.
static ENVIRONMENT: Mutex<Option<(PathBuf, Environment)>> = Mutex::new(None);

pub(super) struct OnnxRuntime {
    signature: Signature,
    unranked: Vec<String>,
    sessions: Pool,
    settings: Settings,
    /// Why not one of those asked for before it.
    provider_reason: Option<String>,
}

/// How sessions are made.
#[derive(Debug, Clone, Copy)]
struct Settings {
    intra: usize,
    inter: usize,
    optimization: Optimization,
    provider: Provider,
}

impl OnnxRuntime {
    pub(super) fn load(
        path: &Path,
        outline: Outline,
        library: &Path,
        options: &EngineOptions,
    ) -> Result<Self, LoadError> {
        let environment = environment(library)?;
        let (provider, provider_reason) = provider(&environment, library, &options.spec.providers)?;
        let settings = Settings {
            intra: options.spec.threads.intra.map_or(1, usize::from),
            inter: options.spec.threads.inter.map_or(1, usize::from),
            optimization: options.spec.optimization.unwrap_or(Optimization::All),
            provider,
        };
        let rewritten = if outline.has_zip_map { Some(zip_map::replaced(path)?) } else { None };
        let source = rewritten.as_deref().map_or(Source::File(path), Source::Memory);
        let count = options.parallelism.max(1);
        // For one session alone, writing the file costs more than is gained.
        let is_kept = count > 1 && settings.optimization == Optimization::All && provider == Provider::Cpu;
        let optimized = options.optimized.as_ref().filter(|_| is_kept).and_then(|p| Optimized::of(path, p));
        let sessions = sessions(&environment, source, settings, optimized.as_ref(), count)?;
        let Outline { signature, unranked, .. } = outline;
        let sessions = Pool { free: Mutex::new(sessions), returned: Condvar::new() };
        Ok(Self { signature, unranked, sessions, settings, provider_reason })
    }
}

/// Where a session has its model from.
#[derive(Clone, Copy)]
enum Source<'a> {
    File(&'a Path),
    Memory(&'a [u8]),
}

/// `count` of them, of which all but the first read what that has made of the graph, if it may be kept.
fn sessions(
    environment: &Environment,
    source: Source<'_>,
    settings: Settings,
    optimized: Option<&Optimized>,
    count: usize,
) -> Result<Vec<Session>, LoadError> {
    let open = |source, settings, keep: Option<&Path>| match no_panic(|| session(environment, source, settings, keep)) {
        Ok(Ok(session)) => Ok(session),
        Ok(Err(error)) => Err(LoadError::Engine { engine: NAME, reason: error.to_string() }),
        Err(panic) => Err(LoadError::Panicked(NAME, panic)),
    };
    let as_it_is = Settings { optimization: Optimization::None, ..settings };
    let mut sessions = Vec::with_capacity(count);
    if let Some(optimized) = optimized {
        match optimized.found().map(|file| open(Source::File(file), as_it_is, None)) {
            Some(Ok(session)) => sessions.push(session),
            Some(Err(_)) => optimized.discard(),
            None => {}
        }
        let part = optimized.part();
        // Where it cannot be written, sessions do without.
        if sessions.is_empty()
            && let Ok(session) = open(source, settings, Some(&part))
        {
            optimized.keep(&part);
            sessions.push(session);
        }
    }
    while sessions.len() < count {
        let session = match optimized.filter(|_| !sessions.is_empty()).and_then(Optimized::found) {
            Some(file) => open(Source::File(file), as_it_is, None),
            None => open(source, settings, None),
        };
        sessions.push(session?);
    }
    Ok(sessions)
}

/// The first of `wanted` that works here, and why not those before it.
fn provider(
    environment: &Environment,
    library: &Path,
    wanted: &[Provider],
) -> Result<(Provider, Option<String>), LoadError> {
    let mut reasons = Vec::new();
    for provider in wanted {
        let works = match provider {
            Provider::Cpu => Ok(()),
            Provider::Cuda => no_panic(|| has_cuda(environment)).and_then(|works| works),
        };
        match works {
            Ok(()) => return Ok((*provider, (!reasons.is_empty()).then(|| reasons.join("; ")))),
            Err(reason) => reasons.push(format!("{provider}: {reason}")),
        }
    }
    if wanted.is_empty() {
        return Ok((Provider::Cpu, None));
    }
    let remedy = "add `cpu` to the providers to do without";
    Err(LoadError::Provider(format!("{} (the library is {}); {remedy}", reasons.join("; "), library.display())))
}

/// Whether the library has CUDA, and CUDA a device.
fn has_cuda(environment: &Environment) -> Result<(), String> {
    if !CUDA::is_available().map_err(|error| error.to_string())? {
        return Err("this ONNX Runtime was built without CUDA: onnxruntime-gpu has it".into());
    }
    let builder = Session::builder(environment).map_err(|error| error.to_string())?;
    let with_cuda = builder.with_execution_providers([CUDA::default().build().error_on_failure()]);
    with_cuda.map(drop).map_err(|error| error.to_string())
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

/// `keep`: where the rewritten graph is written.
fn session(
    environment: &Environment,
    source: Source<'_>,
    settings: Settings,
    keep: Option<&Path>,
) -> Result<Session, ort::Error> {
    let builder = Session::builder(environment)?;
    let mut builder = builder.with_intra_threads(settings.intra)?;
    if settings.inter > 1 {
        builder = builder.with_parallel_execution(true)?.with_inter_threads(settings.inter)?;
    }
    builder = match settings.optimization {
        Optimization::None => builder.with_optimization_level(GraphOptimizationLevel::Disable)?,
        Optimization::Basic => builder.with_optimization_level(GraphOptimizationLevel::Level1)?,
        // Its own default.
        Optimization::All => builder,
    };
    if settings.provider == Provider::Cuda {
        builder = builder.with_execution_providers([CUDA::default().build().error_on_failure()])?;
    }
    if let Some(keep) = keep {
        builder = builder.with_optimized_model_path(keep)?;
    }
    match source {
        Source::Memory(bytes) => builder.commit_from_memory(bytes),
        Source::File(path) => builder.commit_from_file(path),
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

    fn details(&self) -> Vec<(&'static str, String)> {
        let Settings { intra, inter, optimization, provider } = self.settings;
        let mut details = vec![
            ("execution_provider", provider.to_string()),
            ("intra_threads", intra.to_string()),
            ("inter_threads", inter.to_string()),
            ("graph_optimization", optimization.to_string()),
        ];
        details.extend(self.provider_reason.clone().map(|reason| ("execution_provider_reason", reason)));
        details
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
