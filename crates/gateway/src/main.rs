//! `modelyard-gateway`

use std::io::IsTerminal as _;

use clap::Parser;

/// A request makes some dozen small allocations, each on the thread that frees it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    let is_terminal = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(is_terminal).with_writer(std::io::stderr).init();
    modelyard_gateway::run(modelyard_gateway::Config::parse())
}
