//! The inference server of one model version; see the library.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    modelyard_worker::run(modelyard_worker::Cli::parse())
}
