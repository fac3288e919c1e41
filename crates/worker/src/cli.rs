//! The command line. Values are parsed here, once.

use std::net::SocketAddr;
use std::path::PathBuf;

use modelyard_core::{Digest, EngineName, EngineSpec, EngineThreads, Format, Optimization, Provider, Span};
use modelyard_engine::{EngineOptions, Precision, TensorflowLoader};
use reqwest::Url;

use crate::compute::{BatchLimits, QueueLimits};
use crate::fetch::Source;
use crate::http::{Bodies, Manners};
use crate::size::ByteSize;

/// Serves one version of one model, or inspects an artifact.
#[derive(Debug, clap::Parser)]
#[command(name = "modelyard-worker", version)]
pub struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Load an artifact once and print its signature, or why it is refused, as one line of JSON.
    Inspect(InspectArgs),
    /// Make a copy of an ONNX model with narrower weights, run both, and print sizes, speeds and the largest difference
    /// of their answers as one line of JSON, or why there is no copy.
    Optimize(OptimizeArgs),
    /// Serve the Open Inference Protocol until SIGTERM.
    Serve(Box<ServeArgs>),
    /// Do nothing for a while. A pod that ends does so before its worker is told to, so that those who send requests
    /// learn of it first; the worker's image has no shell to sleep in.
    Linger {
        #[arg(long = "for", value_name = "DURATION")]
        time: Span,
    },
}

/// What is known of a model before its artifact is at hand.
#[derive(Debug, clap::Args)]
pub(crate) struct ModelArgs {
    /// onnx, tensorflow (a frozen GraphDef) or dense.
    #[arg(long)]
    pub(crate) format: Format,
    /// The digest that the artifact must have.
    #[arg(long, value_name = "HEX")]
    pub(crate) sha256: Digest,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
}

/// What runs models.
#[derive(Debug, clap::Args)]
pub(crate) struct EngineArgs {
    /// The library of ONNX Runtime (libonnxruntime.so); ORT_DYLIB_PATH is read too. Without it, ONNX models run on rten.
    #[arg(long, value_name = "PATH", env = "MODELYARD_ONNXRUNTIME")]
    pub(crate) onnxruntime: Option<PathBuf>,
    /// What must run the model: onnxruntime, rten, onnx-ml, tensorflow or dense. Left out, the worker chooses.
    #[arg(long, value_name = "NAME")]
    engine: Option<EngineName>,
    /// Threads that one inference may use within an operator (onnxruntime, rten); 1 if left out.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    intra_threads: Option<u16>,
    /// Operators that onnxruntime may run at once, of those that do not depend on each other; 1 if left out.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    inter_threads: Option<u16>,
    /// How far onnxruntime rewrites the graph: none, basic or all; all if left out.
    #[arg(long, value_name = "LEVEL")]
    optimization: Option<Optimization>,
    /// Where onnxruntime computes, the first that there is: cuda, cpu. Without cpu in the list, not without the others.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    providers: Vec<Provider>,
}

/// The engine for frozen TensorFlow graphs, if it is built in.
const TENSORFLOW: Option<TensorflowLoader> = {
    #[cfg(feature = "tensorflow")]
    {
        Some(modelyard_engine_tensorflow::load)
    }
    #[cfg(not(feature = "tensorflow"))]
    {
        None
    }
};

impl EngineArgs {
    pub(crate) fn options(&self, parallelism: usize) -> EngineOptions {
        let set = |path: &PathBuf| !path.as_os_str().is_empty();
        let common = || std::env::var_os("ORT_DYLIB_PATH").map(PathBuf::from).filter(set);
        let spec = EngineSpec {
            name: self.engine,
            threads: EngineThreads { intra: self.intra_threads, inter: self.inter_threads },
            optimization: self.optimization,
            providers: self.providers.clone(),
            warm_up: None,
        };
        let onnxruntime = self.onnxruntime.clone().filter(set).or_else(common);
        EngineOptions { onnxruntime, parallelism, tensorflow: TENSORFLOW, spec, optimized: None }
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct InspectArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// The model file.
    #[arg(long, value_name = "PATH")]
    pub(crate) artifact: PathBuf,
    /// The most memory to use for data, in bytes; beyond it the process aborts.
    #[arg(long, value_name = "BYTES")]
    pub(crate) max_memory: Option<u64>,
}

/// What weights are kept as.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum Quantize {
    /// 8 bits, with a scale per output channel: a quarter of the size.
    Int8,
    /// 16 bits: half the size.
    Fp16,
}

