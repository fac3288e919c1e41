//! `up`: the whole stack in the foreground, until it is interrupted.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Result;

use crate::build::Profile;
use crate::console::Console;
use crate::interrupt::Interrupt;
use crate::stack::{Options, Stack};
use crate::workspace;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where the database, artifacts, worker state and logs are kept [default: .modelyard in the workspace]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// The control plane's address
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// The gateway's address
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8000")]
    gateway: SocketAddr,
    /// The gateway's address for gRPC
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8001")]
    gateway_grpc: SocketAddr,
    /// Build with optimisations: slower to build, faster to answer
    #[arg(long)]
    release: bool,
}

impl Args {
    /// The stack that these arguments ask for.
    pub(crate) fn options(self) -> Options {
        Options {
            state_dir: self.state_dir.unwrap_or_else(|| workspace::root().join(".modelyard")),
            listen: self.listen,
            gateway: self.gateway,
            gateway_grpc: Some(self.gateway_grpc),
            profile: if self.release { Profile::Release } else { Profile::Dev },
            binaries: None,
            quiet: false,
        }
    }
}

pub(crate) async fn run(args: Args) -> Result<()> {
    let mut interrupt = Interrupt::listen()?;
    let options = args.options();
    let logs = options.state_dir.join("logs");
    let stack = Stack::start(options, &mut interrupt).await?;
    let console = Console::new(false);
    console.say(format_args!(
        "
control plane  {}
gateway        {}
logs           {}",
        stack.server_url(),
        stack.gateway_url(),
        logs.display(),
    ));
    for (name, pid) in stack.pids() {
        console.say(format_args!("{name:<14} pid {pid}"));
    }
    let server = match stack.server_url() {
        url if url == "http://127.0.0.1:8080" => String::new(),
        url => format!("  export MODELYARD_SERVER={url}\n"),
    };
    console.say(format_args!(
        "
In another terminal, try:
{server}  cargo xtask apply -f manifests/examples --wait
  cargo xtask get deployments
  cargo xtask infer linear --data '[[3,4]]'

Ctrl-C stops everything.",
    ));
    interrupt.wait().await;
    console.say("\nstopping: gateway, control plane, workers, PostgreSQL");
    stack.stop().await?;
    console.say("stopped");
    Ok(())
}
