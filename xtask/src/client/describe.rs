//! `describe`: everything about one thing, for people.

use modelyard_api::Client;
use modelyard_api::types::{Deployment, Revision, Rollout};
use modelyard_core::event::Event;
use modelyard_core::plan::DeploymentReport;
use modelyard_core::{DeploymentName, yaml};

use super::output::{Table, say};
use super::{events, get, render, when};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Describe {
    /// Spec, status, rollout, revisions and recent events of a deployment
    Deployment { name: DeploymentName },
}

/// How many revisions and events are recent.
const RECENT: usize = 10;

pub(super) async fn run(args: Describe, client: &Client) -> anyhow::Result<()> {
    let Describe::Deployment { name } = args;
    let deployment = client.deployment(&name).await?;
    let rollout = client.rollout(&name).await?;
    let revisions = client.revisions(&name).await?;
    let events = client.events(Some(&name), None).await?;
    say(describe(&deployment, &rollout, &revisions, &events)?.trim_end())?;
    Ok(())
}

fn describe(
    deployment: &Deployment,
    rollout: &Rollout,
    revisions: &[Revision],
    events: &[Event],
) -> anyhow::Result<String> {
    let mut s = String::new();
    render::field(&mut s, "name", deployment.name.as_str());
    for (i, (key, value)) in deployment.labels.iter().enumerate() {
        render::field(&mut s, if i == 0 { "labels" } else { "" }, &format!("{key}={value}"));
    }
    render::field(&mut s, "created", &when::clock(deployment.created_at));
    render::field(&mut s, "revision", &format!("{} ({})", deployment.generation, rollout.cause));
    let asked = deployment.spec.version.to_string();
    let resolved = deployment.version.to_string();
    let version = if asked == resolved { resolved } else { format!("{resolved} ({asked})") };
    render::field(&mut s, "version", &format!("{version} of model {}", deployment.spec.model));
    let stable = deployment.stable.map_or_else(|| "none yet".to_owned(), |n| format!("revision {n}"));
    render::field(&mut s, "stable", &stable);
    render::field(&mut s, "outcome", &render::outcome(&rollout.outcome));
    match &deployment.status {
        Some(report) => {
            s += &render::status(report);
            s += &section("variants", &variants(report).to_string());
            s += &section("conditions", &conditions(report).to_string());
        }
        None => render::field(&mut s, "phase", "the control plane has not looked at it yet"),
    }
    if !rollout.verdicts.is_empty() {
        s += &section("verdicts of this rollout", &render::verdicts(&rollout.verdicts).to_string());
    }
    s += &section("spec", &yaml::to_string(&deployment.spec).map_err(anyhow::Error::msg)?);
    let recent = &revisions[..revisions.len().min(RECENT)];
    s += &section("revisions, newest first", &get::revisions(recent).to_string());
    let recent = &events[events.len().saturating_sub(RECENT)..];
    s += &section("last events", &events::table(recent).to_string());
    Ok(s)
}

/// A heading and what is under it, indented.
fn section(heading: &str, text: &str) -> String {
    let lines: String = text.lines().map(|line| format!("  {line}\n")).collect();
    format!("\n{heading}:\n{lines}")
}

fn variants(report: &DeploymentReport) -> Table {
    let mut table =
        Table::new(["VARIANT", "REVISION", "VERSION", "WEIGHT", "READY", "RESTARTS", "WARM UNTIL", "WORKLOAD"]);
    for v in &report.variants {
        table.row([
            v.name.to_string(),
            v.revision.to_string(),
            v.version.to_string(),
            v.weight.to_string(),
            format!("{}/{}", v.ready, v.replicas),
            v.restarts.to_string(),
            v.warm_until.map(when::clock).unwrap_or_default(),
            v.workload.to_string(),
        ]);
    }
    table
}

fn conditions(report: &DeploymentReport) -> Table {
    let mut table = Table::new(["CONDITION", "STATUS", "MESSAGE"]);
    for c in &report.conditions {
        table.row([format!("{:?}", c.kind), c.status.to_string(), c.message.clone()]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::samples;

    #[test]
    fn a_deployment_is_described_whole() {
        let (rollout, revisions, events) = (samples::rollout(), samples::revisions(), samples::events());
        insta::assert_snapshot!(describe(&samples::deployment(), &rollout, &revisions, &events).unwrap());
    }
}
