//! `bench decisions`: how often rollouts are decided rightly, on models with a known truth. The simulation is a program
//! of its own, since it needs the planner; it prints the figures itself.

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

use crate::build::{self, Profile};
use crate::console::Console;

/// Builds the simulation with optimisations, runs it, and returns what it printed.
pub(super) async fn measure(runs: u32, seed: u64, as_json: bool, console: Console) -> Result<String> {
    console.say(format_args!("building the simulation, then {runs} rollouts for each of 6 versions: some minutes"));
    let program = build::simulation(Profile::Release).await?;
    let format = if as_json { "json" } else { "text" };
    let output = Command::new(program)
        .args(["--runs", &runs.to_string(), "--seed", &seed.to_string(), "--output", format])
        .kill_on_drop(true)
        .output()
        .await
        .context("cannot run the simulation")?;
    ensure!(output.status.success(), "the simulation failed: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
}
