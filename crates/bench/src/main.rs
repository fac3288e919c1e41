use clap::Parser as _;

fn main() -> anyhow::Result<()> {
    modelyard_bench::run(modelyard_bench::Cli::parse())
}
