//! The command line. Values are parsed here, once.

use std::net::SocketAddr;
use std::path::PathBuf;

use modelyard_core::{Digest, Format, Span};
use modelyard_engine::EngineOptions;

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
    /// Serve the Open Inference Protocol until SIGTERM.
    Serve(ServeArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct ArtifactArgs {
    /// The model file.
    #[arg(long, value_name = "PATH")]
    pub(crate) artifact: PathBuf,
    /// onnx, dense or tensorflow.
    #[arg(long)]
    pub(crate) format: Format,
    /// The digest that the file must have.
    #[arg(long, value_name = "HEX")]
    pub(crate) sha256: Digest,
    /// The library of ONNX Runtime (libonnxruntime.so); ORT_DYLIB_PATH is read too. Without it, ONNX models run on rten.
    #[arg(long, value_name = "PATH", env = "MODELYARD_ONNXRUNTIME")]
    pub(crate) onnxruntime: Option<PathBuf>,
}

impl ArtifactArgs {
    pub(crate) fn engine(&self, parallelism: usize) -> EngineOptions {
        let set = |path: &PathBuf| !path.as_os_str().is_empty();
        let common = || std::env::var_os("ORT_DYLIB_PATH").map(PathBuf::from).filter(set);
        EngineOptions { onnxruntime: self.onnxruntime.clone().filter(set).or_else(common), parallelism }
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct InspectArgs {
    #[command(flatten)]
    pub(crate) artifact: ArtifactArgs,
    /// The most address space to use, in bytes; beyond it the process aborts.
    #[arg(long, value_name = "BYTES")]
    pub(crate) max_memory: Option<u64>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) artifact: ArtifactArgs,
    /// The directory of this worker, which it locks: lock, status.json.
    #[arg(long, value_name = "DIR")]
    pub(crate) instance_dir: PathBuf,
    /// The name that clients call.
    #[arg(long, value_name = "NAME")]
    pub(crate) model_name: String,
    #[arg(long, value_name = "VERSION")]
    pub(crate) model_version: String,
    /// Port 0 takes a free one; status.json says which.
    #[arg(long, default_value = "127.0.0.1:0")]
    pub(crate) listen: SocketAddr,
    /// How long to wait, after SIGTERM, for requests to end.
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    pub(crate) drain_timeout: Span,
    /// Inferences that run at once; as many as there are cores, if left out.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) threads: Option<u16>,
    /// Requests that wait for a thread; more are answered 429.
    #[arg(long, default_value = "256", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) queue: u16,
    /// The largest request body, in bytes.
    #[arg(long, value_name = "BYTES", default_value = "67108864")]
    pub(crate) max_body: usize,
}

impl ServeArgs {
    pub(crate) fn threads(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        self.threads.map_or_else(cores, usize::from)
    }
}
