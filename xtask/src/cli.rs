//! The command line: which commands there are, and where each is carried out.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::client::{self, ClientCommand};
use crate::{bench, demo, fuzz, image, kube, lint, test, up};

/// Everything one does with this repository.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run PostgreSQL, the control plane and the gateway on this machine until Ctrl-C
    Up(up::Args),
    /// Tell the whole story of a model: canary, automatic rollback, rollback by command
    Demo(demo::Args),
    /// A real Kubernetes for development and tests
    #[command(subcommand)]
    Kube(kube::Command),
    /// Pack the three programs into a container image, without Docker
    Image(image::Args),
    /// Measure
    Bench(bench::Args),
    /// Run all tests, after preparing a database and the models they need
    Test(test::Args),
    /// Throw mutated inputs at every decoder, looking for what breaks its promises
    Fuzz(fuzz::Args),
    /// Check format, clippy, who may depend on whom, file sizes, licenses and advisories
    Lint(lint::Args),
    #[command(flatten)]
    Client(ClientCommand),
}

impl Cli {
    pub(crate) async fn run(self) -> Result<ExitCode> {
        match self.command {
            Command::Client(command) => return Ok(client::run(command).await),
            Command::Up(args) => up::run(args).await?,
            Command::Demo(args) => demo::run(args).await?,
            Command::Kube(command) => kube::run(command)?,
            Command::Image(args) => image::run(args).await?,
            Command::Bench(args) => bench::run(args).await?,
            Command::Test(args) => test::run(args).await?,
            Command::Fuzz(args) => fuzz::run(&args)?,
            Command::Lint(args) => lint::run(&args)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_commands_of_the_contract_are_there() {
        for line in [
            "apply -f linear.yaml -f - --dry-run",
            "apply -f dir --wait --timeout 2m --if-match 3",
            "diff -f linear.yaml",
            "delete -f linear.yaml",
            "delete version linear/2",
            "delete deployment linear --server http://127.0.0.1:1",
            "get models -o json",
            "get versions linear/2 -o yaml",
            "get deployments",
            "get revisions linear",
            "describe deployment linear",
            "rollout status linear --watch",
            "rollout pause linear",
            "rollout resume linear",
            "rollout promote linear --watch",
            "rollout abort linear",
            "rollback linear --to-revision 1 --reason slow --wait",
            "history linear --at -5m",
            "infer linear --data [[3,4]] --version 2 -o json",
            "events --deployment linear --since 2026-11-24T12:00:00Z --follow -o json",
            "events verify",
            "events verify --from 7:0000000000000000000000000000000000000000000000000000000000000000 -o json",
            "events head --server http://127.0.0.1:1",
            "bench history --events 2000 -o json",
            "alias set linear stable 2",
            "alias drop linear stable",
            "fuzz onnx_ml --minutes 1",
            "kube up",
            "kube down",
            "kube stop apiserver --freeze",
            "kube start apiserver",
            "image --debug --load",
            "image --from target/debug",
            "token create --name alice --role operator --expires 12h",
            "token create --role gateway --secret gateway-token --namespace modelyard",
            "token list -o json",
            "token revoke 7",
        ] {
            let parsed = Cli::try_parse_from(std::iter::once("xtask").chain(line.split(' ')));
            assert!(parsed.is_ok(), "{line}: {parsed:?}");
        }
    }

    #[test]
    fn usage_errors_exit_with_2() {
        for line in [
            "apply",
            "delete",
            "delete model",
            "delete -f x model m",
            "get revisions",
            "get models Upper",
            "history l --at noon",
            "token create --role viewer",
            "token create --name a --role root",
            "infer l",
            "events verify --expect 7",
            "events --follow verify",
        ] {
            let parsed = Cli::try_parse_from(std::iter::once("xtask").chain(line.split(' ')));
            assert_eq!(parsed.map_err(|e| e.exit_code()).err(), Some(2), "{line}");
        }
    }
}
