//! `modelyard-simulation`: what `cargo xtask bench decisions` runs.

use std::io::Write;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use modelyard_simulation::{Effect, Figures, decisions, table};

/// Rollouts of models whose truth is known, through the real planner
#[derive(Debug, Parser)]
struct Args {
    /// Rollouts for each version
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Of the random numbers
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let rows = decisions(args.runs, args.seed, &Effect::ALL)?;
    let mut out = std::io::stdout().lock();
    match args.output {
        Format::Json => writeln!(out, "{}", serde_json::to_string(&Figures::of(&rows))?)?,
        Format::Text => table(&rows, args.runs, args.seed).iter().try_for_each(|line| writeln!(out, "{line}"))?,
    }
    Ok(())
}
