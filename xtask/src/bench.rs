//! `bench`: figures, measured on this machine, on a stack of its own.

mod decisions;
mod figures;
mod gateway;
mod history;
mod process;
mod proxies;
mod reconcile;
mod rollback;
mod worker;

use anyhow::Result;
use clap::ValueEnum;

use crate::build::Profile;
use crate::console::Console;
use crate::interrupt::Interrupt;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[arg(value_enum)]
    what: What,
    /// Of `rollback` [default: 50], of each version of `decisions` [default: 1000], and rounds of `gateway` [default: 5] and `worker` [default: 3]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    runs: Option<u32>,
    /// Of the random numbers of `decisions`
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Of `reconcile`
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=5000))]
    deployments: u32,
    /// Of `history`
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(2000..=100_000_000))]
    events: u32,
    /// Of all but `rollback` and `decisions`: with programs as they are built for development
    #[arg(long)]
    debug: bool,
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// What a request costs the gateway, beside Envoy, nginx and haproxy
    Gateway,
    /// What the worker leaves of the engine's speed, beside MLServer and LitServe
    Worker,
    /// From a rollback's request to the moment from which every answer is the old version's, under load
    Rollback,
    /// From an apply of many deployments to all their objects in a cluster, beside kubectl
    Reconcile,
    /// With so many events: how fast they are written, what served at a time is told, and their chain is verified
    History,
    /// How often rollouts of models with a known truth are decided rightly, and on how many requests
    Decisions,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

pub(crate) async fn run(args: Args) -> Result<()> {
    let mut interrupt = Interrupt::listen()?;
    let quiet = Console::new(args.output == Format::Json);
    let profile = if args.debug { Profile::Dev } else { Profile::Release };
    let (json, text) = match args.what {
        What::Gateway => tokio::select! {
            measured = gateway::measure(args.runs.unwrap_or(5), profile, quiet) => measured?,
            _ = interrupt.wait() => anyhow::bail!("interrupted"),
        },
        What::Worker => tokio::select! {
            measured = worker::measure(args.runs.unwrap_or(3), profile, quiet) => measured?,
            _ = interrupt.wait() => anyhow::bail!("interrupted"),
        },
        What::Rollback => rollback::measure(args.runs.unwrap_or(50), quiet, &mut interrupt).await?,
        What::History => history::measure(args.events, profile, quiet, &mut interrupt).await?,
        What::Reconcile => reconcile::measure(args.deployments, profile, quiet, &mut interrupt).await?,
        What::Decisions => {
            let as_json = args.output == Format::Json;
            let measured = tokio::select! {
                measured = decisions::measure(args.runs.unwrap_or(1000), args.seed, as_json, quiet) => measured?,
                _ = interrupt.wait() => anyhow::bail!("interrupted"),
            };
            Console::new(false).say(measured);
            return Ok(());
        }
    };
    let console = Console::new(false);
    match args.output {
        Format::Json => console.say(json),
        Format::Text => text.iter().for_each(|line| console.say(line)),
    }
    Ok(())
}
