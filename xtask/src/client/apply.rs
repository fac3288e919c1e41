//! `apply`: manifests to the control plane.

use modelyard_api::Client;
use modelyard_api::types::{Action, Applied, AppliedDocument};
use modelyard_core::{RevisionNumber, Span};

use super::artifacts::{self, Artifacts};
use super::follow::{self, Target};
use super::manifests::{self, Files, Manifest};
use super::output::{note, say};

#[derive(Debug, clap::Args)]
pub(crate) struct Apply {
    #[command(flatten)]
    files: Files,
    /// Only say what would happen
    #[arg(long)]
    dry_run: bool,
    /// Wait until every deployment serves what was applied
    #[arg(long, conflicts_with = "dry_run")]
    wait: bool,
    /// How long --wait may take
    #[arg(long, default_value = "10m", value_name = "DURATION")]
    timeout: Span,
    /// Refuse if a deployment's latest revision is not this one
    #[arg(long, value_name = "REVISION")]
    if_match: Option<RevisionNumber>,
}

pub(super) async fn run(args: Apply, client: &Client) -> anyhow::Result<()> {
    let applied = send(&args.files, args.dry_run, args.if_match, client).await?;
    for warning in &applied.warnings {
        note(format_args!("warning: {warning}"));
    }
    say(report(&applied).trim_end())?;
    if args.wait {
        follow::until_done(client, targets(&applied)?, Some(args.timeout.as_duration())).await?;
    }
    Ok(())
}

/// Manifests and the artifacts beside them, all checked.
pub(super) async fn prepare(files: &Files) -> anyhow::Result<(Vec<Manifest>, Artifacts)> {
    let (manifests, mut problems) = manifests::parse(files.read()?);
    let artifacts = artifacts::hash(&manifests, &mut problems).await;
    manifests::refuse(problems, &manifests)?;
    anyhow::ensure!(manifests.iter().any(|m| !m.documents.is_empty()), "there is no document in what was given");
    Ok((manifests, artifacts))
}

/// Uploads what is missing (unless it is a dry run), and applies.
async fn send(
    files: &Files,
    dry_run: bool,
    if_match: Option<RevisionNumber>,
    client: &Client,
) -> anyhow::Result<Applied> {
    let (manifests, artifacts) = prepare(files).await?;
    if !dry_run {
        artifacts.upload_missing(client).await?;
    }
    Ok(client.apply(&artifacts.bundle(&manifests), dry_run, if_match).await?)
}

/// What was done to each document, then the plan.
fn report(applied: &Applied) -> String {
    let dry = if applied.dry_run { " (dry run)" } else { "" };
    let mut text: String = applied.documents.iter().map(|d| format!("{}{dry}\n", outcome(d))).collect();
    for line in &applied.plan {
        text += &format!("  {line}\n");
    }
    if is_unchanged(applied) {
        text += "nothing to change\n";
    }
    text
}

/// `modeldeployment/linear created (revision 1)`
pub(super) fn outcome(document: &AppliedDocument) -> String {
    let AppliedDocument { kind, name, action, .. } = document;
    let revision = document.revision.map_or_else(String::new, |n| format!(" (revision {n})"));
    format!("{}/{name} {}{revision}", kind.to_lowercase(), action.as_str())
}

pub(super) fn is_unchanged(applied: &Applied) -> bool {
    applied.documents.iter().all(|d| d.action == Action::Unchanged)
}

fn targets(applied: &Applied) -> anyhow::Result<Vec<Target>> {
    let deployments = applied.documents.iter().filter(|d| d.kind == "ModelDeployment");
    let target = |(document, revision): (&AppliedDocument, RevisionNumber)| {
        Ok(Target { deployment: document.name.parse()?, revision, rollback_is_success: false })
    };
    deployments.filter_map(|d| d.revision.map(|revision| (d, revision))).map(target).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn applied(dry_run: bool, action: &str, plan: &[&str]) -> Applied {
        let documents = json!([
            {"kind": "Model", "name": "linear", "action": "unchanged"},
            {"kind": "ModelDeployment", "name": "linear", "file": "a.yaml", "action": action, "revision": 2}
        ]);
        let applied = json!({"dryRun": dry_run, "documents": documents, "plan": plan, "data": {}, "warnings": []});
        serde_json::from_value(applied).unwrap()
    }

    #[test]
    fn documents_are_reported_before_the_plan() {
        assert_eq!(
            report(&applied(true, "updated", &["linear: start 2 workers of version 2"])),
            "model/linear unchanged (dry run)\nmodeldeployment/linear updated (revision 2) (dry run)\n  linear: start 2 workers \
             of version 2\n"
        );
    }

    #[test]
    fn applying_the_same_twice_says_so() {
        assert_eq!(
            report(&applied(false, "unchanged", &[])),
            "model/linear unchanged\nmodeldeployment/linear unchanged (revision 2)\nnothing to change\n"
        );
    }

    #[test]
    fn every_applied_deployment_is_waited_for() {
        let targets = targets(&applied(false, "unchanged", &[])).unwrap();
        assert_eq!(targets.len(), 1, "a model has no rollout");
        assert_eq!((targets[0].deployment.as_str(), targets[0].revision), ("linear", RevisionNumber(2)));
    }
}
