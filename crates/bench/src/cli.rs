//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use modelyard_core::Span;
use url::Url;

/// Loads, backends and floors for benches.
#[derive(Debug, clap::Parser)]
#[command(name = "modelyard-bench", version)]
pub struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Answer every request at once with the same body.
    Backend(BackendArgs),
    /// Be the control plane of a gateway, with one route table.
    Control(ControlArgs),
    /// Answer every request with its own body, by hyper alone: the least that a server costs.
    Echo {
        #[arg(long)]
        listen: SocketAddr,
    },
    /// Ask an engine in this process, and print how often it answered.
    Engine(EngineArgs),
    /// Ask as fast as answers come, or at a rate, and print what came of it.
    Load(LoadArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct BackendArgs {
    #[arg(long)]
    pub(crate) listen: SocketAddr,
    /// Of the answer.
    #[arg(long, default_value_t = 200)]
    pub(crate) body_bytes: usize,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ControlArgs {
    #[arg(long)]
    pub(crate) listen: SocketAddr,
    /// The name of the deployment whose traffic is split.
    #[arg(long)]
    pub(crate) deployment: String,
    /// Backends of the version that gets 90 % and of the one that gets 10 %.
    #[arg(long, num_args = 2)]
    pub(crate) backends: Vec<SocketAddr>,
    /// Send the table anew, as a later one, so often.
    #[arg(long)]
    pub(crate) swap_every: Option<Span>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct EngineArgs {
    /// An ONNX model.
    #[arg(long)]
    pub(crate) model: PathBuf,
    /// The library of ONNX Runtime.
    #[arg(long)]
    pub(crate) onnxruntime: Option<PathBuf>,
    #[arg(long, default_value_t = 2)]
    pub(crate) threads: usize,
    /// Asked, but not counted.
    #[arg(long, default_value = "300ms")]
    pub(crate) warm_up: Span,
    #[arg(long = "for", default_value = "2s")]
    pub(crate) time: Span,
    /// A request of the Open Inference Protocol, in JSON.
    #[arg(long)]
    pub(crate) request: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(crate) struct LoadArgs {
    #[arg(long)]
    pub(crate) url: Url,
    #[arg(long, default_value_t = 1)]
    pub(crate) connections: usize,
    /// Asked, but not counted.
    #[arg(long, default_value = "500ms")]
    pub(crate) warm_up: Span,
    #[arg(long = "for", default_value = "3s")]
    pub(crate) time: Span,
    /// Requests a second, of all connections together, due at times that do not wait for answers; without it, each
    /// connection asks again as soon as it has its answer. Latencies are then from when a request was due.
    #[arg(long)]
    pub(crate) rate: Option<f64>,
    /// The file with the body of each request.
    #[arg(long)]
    pub(crate) body: PathBuf,
    /// `name: value`; any number of them.
    #[arg(long)]
    pub(crate) header: Vec<String>,
    /// Answers that take longer are no goodput.
    #[arg(long)]
    pub(crate) deadline: Option<Span>,
    /// Processes whose CPU time and memory are told, with those of their children.
    #[arg(long, value_delimiter = ',')]
    pub(crate) cpu_of: Vec<u32>,
}
