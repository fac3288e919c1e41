//! The command line of the control plane.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};
use modelyard_core::{NameError, Span};
use modelyard_tls::TlsFiles;

use crate::access::command::TokenCommand;

/// Modelyard's control plane: keeps models and deployments in Postgres, and makes the machine agree with them.
#[derive(Debug, Parser)]
#[command(name = "modelyard-control-plane", version)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run until SIGTERM. Workers go on running, and the next run takes them over.
    Serve(Box<Serve>),
    /// End all workers of a state directory. For when no control plane is going to take them over.
    StopWorkers {
        #[arg(long)]
        state_dir: PathBuf,
        #[arg(long, value_parser = duration, default_value = "10s", value_name = "DURATION")]
        drain_timeout: Duration,
    },
    /// Print the OpenAPI document of the admin API.
    Openapi,
    /// Make, list and revoke tokens of the admin API, in the database itself.
    #[command(subcommand)]
    Token(TokenCommand),
}

#[derive(Debug, clap::Args)]
pub struct Serve {
    /// postgres://USER:PASSWORD@HOST:PORT/NAME
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: String,
    /// The admin API. Beyond loopback it answers to tokens alone.
    #[arg(long, default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// Artifacts and workers are kept here.
    #[arg(long)]
    pub state_dir: PathBuf,
    /// Who this is among several control planes on one database: unique among those that run, and the same after a
    /// restart, which then need not wait for its own lease to run out. By default this machine and its state directory.
    #[arg(long, env = "POD_NAME")]
    pub identity: Option<String>,
    /// Where the other control planes reach this one. By default http:// (with TLS https://) and
    /// the address of --listen.
    #[arg(long, value_name = "URL")]
    pub advertise: Option<String>,
    /// Certificates (PEM) of the authorities that other control planes are trusted by, beside the system's.
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// What the certificates of the other control planes name, where these advertise IP addresses (of pods) instead:
    /// modelyard-control-plane.NAMESPACE.svc, for one.
    #[arg(long, value_name = "NAME")]
    pub peer_name: Option<String>,
    /// Where artifacts are kept instead: s3://BUCKET/PREFIX or gs://BUCKET/PREFIX. Credentials come from the
    /// environment (AWS_*, GOOGLE_*).
    #[arg(long, env = "MODELYARD_ARTIFACTS")]
    pub artifacts: Option<String>,
    /// Where the API asks for tokens: the files below this directory may be registered by file:// even so.
    #[arg(long, value_name = "DIR")]
    pub file_artifacts: Option<PathBuf>,
    #[arg(long)]
    pub worker_binary: PathBuf,
    /// How long a worker may take to finish its requests when it is told to end.
    #[arg(long, value_parser = duration, default_value = "30s", value_name = "DURATION")]
    pub drain_timeout: Duration,
    /// How long loading an artifact may take when it is registered.
    #[arg(long, value_parser = duration, default_value = "2m", value_name = "DURATION")]
    pub inspect_timeout: Duration,
    /// Gibibytes of memory that loading an artifact may take when it is registered; within a container, of what that has
    /// at most, less a quarter of one for the control plane itself.
    #[arg(long, default_value_t = 16)]
    pub inspect_memory: u64,
    /// The Prometheus that gates of analyses ask. Without it such gates wait.
    #[arg(long, value_name = "URL", env = "MODELYARD_PROMETHEUS_URL")]
    pub prometheus_url: Option<url::Url>,
    #[command(flatten)]
    pub kubernetes: crate::kubernetes::Options,
    #[command(flatten)]
    pub access: Access,
    #[command(flatten)]
    pub tls: TlsFiles,
}

/// Who may use the admin API.
#[derive(Debug, Default, clap::Args)]
pub struct Access {
    /// Ask for tokens on loopback too. Beyond loopback they are always asked for.
    #[arg(long)]
    pub require_tokens: bool,
    /// A directory of tokens, such as a mounted Secret: each file is named ROLE or ROLE.NAME (roles: viewer, operator,
    /// admin, gateway), and its content is the token. Read again when it changes.
    #[arg(long, value_name = "DIR")]
    pub bootstrap_tokens: Option<PathBuf>,
}

impl Serve {
    /// Where the other control planes reach this one.
    pub fn advertised(&self) -> String {
        let given = self.advertise.as_deref().map(|url| url.trim_end_matches('/').to_owned());
        let scheme = if self.tls.tls_cert.is_some() { "https" } else { "http" };
        given.unwrap_or_else(|| format!("{scheme}://{}", self.listen))
    }
}

/// `30s`; a bare number is seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let bare = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty();
    let text = if bare { format!("{text}s") } else { text.to_owned() };
    text.parse().map(Span::as_duration).map_err(|error: NameError| error.to_string())
}
