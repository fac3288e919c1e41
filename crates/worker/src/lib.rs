//! The worker: one process that serves one model version, or a directory of models, or inspects one artifact.
//!
//! `serve` answers the Open Inference Protocol until it is told to stop; `inspect` loads an artifact once, where a crash
//! hurts nobody, and says what it is; `optimize` makes a smaller copy of one and measures it. The worker asks nobody for anything but the bytes of its artifact, where it was
//! given a URL for them (`fetch`): it knows no control plane, no registry and no bucket. Whether it lives is told by the
//! lock of its instance directory, whether it is ready by HTTP. It writes to that directory and to the artifact cache
//! only, so the rest of its file system may be read-only, and needs no user of its own.
//!
//! Exit codes: 0 done or drained; 1 failed; 2 usage; 3 the artifact is refused (`inspect`, `optimize`); 4 another worker has the
//! instance directory; 5 the model could not be loaded (`serve`). An end by a signal is a crash.

mod artifact;
mod cli;
mod compute;
mod drain;
mod failure;
mod fetch;
mod grpc;
mod http;
mod inspect;
mod lock;
mod metrics;
mod models;
mod optimize;
mod progress;
mod serve;
mod size;
mod status;

use std::process::ExitCode;

pub use cli::Cli;

/// The artifact is refused.
const REFUSED: u8 = 3;
/// Another worker has the instance directory.
const TAKEN: u8 = 4;
/// The model could not be loaded.
const NOT_LOADED: u8 = 5;

/// Failed in a way that has no code of its own.
const FAILED: u8 = 1;

/// Does what the command line says.
pub fn run(cli: Cli) -> ExitCode {
    init_log();
    match cli.command {
        cli::Command::Inspect(args) => inspect::inspect(&args).unwrap_or_else(|error| {
            tracing::error!("{error:#}");
            ExitCode::from(FAILED)
        }),
        cli::Command::Optimize(args) => optimize::optimize(&args).unwrap_or_else(|error| {
            tracing::error!("{error:#}");
            ExitCode::from(FAILED)
        }),
        cli::Command::Serve(args) => {
            serve::serve(*args).unwrap_or_else(|error| failure::end(FAILED, &format!("{error:#}")))
        }
        cli::Command::Linger { time } => {
            std::thread::sleep(time.as_duration());
            ExitCode::SUCCESS
        }
    }
}

/// To stderr, which whoever starts workers sends where it wants; stdout is for results.
fn init_log() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(std::io::stderr).init();
}
