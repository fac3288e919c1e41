//! `diff`: what `apply` would change, as a difference of specs and as a plan.

use modelyard_api::types::{Action, Deployment};
use modelyard_api::{Client, ClientError};
use modelyard_core::manifest::{DeploymentManifest, Resource};
use modelyard_core::{DeploymentSpec, yaml};
use serde::Serialize;
use similar::TextDiff;

use super::apply;
use super::manifests::Files;
use super::output::{note, say};

#[derive(Debug, clap::Args)]
pub(crate) struct Diff {
    #[command(flatten)]
    files: Files,
}

pub(super) async fn run(args: Diff, client: &Client) -> anyhow::Result<()> {
    let (manifests, artifacts) = apply::prepare(&args.files).await?;
    let applied = client.apply(&artifacts.bundle(&manifests), true, None).await?;
    for warning in &applied.warnings {
        note(format_args!("warning: {warning}"));
    }
    if apply::is_unchanged(&applied) {
        say("no differences")?;
        return Ok(());
    }
    for document in applied.documents.iter().filter(|d| d.action != Action::Unchanged) {
        say(apply::outcome(document))?;
    }
    for manifest in &manifests {
        for document in &manifest.documents {
            let Resource::ModelDeployment(wanted) = &document.resource else { continue };
            let stored = match client.deployment(&wanted.name).await {
                Ok(stored) => Some(stored),
                Err(ClientError::Refused(problem)) if problem.status == 404 => None,
                Err(error) => return Err(error.into()),
            };
            let difference = difference(stored.as_ref(), wanted, &manifest.source.name)?;
            if !difference.is_empty() {
                say(difference.trim_end())?;
            }
        }
    }
    for line in &applied.plan {
        say(format_args!("  {line}"))?;
    }
    Ok(())
}

/// What of a deployment a manifest says.
#[derive(Serialize)]
struct Said<'a> {
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    labels: &'a modelyard_core::deployment::Labels,
    spec: &'a DeploymentSpec,
}

/// Unified; empty where there is none.
fn difference(stored: Option<&Deployment>, wanted: &DeploymentManifest, file: &str) -> anyhow::Result<String> {
    let text = |said: Said<'_>| yaml::to_string(&said).map_err(anyhow::Error::msg);
    let (before, name) = match stored {
        Some(d) => (
            text(Said { labels: &d.labels, spec: &d.spec })?,
            format!("modeldeployment/{} revision {}", d.name, d.generation),
        ),
        None => (String::new(), "nothing".into()),
    };
    let after = text(Said { labels: &wanted.labels, spec: &wanted.spec })?;
    let difference = TextDiff::from_lines(&before, &after);
    Ok(difference.unified_diff().context_radius(3).header(&name, file).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(replicas: u32, label: &str) -> DeploymentManifest {
        let text = format!(
            "apiVersion: modelyard.dev/v1\nkind: ModelDeployment\nmetadata: {{name: linear, labels: {{team: {label}}}}}\n\
             spec:\n  model: linear\n  version: \"2\"\n  replicas: {replicas}\n  strategy:\n    canary:\n      \
             steps: [{{weight: 12.5, hold: 30s}}]\n"
        );
        let documents = modelyard_core::manifest::parse(&text).unwrap();
        let Some(Resource::ModelDeployment(deployment)) = documents.into_iter().next().map(|d| d.resource) else {
            panic!("not a deployment")
        };
        deployment
    }

    fn stored(manifest: &DeploymentManifest) -> Deployment {
        Deployment {
            name: manifest.name.clone(),
            labels: manifest.labels.clone(),
            generation: modelyard_core::RevisionNumber(3),
            spec: manifest.spec.clone(),
            version: "2".parse().unwrap(),
            stable: None,
            created_at: modelyard_core::Timestamp::default(),
            status: None,
        }
    }

    #[test]
    fn a_difference_is_unified_yaml() {
        let before = stored(&manifest(1, "pricing"));
        insta::assert_snapshot!(difference(Some(&before), &manifest(3, "risk"), "linear.yaml").unwrap());
    }

    #[test]
    fn equal_specs_have_none_and_new_ones_are_all_added() {
        let wanted = manifest(1, "pricing");
        assert_eq!(difference(Some(&stored(&wanted)), &wanted, "f").unwrap(), "");
        let added = difference(None, &wanted, "f").unwrap();
        assert!(added.starts_with("--- nothing\n+++ f\n"), "{added}");
        assert!(added.lines().skip(3).all(|line| line.starts_with('+')), "{added}");
    }
}
