//! `modelyard-simulation`: what `cargo xtask bench decisions` runs; and stories of faults, by their seeds.

mod cli;

use clap::Parser as _;

fn main() -> anyhow::Result<()> {
    cli::run(&cli::Args::parse(), &mut std::io::stdout().lock())
}
