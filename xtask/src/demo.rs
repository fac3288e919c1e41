//! `demo`: the whole story of the linear model, told while it happens, on a stack of its own.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use modelyard_api::Client;
use modelyard_api::types::{Deployment, Rollback};
use modelyard_core::DeploymentName;
use modelyard_core::state::{Outcome, Phase};
use tokio::process::Command;

use crate::build::Profile;
use crate::console::Console;
use crate::interrupt::Interrupt;
use crate::load::{Load, Plan, time_to_full_traffic};
use crate::ports;
use crate::stack::{Options, Stack};
use crate::workspace;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Build with optimisations: slower to build, faster to answer
    #[arg(long)]
    release: bool,
}

const REQUESTS_PER_SECOND: u32 = 300;
/// For any one chapter of the story.
const PATIENCE: Duration = Duration::from_secs(120);
/// For traffic to show that it stays where a rollback has put it.
const SETTLED_AFTER: Duration = Duration::from_secs(1);

pub(crate) async fn run(args: Args) -> Result<()> {
    let mut interrupt = Interrupt::listen()?;
    let console = Console::new(false);
    let state_dir = std::env::temp_dir().join(format!("modelyard-demo-{}", std::process::id()));
    console.say("Modelyard: the story of a linear model. A stack of its own comes up first; nothing of it stays.\n");
    let options = Options {
        state_dir: state_dir.clone(),
        listen: free_or("127.0.0.1:8080", console)?,
        gateway: free_or("127.0.0.1:8000", console)?,
        gateway_grpc: None,
        profile: if args.release { Profile::Release } else { Profile::Dev },
        binaries: None,
        quiet: false,
    };
    let stack = Stack::start(options, &mut interrupt).await?;
    let story = Story::new(&stack, console);
    let told = tokio::select! {
        told = story.tell() => told,
        _ = interrupt.wait() => Err(anyhow::anyhow!("interrupted")),
    };
    console.say("\nstopping: gateway, control plane, workers, PostgreSQL");
    let stopped = stack.stop().await;
    std::fs::remove_dir_all(&state_dir).ok();
    let ending = told?;
    stopped?;
    console.say(format_args!("\nrequests: {} sent, {} failed", ending.sent, ending.failed));
    console.say(format_args!("rollback: {} ms to full traffic", ending.rollback.as_millis()));
    ensure!(ending.failed == 0, "requests failed: {}", ending.failures.join("; "));
    Ok(())
}

/// The usual port, or any other where that is taken.
fn free_or(usual: &str, console: Console) -> Result<SocketAddr> {
    match TcpListener::bind(usual) {
        Ok(listener) => Ok(listener.local_addr()?),
        Err(_) => {
            let other = ports::free()?;
            console.say(format_args!("{usual} is in use; the demo uses {other}"));
            Ok(other)
        }
    }
}

struct Ending {
    sent: u64,
    failed: u64,
    failures: Vec<String>,
    rollback: Duration,
}

struct Story<'a> {
    stack: &'a Stack,
    console: Console,
    client: Client,
    name: DeploymentName,
}

impl<'a> Story<'a> {
    fn new(stack: &'a Stack, console: Console) -> Self {
        let client = Client::new(&stack.server_url(), None, Some("demo".into()));
        let name = "linear".parse().expect("a valid name");
        Self { stack, console, client, name }
    }

    async fn tell(&self) -> Result<Ending> {
        self.chapter("1. Version 1 goes live: y = x·[1.0, -0.5] + 2.0");
        self.command(&["apply", "-f", &manifest("linear.yaml"), "--wait"]).await?;
        self.command(&["infer", "linear", "--data", "[[3,4]]"]).await?;

        self.chapter("2. Version 2 as a canary, under steady load: 10 % → 50 % → 100 %");
        let load = Load::start(&Plan {
            gateway: self.stack.gateway_url(),
            deployment: self.name.to_string(),
            body: r#"{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[3,4]}]}"#.into(),
            connections: 8,
            requests_per_second: Some(REQUESTS_PER_SECOND),
        })?;
        self.say(format_args!("{REQUESTS_PER_SECOND} requests a second from now on, to the end"));
        self.command(&["apply", "-f", &manifest("rollouts/linear-canary.yaml")]).await?;
        self.watch_canary(&load).await?;

        self.chapter("3. Version 3 loads, and fails on every real request");
        self.command(&["apply", "-f", &manifest("rollouts/linear-bad.yaml")]).await?;
        self.watch_automatic_rollback().await?;

        self.chapter("4. Back to version 1, by command");
        let rollback = self.roll_back(&load).await?;
        self.command(&["history", "linear"]).await?;
        let report = load.stop().await;
        Ok(Ending { sent: report.sent, failed: report.failed, failures: report.failures, rollback })
    }

