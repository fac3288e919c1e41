//! The commands that speak to a running Modelyard: to the control plane's admin API, and (`infer`) to the gateway.
//!
//! One file per verb; each parses its arguments, calls the API and prints. Nothing here decides anything about a
//! rollout: what is printed is what the server says.

mod alias;
mod apply;
mod artifacts;
mod chart;
mod delete;
mod describe;
mod diff;
mod events;
mod experiment;
mod follow;
mod get;
mod history;
mod infer;
mod manifests;
mod output;
mod render;
mod rollback;
mod rollout;
#[cfg(test)]
mod samples;
mod token;
mod when;

use std::io;
use std::process::ExitCode;

use anyhow::Context;
use modelyard_api::{Client, ClientError};

use manifests::Faulty;

/// Where to and as whom; the same for every command.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "For commands that call a running Modelyard")]
struct Connection {
    /// The control plane's admin API
    #[arg(long, global = true, env = "MODELYARD_SERVER", default_value = "http://127.0.0.1:8080", value_name = "URL", value_parser = url)]
    server: String,
    /// The gateway, which `infer` calls
    #[arg(long, global = true, env = "MODELYARD_GATEWAY", default_value = "http://127.0.0.1:8000", value_name = "URL", value_parser = url)]
    gateway: String,
}

fn url(text: &str) -> Result<String, &'static str> {
    let is_http = ["http://", "https://"].iter().any(|scheme| text.strip_prefix(scheme).is_some_and(|h| !h.is_empty()));
    if is_http { Ok(text.to_owned()) } else { Err("use http://HOST:PORT or https://HOST:PORT") }
}

impl Connection {
    fn client(&self) -> anyhow::Result<Client> {
        // The token comes by the environment alone: arguments are visible to everyone on the machine.
        let token = std::env::var("MODELYARD_TOKEN").ok().filter(|token| !token.is_empty());
        Ok(Client::new(&self.server, token, Some(actor().to_string())).with_http(self.http()?))
    }

    /// Trusts what `MODELYARD_CA` names, if anything.
    fn http(&self) -> anyhow::Result<reqwest::Client> {
        let path = std::env::var_os("MODELYARD_CA").filter(|path| !path.is_empty());
        let Some(path) = path else { return Ok(modelyard_api::client::http(None)?) };
        let wrong = || format!("MODELYARD_CA: {}", path.display());
        let pem = std::fs::read(&path).with_context(wrong)?;
        modelyard_api::client::http(Some(&pem)).with_context(wrong)
    }
}

/// A command's arguments, and where to.
#[derive(Debug, clap::Args)]
pub(crate) struct On<A: clap::Args> {
    #[command(flatten)]
    args: A,
    #[command(flatten)]
    connection: Connection,
}

/// The arguments of a command that has commands of its own.
#[derive(Debug, clap::Args)]
pub(crate) struct Pick<S: clap::Subcommand> {
    #[command(subcommand)]
    one: S,
}

#[derive(Debug, clap::Subcommand)]
pub(crate) enum ClientCommand {
    /// Make what manifests say true: register versions, roll deployments
    Apply(On<apply::Apply>),
    /// Show what `apply` would change, without changing it
    Diff(On<diff::Diff>),
    /// Delete what manifests name, or one thing by kind and name
    Delete(On<delete::Delete>),
    /// List models, versions, deployments or revisions
    Get(On<Pick<get::Get>>),
    /// Tell everything about one thing
    Describe(On<Pick<describe::Describe>>),
    /// Watch or drive the rollout of a deployment
    Rollout(On<Pick<rollout::Rollout>>),
    /// Go back to an earlier revision
    Rollback(On<rollback::Rollback>),
    /// List the revisions of a deployment, tell what served at a time, or draw who served when
    History(On<history::History>),
    /// Read an A/B test's figures, or end it
    Experiment(On<Pick<experiment::Experiment>>),
    /// Ask a deployment for an inference, through the gateway
    Infer(On<infer::Infer>),
    /// Show the log of who did what, and what the system decided
    Events(On<events::Events>),
    /// Move or drop an alias of a model
    Alias(On<Pick<alias::Alias>>),
    /// Make, list and revoke tokens of the admin API
    Token(On<Pick<token::Token>>),
}

/// A mistake in the command line that clap cannot see.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Usage(String);

