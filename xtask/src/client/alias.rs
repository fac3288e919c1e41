//! `alias`: move or drop a model's alias; the deployments that follow it roll.

use modelyard_api::Client;
use modelyard_core::{AliasName, ModelName, VersionName};

use super::output::{note, say};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Alias {
    /// Point an alias at a version, and roll the deployments that follow it
    Set { model: ModelName, alias: AliasName, version: VersionName },
    /// Remove an alias
    Drop { model: ModelName, alias: AliasName },
}

pub(super) async fn run(args: Alias, client: &Client) -> anyhow::Result<()> {
    match args {
        Alias::Set { model, alias, version } => {
            let moved = client.move_alias(&model, &alias, version).await?;
            let from = moved.previous.map_or_else(String::new, |previous| format!(" (was {previous})"));
            say(format_args!("alias/{model}/{alias} is version {}{from}", moved.version))?;
            for warning in moved.warnings {
                note(format_args!("warning: {warning}"));
            }
            for rolled in moved.rolled {
                say(format_args!("  modeldeployment/{} rolls to revision {}", rolled.deployment, rolled.revision))?;
            }
        }
        Alias::Drop { model, alias } => {
            client.drop_alias(&model, &alias).await?;
            say(format_args!("alias/{model}/{alias} dropped"))?;
        }
    }
    Ok(())
}