impl From<Quantize> for Precision {
    fn from(quantize: Quantize) -> Self {
        match quantize {
            Quantize::Int8 => Self::Int8,
            Quantize::Fp16 => Self::Fp16,
        }
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct OptimizeArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// The model file.
    #[arg(long, value_name = "PATH")]
    pub(crate) artifact: PathBuf,
    #[arg(long, value_enum)]
    pub(crate) quantize: Quantize,
    /// Where the copy is written, if it is good enough.
    #[arg(long, value_name = "PATH")]
    pub(crate) out: PathBuf,
    /// By how much an output may differ, at most, of its largest absolute value (or of 1, if that is less).
    #[arg(long, value_name = "SHARE", default_value = "0.01")]
    pub(crate) max_difference: f64,
    /// Requests to compare on: of the Open Inference Protocol, as JSON, one a line. Random ones if left out.
    #[arg(long, value_name = "FILE")]
    pub(crate) samples: Option<PathBuf>,
    /// How many random requests.
    #[arg(long, value_name = "N", default_value = "64", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) count: u16,
    /// The most memory to use for data, in bytes; beyond it the process aborts.
    #[arg(long, value_name = "BYTES")]
    pub(crate) max_memory: Option<u64>,
}

/// A file of this machine, or a URL and what it takes to fetch it.
#[derive(Debug, clap::Args)]
pub(crate) struct SourceArgs {
    /// The model file.
    #[arg(long, value_name = "PATH", conflicts_with = "artifact_url")]
    #[arg(required_unless_present_any = ["artifact_url", "repository"])]
    artifact: Option<PathBuf>,
    /// Where the artifact is fetched from, if it is not in the cache: http:// or https://. Redirects are followed.
    #[arg(long, value_name = "URL", value_parser = web_url, requires = "artifact_cache")]
    artifact_url: Option<Url>,
    /// A directory that keeps artifacts; any number of workers of a node may share it at once.
    #[arg(long, value_name = "DIR", requires = "artifact_url")]
    artifact_cache: Option<PathBuf>,
    /// How much the cache may hold before what was unused for longest is evicted: 20Gi, 500Mi, or a number of bytes.
    #[arg(long, value_name = "SIZE", requires = "artifact_url")]
    artifact_cache_limit: Option<ByteSize>,
    /// How long nothing may be received before the fetch is given up.
    #[arg(long, value_name = "DURATION", default_value = "5m")]
    artifact_patience: Span,
    /// A file with the bearer token to fetch with. It is read at each attempt: it may be replaced at any time.
    #[arg(long, value_name = "FILE", requires = "artifact_url")]
    token_file: Option<PathBuf>,
    /// Certificates to trust beside the system's (PEM).
    #[arg(long, value_name = "FILE", requires = "artifact_url")]
    ca_file: Option<PathBuf>,
}

/// Where a worker has its artifact from.
#[derive(Debug, Clone)]
pub(crate) enum ArtifactSource {
    File(PathBuf),
    Url(Source),
}

impl SourceArgs {
    /// `None` if nothing was named, which the command line does not let pass.
    pub(crate) fn source(&self) -> Option<ArtifactSource> {
        if let Some(path) = &self.artifact {
            return Some(ArtifactSource::File(path.clone()));
        }
        Some(ArtifactSource::Url(Source {
            url: self.artifact_url.clone()?,
            cache: self.artifact_cache.clone()?,
            limit: self.artifact_cache_limit,
            patience: self.artifact_patience.as_duration(),
            token_file: self.token_file.clone(),
            ca_file: self.ca_file.clone(),
        }))
    }
}

fn web_url(text: &str) -> Result<Url, String> {
    let url: Url = text.parse().map_err(|error| format!("{error}"))?;
    if matches!(url.scheme(), "http" | "https") { Ok(url) } else { Err("use http:// or https://".into()) }
}

/// One model, or a directory of models.
#[derive(Debug, clap::Args)]
pub(crate) struct ServedArgs {
    /// Serve the models of a directory, NAME/VERSION/model.onnx (or model.json for dense, model.pb for tensorflow),
    /// and let whoever reaches this worker load and unload them: for trusted networks only.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["format", "sha256", "model_name", "model_version", "artifact", "artifact_url"])]
    repository: Option<PathBuf>,
    /// The memory that models of the repository may have together: 2Gi, 500Mi. Where it does not suffice, what was
    /// unused for longest is unloaded, and loaded again when it is asked for.
    #[arg(long, value_name = "SIZE", requires = "repository")]
    memory_budget: Option<ByteSize>,
    /// onnx, dense or tensorflow.
    #[arg(long, required_unless_present = "repository")]
    format: Option<Format>,
    /// The digest that the artifact must have.
    #[arg(long, value_name = "HEX", required_unless_present = "repository")]
    sha256: Option<Digest>,
    /// The name that clients call.
    #[arg(long, value_name = "NAME", required_unless_present = "repository")]
    model_name: Option<String>,
    #[arg(long, value_name = "VERSION", required_unless_present = "repository")]
    model_version: Option<String>,
}

/// What is served.
#[derive(Debug, Clone)]
pub(crate) enum Served {
    One { name: String, version: String, format: Format, sha256: Digest, source: Box<ArtifactSource> },
    Repository { dir: PathBuf, memory: Option<ByteSize> },
}

#[derive(Debug, clap::Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    served: ServedArgs,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
    #[command(flatten)]
    source: SourceArgs,
    /// The directory of this worker, which it locks: lock, status.json.
    #[arg(long, value_name = "DIR")]
    pub(crate) instance_dir: PathBuf,
    /// Port 0 takes a free one; status.json says which.
    #[arg(long, default_value = "127.0.0.1:0")]
    pub(crate) listen: SocketAddr,
    /// Serve the protocol over gRPC too, at this address; port 0 as above. The gateway does not need it.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) grpc_listen: Option<SocketAddr>,
    /// How long to wait, after SIGTERM, for requests to end.
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    pub(crate) drain_timeout: Span,
    /// Inferences that run at once; as many as there are cores, if left out.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) threads: Option<u16>,
    /// Requests for one model that wait for a thread; more are answered 429.
    #[arg(long, default_value = "256", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) queue: u16,
    /// How long a request may be expected to wait for a thread; one that would wait longer, or beyond its deadline, is
    /// answered 429.
    #[arg(long, value_name = "DURATION", default_value = "2s")]
    pub(crate) max_wait: Span,
    /// Compute waiting requests together, at most so many rows (their first dimension) at once. Only for models whose
    /// rows do not depend on each other.
    #[arg(long, value_name = "ROWS", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_batch_size: Option<u32>,
    /// How long a request may wait for others to join it; 0ms if left out. It does not wait if none are to be expected.
    #[arg(long, value_name = "DURATION", requires = "max_batch_size")]
    pub(crate) max_batch_delay: Option<Span>,
    /// Inferences on zeros before it is ready; 1 if left out.
    #[arg(long, value_name = "N", default_value = "1")]
    pub(crate) warm_up: u32,
    /// The largest request body, in bytes.
    #[arg(long, value_name = "BYTES", default_value = "67108864")]
    pub(crate) max_body: usize,
    /// What the bodies of all requests in hand may have together; a request beyond it is answered 429.
    #[arg(long, value_name = "SIZE", default_value = "512Mi")]
    pub(crate) max_body_memory: ByteSize,
    /// How long a client may take: for the head of a request and to the next one, for its body to make progress, and to
    /// take its answer.
    #[arg(long, value_name = "DURATION", default_value = "75s")]
    pub(crate) client_timeout: Span,
    /// Connections that may be open; more are answered 503 and closed.
    #[arg(long, default_value = "20000", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_connections: u32,
    /// Threads that serve connections; one for every two cores, if left out.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) io_threads: Option<u16>,
}

