//! `cargo xtask`: the commands of this repository. Only reads the command line; one module per command does the work.

mod bench;
mod build;
mod cli;
mod client;
mod console;
mod debian;
mod demo;
mod fuzz;
mod image;
mod interrupt;
mod kube;
mod leftovers;
mod lint;
mod load;
mod models;
mod ports;
#[cfg(test)]
mod reference;
mod service;
mod stack;
mod test;
mod up;
mod workspace;

use std::process::ExitCode;

use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    match cli::Cli::parse().run().await {
        Ok(code) => code,
        Err(error) => {
            console::complain(&error);
            ExitCode::FAILURE
        }
    }
}
