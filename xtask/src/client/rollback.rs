//! `rollback`: a new revision that copies an earlier one.

use modelyard_api::{Client, types};
use modelyard_core::{DeploymentName, RevisionNumber, Span};

use super::follow::{self, Target};
use super::output::Output;

#[derive(Debug, clap::Args)]
pub(crate) struct Rollback {
    name: DeploymentName,
    /// Default: the last revision that served all traffic, other than the latest
    #[arg(long, value_name = "REVISION")]
    to_revision: Option<RevisionNumber>,
    /// Why, for the log
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Wait until the rollback serves all traffic
    #[arg(long)]
    wait: bool,
    /// How long --wait may take
    #[arg(long, default_value = "10m", value_name = "DURATION")]
    timeout: Span,
    /// Refuse if the deployment's latest revision is not this one
    #[arg(long, value_name = "REVISION")]
    if_match: Option<RevisionNumber>,
    #[command(flatten)]
    output: Output,
}

pub(super) async fn run(args: Rollback, client: &Client) -> anyhow::Result<()> {
    let wanted = types::Rollback { to_revision: args.to_revision, reason: args.reason };
    let revision = client.rollback(&args.name, &wanted, args.if_match).await?;
    args.output.show(&revision, || {
        let types::Revision { number, version, cause, .. } = &revision;
        format!("modeldeployment/{} goes back to version {version} (revision {number}: {cause})", args.name)
    })?;
    if args.wait {
        // Somebody's next rollback still brings the older version; only its number is another.
        let target = Target { deployment: args.name, revision: revision.number, rollback_is_success: true };
        follow::until_done(client, vec![target], Some(args.timeout.as_duration())).await?;
    }
    Ok(())
}
