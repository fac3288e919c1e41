//! `get`: lists, and single objects by name.

use modelyard_api::Client;
use modelyard_api::types::{Deployment, Model, Revision, Version};
use modelyard_core::state::Outcome;
use modelyard_core::{DeploymentName, ModelName, RevisionNumber, Timestamp, VersionName};

use super::output::{Output, Table};
use super::{render, when};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Get {
    /// Models, with their aliases
    #[command(alias = "model")]
    Models {
        name: Option<ModelName>,
        #[command(flatten)]
        output: Output,
    },
    /// Versions: of all models, of one, or a single one
    #[command(alias = "version")]
    Versions {
        #[arg(value_name = "MODEL[/VERSION]")]
        of: Option<OfModel>,
        #[command(flatten)]
        output: Output,
    },
    /// Deployments, with what they serve and wait on
    #[command(alias = "deployment")]
    Deployments {
        name: Option<DeploymentName>,
        #[command(flatten)]
        output: Output,
    },
    /// Revisions of a deployment, newest first, or a single one
    #[command(alias = "revision")]
    Revisions {
        #[arg(value_name = "DEPLOYMENT[/NUMBER]")]
        of: OfDeployment,
        #[command(flatten)]
        output: Output,
    },
}

/// `MODEL` or `MODEL/VERSION`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OfModel(ModelName, Option<VersionName>);

impl std::str::FromStr for OfModel {
    type Err = modelyard_core::NameError;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        match s.split_once('/') {
            Some((model, version)) => Ok(Self(model.parse()?, Some(version.parse()?))),
            None => Ok(Self(s.parse()?, None)),
        }
    }
}

/// `DEPLOYMENT` or `DEPLOYMENT/NUMBER`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OfDeployment(DeploymentName, Option<RevisionNumber>);

impl std::str::FromStr for OfDeployment {
    type Err = anyhow::Error;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        match s.split_once('/') {
            Some((name, number)) => Ok(Self(name.parse()?, Some(number.parse()?))),
            None => Ok(Self(s.parse()?, None)),
        }
    }
}

pub(super) async fn run(args: Get, client: &Client) -> anyhow::Result<()> {
    let now = when::now();
    match args {
        Get::Models { name: Some(name), output } => {
            let model = client.model(&name).await?;
            output.show(&model, || models(std::slice::from_ref(&model), now).to_string())
        }
        Get::Models { name: None, output } => output.list("models", &client.models().await?, |m| models(m, now)),
        Get::Versions { of: Some(OfModel(model, Some(version))), output } => {
            let version = client.version(&model, &version).await?;
            output.show(&version, || versions(std::slice::from_ref(&version), now).to_string())
        }
        Get::Versions { of, output } => {
            let list = match of {
                Some(OfModel(model, _)) => client.versions(&model).await?,
                None => {
                    let mut all = Vec::new();
                    for model in client.models().await? {
                        all.extend(client.versions(&model.name).await?);
                    }
                    all
                }
            };
            output.list("versions", &list, |v| versions(v, now))
        }
        Get::Deployments { name: Some(name), output } => {
            let deployment = client.deployment(&name).await?;
            output.show(&deployment, || deployments(std::slice::from_ref(&deployment), now).to_string())
        }
        Get::Deployments { name: None, output } => {
            output.list("deployments", &client.deployments().await?, |d| deployments(d, now))
        }
        Get::Revisions { of: OfDeployment(name, Some(number)), output } => {
            let revision = client.revision(&name, number).await?;
            output.show(&revision, || revisions(std::slice::from_ref(&revision)).to_string())
        }
        Get::Revisions { of: OfDeployment(name, None), output } => {
            output.list("revisions", &client.revisions(&name).await?, revisions)
        }
    }
}

fn models(models: &[Model], now: Timestamp) -> Table {
    let mut table = Table::new(["NAME", "ALIASES", "OWNER", "AGE", "DESCRIPTION"]);
    for model in models {
        let aliases: Vec<String> = model.aliases.iter().map(|a| format!("{}={}", a.alias, a.version)).collect();
        table.row([
            model.name.to_string(),
            aliases.join(","),
            model.owner.clone().unwrap_or_default(),
            when::age(model.created_at, now),
            model.description.clone().unwrap_or_default(),
        ]);
    }
    table
}

fn versions(versions: &[Version], now: Timestamp) -> Table {
    let mut table = Table::new(["MODEL", "VERSION", "FORMAT", "SIZE", "SHA256", "AGE", "INPUTS", "OUTPUTS"]);
    for version in versions {
        let tensors =
            |specs: &[modelyard_core::TensorSpec]| specs.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        table.row([
            version.model.to_string(),
            version.version.to_string(),
            version.format.to_string(),
            indicatif::BinaryBytes(version.size).to_string(),
            version.sha256.short(),
            when::age(version.created_at, now),
            tensors(&version.signature.inputs),
            tensors(&version.signature.outputs),
        ]);
    }
    table
}

fn deployments(deployments: &[Deployment], now: Timestamp) -> Table {
    let mut table = Table::new([
        "NAME",
        "MODEL",
        "VERSION",
        "REVISION",
        "PHASE",
        "READY",
        "WEIGHTS",
        "AGE",
        "TROUBLE",
        "WAITING ON",
    ]);
    for deployment in deployments {
        let status = |of: fn(&modelyard_core::plan::DeploymentReport) -> String| {
            deployment.status.as_ref().map(of).unwrap_or_default()
        };
        table.row([
            deployment.name.to_string(),
            deployment.spec.model.to_string(),
            deployment.version.to_string(),
            deployment.generation.to_string(),
            status(render::progress),
            status(render::ready),
            status(render::weights),
            when::age(deployment.created_at, now),
            status(render::troubles),
            status(|report| report.waiting_on.join("; ")),
        ]);
    }
    table
}

/// Also what `history` shows.
pub(super) fn revisions(revisions: &[Revision]) -> Table {
    let mut table = Table::new(["REVISION", "VERSION", "CREATED", "ACTOR", "SERVED SINCE", "OUTCOME", "CAUSE"]);
    for revision in revisions {
        let outcome = match &revision.outcome {
            // When is in the column beside it.
            Outcome::Completed { .. } => "completed".to_owned(),
            other => other.to_string(),
        };
        table.row([
            revision.number.to_string(),
            revision.version.to_string(),
            when::clock(revision.created_at),
            revision.actor.to_string(),
            revision.served_at.map(when::clock).unwrap_or_default(),
            outcome,
            revision.cause.to_string(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::samples;

    #[test]
    fn deployments_and_revisions_are_tables() {
        let deployment = samples::deployment();
        let now = "2026-11-24T12:00:20Z".parse().unwrap();
        let mut fresh = deployment.clone();
        fresh.status = None;
        insta::assert_snapshot!(format!(
            "{}\n{}",
            deployments(&[deployment, fresh], now),
            revisions(&samples::revisions())
        ));
    }

    #[test]
    fn names_may_carry_what_is_in_them() {
        assert_eq!("linear".parse(), Ok(OfModel("linear".parse().unwrap(), None)));
        assert_eq!("linear/2".parse(), Ok(OfModel("linear".parse().unwrap(), Some("2".parse().unwrap()))));
        assert!("linear/".parse::<OfModel>().is_err());
        assert_eq!("linear/2".parse::<OfDeployment>().unwrap().1, Some(RevisionNumber(2)));
        assert!("linear/two".parse::<OfDeployment>().is_err());
    }
}
