//! `kube`: a real Kubernetes cluster on this machine, for development and tests. It runs detached, until `kube down`.

mod command;
mod components;
mod config;
mod debian;
mod dns;
mod docker;
mod down;
mod iptables;
mod network;
mod pause;
mod pki;
mod process;
mod provider;
mod state;
mod steps;
mod up;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use self::components::Layout;
use self::process::Component;
pub(crate) use self::provider::Provider;
use self::state::State;
use self::steps::Steps;
use crate::console::Console;

const STARTS_WITHIN: Duration = Duration::from_secs(60);

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Make a cluster run: the one of KUBECONFIG, kind or k3d, given programs, or Kubernetes built from Debian's source
    Up,
    /// End the cluster and take away everything that it left, except the programs in the cache
    Down,
    /// Stop one component of a cluster on this machine itself, to see what follows
    Stop {
        /// etcd, apiserver, controller-manager, scheduler, containerd, kubelet, kube-proxy, dnsmasq or dns-follow
        component: String,
        /// Suspend it instead: it exists, but answers nothing
        #[arg(long)]
        freeze: bool,
    },
    /// Start or wake a component that was stopped
    Start {
        /// As for `stop`
        component: String,
    },
    /// Follow services for the cluster's DNS, until killed
    #[command(hide = true)]
    DnsFollow(dns::Args),
}

/// Nothing here waits on more than one thing at a time: all of it blocks.
pub(crate) fn run(command: Command) -> Result<()> {
    let console = Console::new(false);
    let steps = Steps::new(console);
    let state = State::of_this_machine()?;
    match command {
        Command::Up => {
            let (_, kubeconfig) = up::up(&state, steps)?;
            console.say(up::epilogue(&kubeconfig, &state));
            Ok(())
        }
        Command::Down => down::down(&state, steps),
        Command::Stop { component, freeze } => {
            let component = component_named(&state, &component)?;
            match freeze {
                true => component.freeze(&state)?,
                false => component.stop(&state)?,
            }
            console.say(format_args!("{} {}", component.name, if freeze { "is frozen" } else { "has ended" }));
            Ok(())
        }
        Command::Start { component } => {
            let component = component_named(&state, &component)?;
            component.start(&state)?;
            component.wait(&state, STARTS_WITHIN)?;
            console.say(format_args!("{} answers", component.name));
            Ok(())
        }
        Command::DnsFollow(args) => dns::follow(args),
    }
}

/// Whether there is a cluster already: one that was given, or that an earlier `kube up` made.
pub(crate) fn is_up() -> Result<bool> {
    let state = State::of_this_machine()?;
    Ok(Provider::recorded(&state).is_some() || provider::kubeconfig(&state) == provider::Kubeconfig::Answers)
}

/// Whether a kubeconfig is of a cluster whose components `stop` and `start` know, rather than of one that was given.
pub(crate) fn is_of_kube_up(kubeconfig: &Path) -> Result<bool> {
    let state = State::of_this_machine()?;
    let has_components = matches!(Provider::recorded(&state), Some(Provider::Debian | Provider::Binaries(_)));
    Ok(has_components && kubeconfig == state.kubeconfig())
}

/// The way to a cluster that [`ensure_up`] would go. Nothing is started.
pub(crate) fn choose(console: Console) -> Result<Provider> {
    up::choose(&State::of_this_machine()?, Steps::new(console))
}

/// A cluster that runs: one that does, or else a new one. How it was made, and its kubeconfig.
pub(crate) fn ensure_up(console: Console) -> Result<(Provider, PathBuf)> {
    up::up(&State::of_this_machine()?, Steps::new(console))
}

/// How the cluster was made that an earlier `kube up` left running here, if one did.
pub(crate) fn made_here() -> Result<Option<Provider>> {
    Ok(Provider::recorded(&State::of_this_machine()?))
}

/// Runs kubectl as a cluster's administrator.
#[derive(Debug, Clone)]
pub(crate) struct Kubectl {
    kubeconfig: PathBuf,
}

impl Kubectl {
    pub(crate) fn new(kubeconfig: &Path) -> Self {
        Self { kubeconfig: kubeconfig.to_owned() }
    }

    /// The program: the one on the PATH, or else the one that was built with the cluster.
    pub(crate) fn program() -> Result<PathBuf> {
        let on_path = std::env::var_os("PATH")
            .and_then(|paths| std::env::split_paths(&paths).map(|dir| dir.join("kubectl")).find(|path| path.is_file()));
        let built = || debian::cached().map(|bin| bin.join("kubectl")).filter(|path| path.is_file());
        on_path.or_else(built).context("kubectl is not installed, and none was built with the cluster")
    }

    /// What it prints.
    pub(crate) fn run(&self, arguments: &[&str]) -> Result<String> {
        let mut kubectl = std::process::Command::new(Self::program()?);
        kubectl.arg("--kubeconfig").arg(&self.kubeconfig).args(arguments);
        command::output(&mut kubectl)
    }
}

/// Loads an image archive into the nodes of a cluster of this machine that was made in that way.
pub(crate) fn load_image(provider: Option<&Provider>, archive: &Path, console: Console) -> Result<()> {
    let state = State::of_this_machine()?;
    let steps = Steps::new(console);
    let file = archive.display();
    match provider {
        Some(Provider::Kind) => steps.run("loading into kind", || docker::kind_load(archive)),
        Some(Provider::K3d) => steps.run("loading into k3d", || docker::k3d_load(archive)),
        Some(Provider::Debian) => steps.run("loading into the node", || up::import(&state, archive)),
        Some(Provider::Binaries(_)) => bail!("the cluster has no node to load {file} into"),
        Some(Provider::Given) | None => {
            bail!("`kube up` has made no cluster here: push {file} to where your cluster pulls from")
        }
    }
}

fn component_named(state: &State, name: &str) -> Result<Component> {
    let layout = match Provider::recorded(state) {
        Some(Provider::Debian) => debian::cached().map(|bin| Layout { bin, node: true }),
        Some(Provider::Binaries(bin)) => Some(Layout { bin, node: false }),
        _ => None,
    };
    let layout =
        layout.context("there is no cluster of components on this machine: `cargo xtask kube up` starts one")?;
    let components = layout.components(state)?;
    let names: Vec<_> = components.iter().map(|component| component.name).collect();
    let unknown = format!("there is no component {name}: there are {}", names.join(", "));
    components.into_iter().find(|component| component.name == name).context(unknown)
}
