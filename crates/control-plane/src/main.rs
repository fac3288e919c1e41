//! `modelyard-control-plane`

use std::io::IsTerminal as _;

use clap::Parser;
use modelyard_control_plane::config::{Arguments, Command};
use modelyard_control_plane::{access, http, serve};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| "info,sqlx::postgres::notice=warn".into());
    let is_terminal = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(is_terminal).with_writer(std::io::stderr).init();
    match Arguments::parse().command {
        Command::Serve(config) => serve::run(*config).await,
        Command::StopWorkers { state_dir, drain_timeout } => {
            let stopped = modelyard_runtime_local::stop_all(&state_dir, drain_timeout).await?;
            tracing::info!(stopped, "workers ended");
            Ok(())
        }
        Command::Token(command) => access::command::run(command).await,
        Command::Openapi => {
            let document = http::openapi().to_pretty_json()?;
            #[expect(clippy::print_stdout, reason = "the document is this command's result")]
            {
                println!("{document}");
            }
            Ok(())
        }
    }
}