    /// Prints the split of each step as asked and as measured, until version 2 serves all traffic.
    async fn watch_canary(&self, load: &Load) -> Result<()> {
        self.say("asked      measured");
        let began = Instant::now();
        let mut weight = None;
        let mut since = Instant::now();
        while began.elapsed() < PATIENCE {
            let (deployment, split) = (self.look().await?, load.split_since(since));
            let asked = asked(&deployment, "2");
            if weight.is_some() && weight != asked {
                self.say(row(weight, &split));
            }
            if weight != asked {
                (weight, since) = (asked, Instant::now());
            }
            if is_done(&deployment, "2") {
                tokio::time::sleep(SETTLED_AFTER).await;
                self.say(row(weight, &load.split_since(since)));
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        bail!("the canary did not get to 100 % within {} s", PATIENCE.as_secs())
    }

    async fn watch_automatic_rollback(&self) -> Result<()> {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            let revisions = self.client.revisions(&self.name).await?;
            let bad = revisions.iter().find(|r| r.version.as_str() == "3").context("version 3 was never tried")?;
            if let Outcome::RolledBack { by, reason } = &bad.outcome {
                self.say(format_args!(
                    "the system itself rolled revision {} back (as revision {by}): {reason}",
                    bad.number
                ));
                self.say("its failures reached no caller: the gateway asked the stable version again");
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bail!("version 3 was not rolled back within {} s", PATIENCE.as_secs())
    }

    /// As `cargo xtask rollback linear` does, timed from the moment its request leaves.
    async fn roll_back(&self, load: &Load) -> Result<Duration> {
        self.say("$ cargo xtask rollback linear --reason 'the demo says so'");
        let rollback = Rollback { to_revision: None, reason: Some("the demo says so".into()) };
        let asked = Instant::now();
        let revision = self.client.rollback(&self.name, &rollback, None).await?;
        let version = revision.version.as_str();
        self.say(format_args!("revision {} (version {version}): {}", revision.number, revision.cause));
        tokio::time::sleep(SETTLED_AFTER).await;
        let samples = load.samples_since(asked);
        time_to_full_traffic(&samples, asked, version).context("the rollback did not bring all traffic back")
    }

    async fn look(&self) -> Result<Deployment> {
        Ok(self.client.deployment(&self.name).await?)
    }

    fn chapter(&self, title: &str) {
        self.console.say(format_args!("\n── {title}"));
    }

    fn say(&self, line: impl std::fmt::Display) {
        self.console.say(format_args!("   {line}"));
    }

    /// Runs a command as a person would, and shows it.
    async fn command(&self, arguments: &[&str]) -> Result<()> {
        let shown: Vec<_> =
            arguments.iter().map(|a| if a.contains('[') { format!("'{a}'") } else { (*a).into() }).collect();
        self.say(format_args!("$ cargo xtask {}", shown.join(" ")));
        let output = Command::new(std::env::current_exe()?)
            .args(arguments)
            .current_dir(workspace::root())
            .env("MODELYARD_SERVER", self.stack.server_url())
            .env("MODELYARD_GATEWAY", self.stack.gateway_url())
            .kill_on_drop(true)
            .output()
            .await?;
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            self.say(format_args!("  {line}"));
        }
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "`cargo xtask {}` failed: {complaint}", shown.join(" "));
        Ok(())
    }
}

fn manifest(name: &str) -> String {
    PathBuf::from("manifests/examples").join(name).display().to_string()
}

/// The share of traffic that `version` is asked to have, in per cent.
fn asked(deployment: &Deployment, version: &str) -> Option<f64> {
    let status = deployment.status.as_ref().filter(|s| s.observed_revision == deployment.generation)?;
    let variant = status.variants.iter().find(|v| v.version.as_str() == version)?;
    Some(variant.weight.percent()).filter(|percent| *percent > 0.0)
}

fn is_done(deployment: &Deployment, version: &str) -> bool {
    deployment.version.as_str() == version
        && deployment
            .status
            .as_ref()
            .is_some_and(|s| s.observed_revision == deployment.generation && s.phase == Phase::Completed)
}

fn row(asked: Option<f64>, split: &BTreeMap<String, u64>) -> String {
    let total: u64 = split.values().sum();
    let new = split.get("2").copied().unwrap_or_default();
    #[expect(clippy::cast_precision_loss, reason = "counts of one demo")]
    let measured = 100.0 * new as f64 / total.max(1) as f64;
    format!("{:>5} %    {measured:>5.1} %   ({new} of {total} requests)", asked.unwrap_or_default())
}
