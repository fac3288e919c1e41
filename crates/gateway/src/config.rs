//! The command line of the gateway.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use modelyard_core::Span;
use modelyard_tls::TlsFiles;

/// Modelyard's gateway: routes inference requests by the route tables of the control plane, and goes on by the last
/// one when the control plane is gone.
#[derive(Debug, Clone, Parser)]
#[command(name = "modelyard-gateway", version)]
pub struct Config {
    /// The admin API, for route tables and evidence. Several addresses, with commas between, are tried in turn: any
    /// control plane will do, as one that is not in office passes requests on.
    #[arg(long, default_value = "http://127.0.0.1:8080", value_delimiter = ',', value_name = "URL,…")]
    pub control_plane: Vec<String>,
    /// A file with the token for it, of the role `gateway`. Read at each use, so that it may change at any time.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// A PEM file with the certificates to trust at it, instead of the system's. Read at each connection.
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Inference requests bear no tokens: whoever reaches this address may infer.
    #[arg(long, default_value = "127.0.0.1:8000")]
    pub listen: SocketAddr,
    /// Serve the same deployments over gRPC too, at this address: the protocol's port is 8001.
    #[arg(long, value_name = "ADDRESS")]
    pub grpc_listen: Option<SocketAddr>,
    /// The last route table is kept here, for a start without a control plane. Without it, that start waits for one.
    #[arg(long)]
    pub state_dir: Option<PathBuf>,
    /// Threads that serve; by default one per core.
    #[arg(long)]
    pub threads: Option<usize>,
    /// Seconds that a worker may take to answer one try.
    #[arg(long, value_parser = seconds, default_value = "60")]
    pub timeout: Duration,
    /// Bodies up to this many bytes are kept, so that they can be asked again; longer ones stream through.
    #[arg(long, default_value_t = 1 << 20)]
    pub replay_limit: usize,
    /// Bodies with more bytes are refused with 413, and messages over gRPC with RESOURCE_EXHAUSTED.
    #[arg(long, default_value_t = 64 << 20)]
    pub max_body: u64,
    /// Copies of requests that may wait to be mirrored; further ones are dropped and counted.
    #[arg(long, value_name = "REQUESTS", default_value_t = 256)]
    pub mirror_queue: usize,
    /// Bytes of requests and answers that those may hold, with the ones that are being mirrored.
    #[arg(long, value_name = "BYTES", default_value_t = 32 << 20)]
    pub mirror_bytes: usize,
    /// Copies that are asked and compared at a time.
    #[arg(long, value_name = "REQUESTS", default_value_t = 4)]
    pub mirror_tasks: usize,
    /// How long to go on as before after SIGTERM, but not ready: until those who send requests have learned of it.
    #[arg(long, value_name = "DURATION", default_value = "0s")]
    pub linger: Span,
    /// How long to wait, after that, for requests in flight to end.
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    pub drain_timeout: Span,
    #[command(flatten)]
    pub tls: TlsFiles,
}

fn seconds(text: &str) -> Result<Duration, String> {
    text.parse().map(Duration::from_secs).map_err(|_| format!("`{text}` is not a number of seconds"))
}
