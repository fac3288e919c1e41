//! `bench rollback`: how long until every answer is the old version's again.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use modelyard_api::Client;
use modelyard_api::types::{Bundle, BundleFile, Rollback};
use modelyard_core::state::Phase;
use modelyard_core::{DeploymentName, Digest, RevisionNumber};
use serde::Serialize;

use crate::build::Profile;
use crate::console::Console;
use crate::interrupt::Interrupt;
use crate::load::{Load, Plan, time_to_full_traffic};
use crate::ports;
use crate::stack::{Options, Stack};
use crate::workspace;

#[derive(Debug, Serialize)]
struct RollbackFigures {
    runs: usize,
    p50_ms: f64,
    p99_ms: f64,
    requests_sent: u64,
    requests_lost: u64,
}

const PATIENCE: Duration = Duration::from_secs(60);
/// How long traffic is watched after a rollback for answers that come late from the other version.
const SETTLED_AFTER: Duration = Duration::from_millis(300);

/// The figures, as JSON and in words.
pub(super) async fn measure(runs: u32, console: Console, interrupt: &mut Interrupt) -> Result<(String, Vec<String>)> {
    let state_dir = std::env::temp_dir().join(format!("modelyard-bench-{}", std::process::id()));
    let options = Options {
        state_dir: state_dir.clone(),
        listen: ports::free()?,
        gateway: ports::free()?,
        gateway_grpc: None,
        profile: Profile::Release,
        binaries: None,
        quiet: console.is_quiet(),
    };
    let stack = Stack::start(options, interrupt).await?;
    let measured = tokio::select! {
        measured = rollback(&stack, runs, console) => measured,
        _ = interrupt.wait() => Err(anyhow::anyhow!("interrupted")),
    };
    let stopped = stack.stop().await;
    std::fs::remove_dir_all(&state_dir).ok();
    let (figures, times) = measured?;
    stopped?;
    let words: Vec<_> = times.iter().map(|ms| format!("{ms:.1}")).collect();
    let text = vec![
        format!("rollback to full traffic, ms, sorted: {}", words.join(" ")),
        format!(
            "runs {}   p50 {:.1} ms   p99 {:.1} ms   requests sent {}   lost {}",
            figures.runs, figures.p50_ms, figures.p99_ms, figures.requests_sent, figures.requests_lost
        ),
    ];
    Ok((serde_json::to_string(&figures)?, text))
}

/// Versions 1 and 2 take turns: each rollback goes to the one that is warm.
async fn rollback(stack: &Stack, runs: u32, console: Console) -> Result<(RollbackFigures, Vec<f64>)> {
    let client = Client::new(&stack.server_url(), None, Some("bench".into()));
    let name: DeploymentName = "linear".parse()?;
    for version in ["1", "2"] {
        let revision = apply(&client, version).await?;
        completed(&client, &name, revision).await?;
    }
    let load = Load::start(&Plan {
        gateway: stack.gateway_url(),
        deployment: name.to_string(),
        body: r#"{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[3,4]}]}"#.into(),
        connections: 4,
        requests_per_second: Some(2000),
    })?;
    let mut times = Vec::new();
    for run in 1..=runs {
        let asked = Instant::now();
        let revision = client.rollback(&name, &Rollback::default(), None).await?;
        completed(&client, &name, revision.number).await?;
        tokio::time::sleep(SETTLED_AFTER).await;
        let time = time_to_full_traffic(&load.samples_since(asked), asked, revision.version.as_str());
        let time = time.context("a rollback did not bring all traffic back")?;
        times.push(time.as_secs_f64() * 1000.0);
        console.say(format_args!(
            "{run:>3} of {runs}: {:.1} ms to version {}",
            time.as_secs_f64() * 1000.0,
            revision.version
        ));
    }
    let report = load.stop().await;
    times.sort_by(f64::total_cmp);
    let figures = RollbackFigures {
        runs: times.len(),
        p50_ms: quantile(&times, 0.5),
        p99_ms: quantile(&times, 0.99),
        requests_sent: report.sent,
        requests_lost: report.failed,
    };
    Ok((figures, times))
}

/// The smallest value that the share does not exceed.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a rank among few"
)]
pub(super) fn quantile(sorted: &[f64], share: f64) -> f64 {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or_default()
}

async fn apply(client: &Client, version: &str) -> Result<RevisionNumber> {
    let artifact = format!("linear-{version}.onnx");
    let path = workspace::root().join("manifests/examples").join(&artifact);
    let digest = Digest::of(&std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?);
    client.upload(&path, &digest, |_| {}).await?;
    let text = format!(
        "apiVersion: modelyard.dev/v1\nkind: Model\nmetadata: {{name: linear}}\n---\n\
         apiVersion: modelyard.dev/v1\nkind: ModelVersion\nmetadata: {{name: linear-{version}}}\n\
         spec: {{model: linear, version: \"{version}\", format: onnx, artifact: {{uri: {artifact}}}}}\n---\n\
         apiVersion: modelyard.dev/v1\nkind: ModelDeployment\nmetadata: {{name: linear}}\n\
         spec: {{model: linear, version: \"{version}\", replicas: 1, rollbackWindow: 1h, strategy: {{rolling: {{}}}}}}\n"
    );
    let file = BundleFile { name: "bench.yaml".into(), text, artifacts: [(artifact, digest)].into() };
    let applied = client.apply(&Bundle { files: vec![file] }, false, None).await?;
    applied.documents.iter().find_map(|d| d.revision).context("the answer names no revision")
}

async fn completed(client: &Client, name: &DeploymentName, revision: RevisionNumber) -> Result<()> {
    let began = Instant::now();
    loop {
        let status = client.deployment(name).await?.status;
        if status.is_some_and(|s| s.observed_revision >= revision && s.phase == Phase::Completed) {
            return Ok(());
        }
        ensure!(began.elapsed() < PATIENCE, "revision {revision} was not completed within {} s", PATIENCE.as_secs());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
