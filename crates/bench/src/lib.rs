//! The parts of `cargo xtask bench` that must not cost more than what they measure: a load (`load`), backends that answer at
//! once (`backend`, `echo`), a control plane that says one thing (`control`), an engine without a server (`engine`). Each runs as a process
//! of its own, on the cores that the bench gives it, and prints its figures as one line of JSON.
//!
//! It decides nothing and compares nothing: that is the bench's business.

mod backend;
mod cli;
mod control;
mod cpu;
mod echo;
mod engine;
mod load;
mod wire;

use anyhow::Context as _;

pub use cli::Cli;

/// Does what the command line says.
///
/// # Errors
/// Where an address is taken, or a server under load cannot be reached at all.
pub fn run(cli: Cli) -> anyhow::Result<()> {
    // One thread: what a process of these costs stays on its core.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    tokio::task::LocalSet::new().block_on(&runtime, async move {
        match cli.command {
            cli::Command::Backend(args) => backend::serve(&args).await,
            cli::Command::Control(args) => control::serve(&args).await,
            cli::Command::Echo { listen } => echo::serve(listen).await,
            cli::Command::Engine(args) => {
                print(&serde_json::to_string(&engine::run(&args)?)?);
                Ok(())
            }
            cli::Command::Load(args) => {
                let figures = load::run(&args).await?;
                print(&serde_json::to_string(&figures)?);
                Ok(())
            }
        }
    })
}

#[expect(clippy::print_stdout, reason = "figures are this program's output")]
fn print(line: &str) {
    println!("{line}");
}
