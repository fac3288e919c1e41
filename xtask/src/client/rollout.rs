//! `rollout`: read, pause, resume, promote or abort the walk to the latest revision.

use modelyard_api::{Client, types};
use modelyard_core::{DeploymentName, RevisionNumber};

use super::follow::{self, Target};
use super::output::{Output, say};
use super::render;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Rollout {
    /// Phase, step, weights, verdicts, and what it waits on
    Status {
        #[command(flatten)]
        of: Of,
        #[command(flatten)]
        output: Output,
    },
    /// Take no next step until resumed; a failing analysis still rolls back
    Pause(Drive),
    /// Go on
    Resume(Drive),
    /// Skip the steps that remain
    Promote(Drive),
    /// Give the traffic back to the stable revision
    Abort(Drive),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Of {
    name: DeploymentName,
    /// Follow it until it is done; fail if it is rolled back
    #[arg(long)]
    watch: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Drive {
    #[command(flatten)]
    of: Of,
    /// Refuse if the deployment's latest revision is not this one
    #[arg(long, value_name = "REVISION")]
    if_match: Option<RevisionNumber>,
}

pub(super) async fn run(args: Rollout, client: &Client) -> anyhow::Result<()> {
    let (verb, done, args) = match args {
        Rollout::Status { of, output } => {
            let rollout = client.rollout(&of.name).await?;
            output.show(&rollout, || render::rollout(&rollout))?;
            return if of.watch { watch(client, &rollout, false).await } else { Ok(()) };
        }
        Rollout::Pause(args) => ("pause", "paused", args),
        Rollout::Resume(args) => ("resume", "resumed", args),
        Rollout::Promote(args) => ("promote", "promoted", args),
        Rollout::Abort(args) => ("abort", "aborted", args),
    };
    let rollout = client.drive(&args.of.name, verb, args.if_match).await?;
    say(format_args!("modeldeployment/{} {done} (revision {}: {})", args.of.name, rollout.revision, rollout.cause))?;
    if args.of.watch {
        watch(client, &rollout, verb == "abort").await?;
    }
    Ok(())
}

async fn watch(client: &Client, rollout: &types::Rollout, rollback_is_success: bool) -> anyhow::Result<()> {
    let target = Target { deployment: rollout.deployment.clone(), revision: rollout.revision, rollback_is_success };
    follow::until_done(client, vec![target], None).await
}
