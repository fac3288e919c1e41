//! `delete`: what manifests name, or one thing by kind and name.

use std::path::PathBuf;

use modelyard_api::{Client, ClientError};
use modelyard_core::manifest::Resource;
use modelyard_core::{AliasName, DeploymentName, ModelName, VersionName};

use super::Usage;
use super::manifests::{self, Manifest};
use super::output::{count, say};

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(false).args(["files", "kind"]))]
pub(crate) struct Delete {
    /// Delete what these manifests name, deployments first; what is not there is no failure. May be repeated
    #[arg(short = 'f', long = "filename", value_name = "FILE|DIR|-")]
    files: Vec<PathBuf>,
    /// Also read the directories below a directory
    #[arg(short = 'R', long, requires = "files")]
    recursive: bool,
    #[arg(value_enum, requires = "name")]
    kind: Option<Kind>,
    /// The name; of a version MODEL/VERSION, of an alias MODEL/ALIAS
    name: Option<String>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Kind {
    #[value(alias = "models")]
    Model,
    #[value(aliases = ["versions", "modelversion"])]
    Version,
    #[value(aliases = ["deployments", "modeldeployment"])]
    Deployment,
    #[value(alias = "aliases")]
    Alias,
}

/// Something to delete. In the order in which nothing is in use any more when its turn comes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Victim {
    Deployment(DeploymentName),
    Alias(ModelName, AliasName),
    Version(ModelName, VersionName),
    Model(ModelName),
}

impl std::fmt::Display for Victim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Deployment(name) => write!(f, "modeldeployment/{name}"),
            Self::Alias(model, alias) => write!(f, "alias/{model}/{alias}"),
            Self::Version(model, version) => write!(f, "modelversion/{model}/{version}"),
            Self::Model(name) => write!(f, "model/{name}"),
        }
    }
}

pub(super) async fn run(args: Delete, client: &Client) -> anyhow::Result<()> {
    if let (Some(kind), Some(name)) = (args.kind, &args.name) {
        let victim = named(kind, name)?;
        delete(client, &victim).await?;
        say(format_args!("{victim} deleted"))?;
        return Ok(());
    }
    let victims = victims(&manifests::load(manifests::read(&args.files, args.recursive)?)?);
    let mut refused = 0;
    for victim in &victims {
        match delete(client, victim).await {
            Ok(()) => say(format_args!("{victim} deleted"))?,
            Err(ClientError::Refused(problem)) if problem.status == 404 => say(format_args!("{victim} is not there"))?,
            Err(ClientError::Refused(problem)) => {
                refused += 1;
                say(format_args!("{victim} refused: {}", problem.detail))?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    anyhow::ensure!(refused == 0, "{} of {} refused", refused, count(victims.len(), "deletion"));
    Ok(())
}

async fn delete(client: &Client, victim: &Victim) -> Result<(), ClientError> {
    match victim {
        Victim::Deployment(name) => client.delete_deployment(name).await,
        Victim::Alias(model, alias) => client.drop_alias(model, alias).await,
        Victim::Version(model, version) => client.delete_version(model, version).await,
        Victim::Model(name) => client.delete_model(name).await,
    }
}

fn named(kind: Kind, name: &str) -> Result<Victim, Usage> {
    let usage = |why: &dyn std::fmt::Display| Usage(why.to_string());
    let pair = |what: &str| {
        name.split_once('/').ok_or_else(|| Usage(format!("`{name}` does not name {what}: use MODEL/NAME")))
    };
    Ok(match kind {
        Kind::Model => Victim::Model(name.parse().map_err(|e| usage(&e))?),
        Kind::Deployment => Victim::Deployment(name.parse().map_err(|e| usage(&e))?),
        Kind::Version => {
            let (model, version) = pair("a version")?;
            Victim::Version(model.parse().map_err(|e| usage(&e))?, version.parse().map_err(|e| usage(&e))?)
        }
        Kind::Alias => {
            let (model, alias) = pair("an alias")?;
            Victim::Alias(model.parse().map_err(|e| usage(&e))?, alias.parse().map_err(|e| usage(&e))?)
        }
    })
}

fn victims(manifests: &[Manifest]) -> Vec<Victim> {
    let victim = |resource: &Resource| match resource {
        Resource::Model(m) => Victim::Model(m.name.clone()),
        Resource::ModelVersion(v) => Victim::Version(v.model.clone(), v.version.clone()),
        Resource::ModelDeployment(d) => Victim::Deployment(d.name.clone()),
    };
    let mut victims: Vec<Victim> =
        manifests.iter().flat_map(|m| &m.documents).map(|document| victim(&document.resource)).collect();
    victims.sort();
    victims
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_to_delete() {
        assert_eq!(named(Kind::Version, "linear/2").unwrap().to_string(), "modelversion/linear/2");
        assert_eq!(named(Kind::Alias, "linear/stable").unwrap().to_string(), "alias/linear/stable");
        assert_eq!(named(Kind::Deployment, "linear").unwrap().to_string(), "modeldeployment/linear");
        assert!(named(Kind::Version, "linear").unwrap_err().to_string().contains("MODEL/NAME"));
        assert!(named(Kind::Model, "Linear").is_err());
    }

    #[test]
    fn users_are_deleted_before_what_they_use() {
        let text = "apiVersion: modelyard.dev/v1\nkind: Model\nmetadata: {name: m}\n---\napiVersion: modelyard.dev/v1\nkind: \
                    ModelVersion\nmetadata: {name: v}\nspec: {model: m, version: \"1\", format: onnx, artifact: {uri: \
                    gone.onnx}}\n---\napiVersion: modelyard.dev/v1\nkind: ModelDeployment\nmetadata: {name: d}\nspec: \
                    {model: m, version: \"1\"}\n";
        let source = manifests::Source { name: "f".into(), directory: PathBuf::new(), text: text.into() };
        let names: Vec<String> =
            victims(&manifests::load(vec![source]).unwrap()).iter().map(Victim::to_string).collect();
        assert_eq!(names, ["modeldeployment/d", "modelversion/m/1", "model/m"]);
    }
}
