//! `bench history`: a log of many events, asked and verified through the API of a control plane that has it.

use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use modelyard_api::Client;
use modelyard_core::chain::Verifier;
use modelyard_core::{ChainHead, DeploymentName, Timestamp};
use modelyard_postgres_local::{Cluster, Options as PostgresOptions};
use serde::{Deserialize, Serialize};
use tokio::process::Command;

use super::rollback::quantile;
use crate::build::Profile;
use crate::console::Console;
use crate::interrupt::Interrupt;
use crate::ports;
use crate::stack::{DATABASE, Options, Stack};
use crate::workspace;

#[derive(Debug, Serialize)]
struct HistoryFigures {
    events: u64,
    inserts_per_second: f64,
    served_at_queries: usize,
    served_at_p50_ms: f64,
    served_at_p99_ms: f64,
    verify_seconds: f64,
}

/// What `fill_history` says.
#[derive(Debug, Deserialize)]
struct Filled {
    events: u32,
    seconds: f64,
    /// Between two changes of a deployment's weights.
    pause_ms: i64,
    begin_ms: i64,
}

const QUERIES: i64 = 2000;
const DEPLOYMENTS: i64 = 1000;

/// The figures, as JSON and in words.
pub(super) async fn measure(
    events: u32,
    profile: Profile,
    console: Console,
    interrupt: &mut Interrupt,
) -> Result<(String, Vec<String>)> {
    ensure!(
        std::env::var_os("DATABASE_URL").is_none_or(|url| url.is_empty()),
        "this writes into a database of its own: unset DATABASE_URL"
    );
    let state_dir = std::env::temp_dir().join(format!("modelyard-bench-{}", std::process::id()));
    let measured = tokio::select! {
        filled = fill(&state_dir, events, profile, console) => filled,
        _ = interrupt.wait() => Err(anyhow::anyhow!("interrupted")),
    };
    let measured = match measured {
        Ok(filled) => on_stack(&state_dir, &filled, profile, console, interrupt).await,
        Err(error) => Err(error),
    };
    std::fs::remove_dir_all(&state_dir).ok();
    let figures = measured?;
    let text = vec![format!(
        "events {}   written {:.0} per second   served at: p50 {:.2} ms, p99 {:.2} ms of {} queries   verified in {:.1} s",
        figures.events,
        figures.inserts_per_second,
        figures.served_at_p50_ms,
        figures.served_at_p99_ms,
        figures.served_at_queries,
        figures.verify_seconds
    )];
    Ok((serde_json::to_string(&figures)?, text))
}

/// The stack's own database, filled before there is a stack.
async fn fill(state_dir: &Path, events: u32, profile: Profile, console: Console) -> Result<Filled> {
    std::fs::create_dir_all(state_dir)?;
    let dir = state_dir.canonicalize()?.join("postgres");
    let start = move || -> Result<Cluster> {
        let cluster = Cluster::start(&dir, &PostgresOptions { durable: true, progress: &|line| console.say(line) })?;
        cluster.create_database(DATABASE)?;
        Ok(cluster)
    };
    let cluster = tokio::task::spawn_blocking(start).await.context("starting PostgreSQL panicked")??;
    console.say(format_args!("writing {events} events"));
    let mut command = Command::from(workspace::cargo());
    command.args(["run", "--quiet", "--package", "modelyard-store", "--example", "fill_history"]);
    if profile == Profile::Release {
        command.arg("--release");
    }
    command
        .arg("--")
        .arg(events.to_string())
        .env("DATABASE_URL", cluster.url(DATABASE))
        .stderr(Stdio::inherit())
        .kill_on_drop(true);
    let output = command.output().await.context("cannot run fill_history")?;
    tokio::task::spawn_blocking(move || cluster.stop()).await.context("stopping PostgreSQL panicked")??;
    ensure!(output.status.success(), "fill_history failed ({})", output.status);
    serde_json::from_slice(&output.stdout).context("fill_history said something else")
}

async fn on_stack(
    state_dir: &Path,
    filled: &Filled,
    profile: Profile,
    console: Console,
    interrupt: &mut Interrupt,
) -> Result<HistoryFigures> {
    let options = Options {
        state_dir: state_dir.to_owned(),
        listen: ports::free()?,
        gateway: ports::free()?,
        gateway_grpc: None,
        profile,
        binaries: None,
        quiet: console.is_quiet(),
    };
    let stack = Stack::start(options, interrupt).await?;
    let measured = tokio::select! {
        measured = ask(&stack, filled, console) => measured,
        _ = interrupt.wait() => Err(anyhow::anyhow!("interrupted")),
    };
    let stopped = stack.stop().await;
    let figures = measured?;
    stopped?;
    Ok(figures)
}

async fn ask(stack: &Stack, filled: &Filled, console: Console) -> Result<HistoryFigures> {
    let client = Client::new(&stack.server_url(), None, Some("bench".into()));
    let rounds = i64::from(filled.events) / DEPLOYMENTS;
    console.say(format_args!("asking {QUERIES} times what served"));
    let mut times = Vec::new();
    for query in 0..QUERIES {
        // Spread over deployments and years, in no order: steps that are prime to what they go around.
        let name: DeploymentName = format!("d{}", query * 617 % DEPLOYMENTS).parse()?;
        let round = query * 7_919 % rounds;
        let at = filled.begin_ms + round * filled.pause_ms + query % filled.pause_ms;
        let began = Instant::now();
        let served = client.served(&name, Timestamp::from_millis(at)).await?;
        times.push(began.elapsed().as_secs_f64() * 1000.0);
        let revision = served.weights.first().map(|weight| weight.revision.0);
        ensure!(revision == Some(u64::try_from(round + 1)?), "{name} at {at}: {served:?}, not revision {}", round + 1);
    }
    times.sort_by(f64::total_cmp);
    console.say("verifying all events");
    let began = Instant::now();
    let head = client.events_head().await?;
    let (_, events) = client.verify_events(Verifier::new(ChainHead::BEGIN, [head]), |_| {}).await?;
    Ok(HistoryFigures {
        events,
        inserts_per_second: f64::from(filled.events) / filled.seconds,
        served_at_queries: times.len(),
        served_at_p50_ms: quantile(&times, 0.5),
        served_at_p99_ms: quantile(&times, 0.99),
        verify_seconds: began.elapsed().as_secs_f64(),
    })
}