async fn dispatch(command: ClientCommand) -> anyhow::Result<()> {
    match command {
        ClientCommand::Apply(on) => apply::run(on.args, &on.connection.client()?).await,
        ClientCommand::Diff(on) => diff::run(on.args, &on.connection.client()?).await,
        ClientCommand::Delete(on) => delete::run(on.args, &on.connection.client()?).await,
        ClientCommand::Get(on) => get::run(on.args.one, &on.connection.client()?).await,
        ClientCommand::Describe(on) => describe::run(on.args.one, &on.connection.client()?).await,
        ClientCommand::Rollout(on) => rollout::run(on.args.one, &on.connection.client()?).await,
        ClientCommand::Rollback(on) => rollback::run(on.args, &on.connection.client()?).await,
        ClientCommand::History(on) => history::run(on.args, &on.connection.client()?).await,
        ClientCommand::Experiment(on) => experiment::run(on.args.one, &on.connection.client()?).await,
        ClientCommand::Infer(on) => infer::run(on.args, &on.connection.gateway, &on.connection.http()?).await,
        ClientCommand::Events(on) => events::run(on.args, &on.connection.client()?).await,
        ClientCommand::Alias(on) => alias::run(on.args.one, &on.connection.client()?).await,
        ClientCommand::Token(on) => token::run(on.args.one, &on.connection.client()?).await,
    }
}

/// Runs a command to its end: 0 done, 1 refused or failed, 2 usage. Prints what went wrong.
pub(crate) async fn run(command: ClientCommand) -> ExitCode {
    match dispatch(command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Whoever read our output has seen enough (`| head`): no message, but not "done" either.
            if !is_broken_pipe(&error) {
                output::note(failure(&error));
            }
            if error.is::<Usage>() { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let broken = |e: &io::Error| e.kind() == io::ErrorKind::BrokenPipe;
    error.chain().any(|cause| cause.downcast_ref::<io::Error>().is_some_and(broken))
}

/// An error as people read it: problems of manifests one per line, then the sentence.
fn failure(error: &anyhow::Error) -> String {
    let problems = match (error.downcast_ref::<Faulty>(), error.downcast_ref::<ClientError>()) {
        (Some(faulty), _) => faulty.problems(),
        (_, Some(ClientError::Refused(refusal))) => &refusal.errors,
        _ => &[],
    };
    let mut text: String = problems.iter().map(|problem| format!("{problem}\n")).collect();
    text += &format!("error: {error:#}");
    text
}

/// Whom the events name: the user of this machine, as far as the environment tells, in characters that a header takes.
fn actor() -> modelyard_core::Actor {
    let name = ["USER", "LOGNAME"].into_iter().filter_map(|key| std::env::var(key).ok()).find(|name| !name.is_empty());
    let name = name.or_else(owner_of_this_process).unwrap_or_default();
    sanitized(&name)
}

/// Where the environment names nobody (containers, cron).
fn owner_of_this_process() -> Option<String> {
    let uid = rustix::process::getuid().as_raw();
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    Some(user_name(&users, uid).unwrap_or_else(|| format!("uid {uid}")))
}

/// By passwd(5): `name:password:uid:…`.
fn user_name(passwd: &str, uid: u32) -> Option<String> {
    let fields = |line: &'_ str| -> Option<(String, u32)> {
        let mut fields = line.split(':');
        Some((fields.next()?.to_owned(), fields.nth(1)?.parse().ok()?))
    };
    passwd.lines().filter_map(fields).find(|(_, id)| *id == uid).map(|(name, _)| name)
}

fn sanitized(name: &str) -> modelyard_core::Actor {
    let printable = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
    let name: String = name.trim().chars().take(64).map(printable).collect();
    let fallback = || "unknown".parse();
    name.trim().parse().or_else(|_| fallback()).unwrap_or_else(|_| modelyard_core::Actor::system())
}

#[cfg(test)]
mod tests {
    use super::*;
    use modelyard_api::ProblemDetails;
    use modelyard_core::manifest::Problem;

    #[test]
    fn an_actor_is_made_of_any_user_name() {
        assert_eq!(sanitized(" ada ").as_str(), "ada");
        assert_eq!(sanitized("Zoë\n").as_str(), "Zo?");
        assert_eq!(sanitized("").as_str(), "unknown");
        assert_eq!(sanitized(&"x".repeat(500)).as_str().len(), 64);
    }

    #[test]
    fn a_user_is_found_by_id() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\n\nbroken\nada:x:1000:1000::/home/ada:/bin/sh\n";
        assert_eq!(user_name(passwd, 1000).as_deref(), Some("ada"));
        assert_eq!(user_name(passwd, 7), None);
    }

    #[test]
    fn a_refusal_lists_its_problems_before_the_sentence() {
        let problem = Problem {
            file: Some("a.yaml".into()),
            line: Some(7),
            path: "spec.version".into(),
            message: "model linear has no version 9".into(),
        };
        let details = ProblemDetails { detail: "1 problem".into(), errors: vec![problem], ..Default::default() };
        let error = anyhow::Error::from(ClientError::Refused(Box::new(details)));
        assert_eq!(failure(&error), "a.yaml:7: spec.version: model linear has no version 9\nerror: 1 problem");
    }

    #[test]
    fn a_closed_pipe_is_recognised_below_other_errors() {
        let error = anyhow::Error::from(io::Error::from(io::ErrorKind::BrokenPipe)).context("printing");
        assert!(is_broken_pipe(&error));
        assert!(!is_broken_pipe(&anyhow::anyhow!("other")));
    }
}
