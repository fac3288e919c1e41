//! The program's arguments, and what each of its commands prints.

use std::io::Write;
use std::ops::Range;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand, ValueEnum};
use modelyard_simulation::{Effect, Figures, decisions, faults, table};

/// Rollouts of models whose truth is known, through the real planner
#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    /// Rollouts for each version
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Of the random numbers
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Stories in which anything fails, and how often what happened in them
    Faults(FaultsArgs),
}

#[derive(Debug, clap::Args)]
struct FaultsArgs {
    /// The first of them
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How many
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Tells what happens, from its beginning
    #[arg(long)]
    story: bool,
    /// Goes on after a failure, and counts
    #[arg(long)]
    keep_going: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

pub(crate) fn run(args: &Args, out: &mut impl Write) -> Result<()> {
    if let Some(Command::Faults(args)) = &args.command {
        return tell_faults(args, out);
    }
    let rows = decisions(args.runs, args.seed, &Effect::ALL)?;
    match args.output {
        Format::Json => writeln!(out, "{}", serde_json::to_string(&Figures::of(&rows))?)?,
        Format::Text => table(&rows, args.runs, args.seed).iter().try_for_each(|line| writeln!(out, "{line}"))?,
    }
    Ok(())
}

fn tell_faults(args: &FaultsArgs, out: &mut impl Write) -> Result<()> {
    let seeds: Range<u64> = args.seed..args.seed.saturating_add(args.seeds);
    let mut coverage = faults::Coverage::default();
    let mut failed = 0;
    for seed in seeds {
        if args.story {
            faults::story(seed).0.iter().try_for_each(|line| writeln!(out, "{line}"))?;
        }
        match faults::run(seed) {
            Ok(of_seed) => coverage.merge(&of_seed),
            Err(failure) if args.keep_going => {
                failed += 1;
                writeln!(out, "seed {}: {}", failure.seed, failure.property)?;
            }
            Err(failure) => bail!(failure),
        }
    }
    writeln!(out, "{coverage}")?;
    if failed > 0 {
        bail!("{failed} of {} seeds break a property", args.seeds);
    }
    Ok(())
}