impl ServeArgs {
    /// `None` if nothing was named, which the command line does not let pass.
    pub(crate) fn served(&self) -> Option<Served> {
        let ServedArgs { repository, memory_budget, format, sha256, model_name, model_version } = &self.served;
        if let Some(dir) = repository {
            return Some(Served::Repository { dir: dir.clone(), memory: *memory_budget });
        }
        Some(Served::One {
            name: model_name.clone()?,
            version: model_version.clone()?,
            format: (*format)?,
            sha256: (*sha256)?,
            source: Box::new(self.source.source()?),
        })
    }

    pub(crate) fn queue(&self) -> QueueLimits {
        QueueLimits { places: self.queue.into(), wait: self.max_wait.as_duration() }
    }

    pub(crate) fn bodies(&self) -> Bodies {
        Bodies::new(self.max_body, self.client_timeout.as_duration(), self.max_body_memory.bytes())
    }

    pub(crate) fn threads(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        self.threads.map_or_else(cores, usize::from)
    }

    pub(crate) fn io_threads(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        self.io_threads.map_or_else(|| (cores() / 2).max(1), usize::from)
    }

    pub(crate) fn manners(&self) -> Manners {
        let most = usize::try_from(self.max_connections).unwrap_or(usize::MAX);
        Manners { patience: self.client_timeout.as_duration(), most }
    }

    pub(crate) fn batching(&self) -> Option<BatchLimits> {
        let rows = usize::try_from(self.max_batch_size?).unwrap_or(usize::MAX);
        Some(BatchLimits { rows, delay: self.max_batch_delay.unwrap_or_default().as_duration() })
    }
}
