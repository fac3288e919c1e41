//! PostgreSQL, control plane and gateway as processes on this machine: started in order, watched over, ended in the
//! opposite order. What was not started here is not ended here.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use modelyard_postgres_local as postgres;
use modelyard_postgres_local::Cluster;
use tokio::process::Command;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::build::{self, Profile};
use crate::console::Console;
use crate::interrupt::Interrupt;
use crate::leftovers::{self, Lock};
use crate::ports;
use crate::service::{Service, Spec};

const CONTROL_PLANE: &str = "control-plane";
const GATEWAY: &str = "gateway";
pub(crate) const DATABASE: &str = "modelyard";
const PROBE_WITHIN: Duration = Duration::from_secs(2);
const WORKERS_WITHIN: Duration = Duration::from_secs(60);

/// What to start, and where.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// Created if need be. Holds the private PostgreSQL, artifacts, worker state and logs.
    pub(crate) state_dir: PathBuf,
    /// The control plane's address.
    pub(crate) listen: SocketAddr,
    /// The gateway's address.
    pub(crate) gateway: SocketAddr,
    /// Where the gateway serves gRPC, if it does.
    pub(crate) gateway_grpc: Option<SocketAddr>,
    pub(crate) profile: Profile,
    /// The directory of programs that are built already; `None` builds them.
    pub(crate) binaries: Option<PathBuf>,
    pub(crate) quiet: bool,
}

/// A running stack. End it with [`Stack::stop`]; merely dropping it kills the services and leaves workers running.
#[derive(Debug)]
pub(crate) struct Stack {
    options: Options,
    console: Console,
    binaries: PathBuf,
    // Each `Some` from the moment that it has to be ended.
    gateway: Option<Service>,
    control_plane: Option<Service>,
    starting: Option<JoinHandle<Result<Cluster>>>,
    postgres: Option<Cluster>,
    _lock: Lock,
}

impl Stack {
    /// Builds and starts everything, and waits until it is ready. On failure, or when interrupted, all that was
    /// started has been ended again.
    pub(crate) async fn start(mut options: Options, interrupt: &mut Interrupt) -> Result<Self> {
        let console = Console::new(options.quiet);
        let state_dir = &options.state_dir;
        std::fs::create_dir_all(state_dir).with_context(|| format!("cannot create {}", state_dir.display()))?;
        options.state_dir =
            state_dir.canonicalize().with_context(|| format!("cannot resolve {}", state_dir.display()))?;
        let lock = Lock::take(&options.state_dir)?;
        let mut stack = Self {
            console,
            binaries: PathBuf::new(),
            gateway: None,
            control_plane: None,
            starting: None,
            postgres: None,
            _lock: lock,
            options,
        };
        let started = tokio::select! {
            started = stack.bring_up() => started,
            _ = interrupt.wait() => Err(anyhow::anyhow!("interrupted while starting")),
        };
        match started {
            Ok(()) => Ok(stack),
            Err(error) => {
                stack.bring_down().await.context(format!("and before that: {error:#}"))?;
                Err(error)
            }
        }
    }

    /// Ends gateway, control plane, workers and PostgreSQL, in this order, and waits for each.
    pub(crate) async fn stop(mut self) -> Result<()> {
        self.bring_down().await
    }

    /// The base URL of the control plane.
    pub(crate) fn server_url(&self) -> String {
        format!("http://{}", self.options.listen)
    }

    /// The base URL of the gateway.
    pub(crate) fn gateway_url(&self) -> String {
        format!("http://{}", self.options.gateway)
    }

    /// The process ids of what runs now: control plane, gateway, and PostgreSQL if it is ours.
    pub(crate) fn pids(&self) -> Vec<(&'static str, u32)> {
        let services = [(CONTROL_PLANE, &self.control_plane), (GATEWAY, &self.gateway)];
        let mut pids: Vec<_> =
            services.into_iter().filter_map(|(name, service)| Some((name, service.as_ref()?.pid()?))).collect();
        pids.extend(self.postgres.as_ref().and_then(Cluster::pid).map(|pid| ("postgres", pid)));
        pids
    }

    async fn bring_up(&mut self) -> Result<()> {
        for service in [GATEWAY, CONTROL_PLANE] {
            leftovers::end(&self.options.state_dir, service, self.console).await?;
        }
        let listen = self.options.listen;
        ensure!(
            listen.ip().is_loopback(),
            "refusing to listen on {listen}: this is for one machine, where nobody needs a token. Beyond it, see docs/operations.md"
        );
        ports::check(listen, "control plane", "--listen")?;
        ports::check(self.options.gateway, "gateway", "--gateway")?;
        if let Some(address) = self.options.gateway_grpc {
            ports::check(address, "gateway", "--gateway-grpc")?;
        }
        self.binaries = match self.options.binaries.clone() {
            Some(binaries) => binaries,
            None => build::binaries(self.options.profile, self.console).await?,
        };
        let database_url = self.database().await?;
        let http = reqwest::Client::builder().timeout(PROBE_WITHIN).no_proxy().build()?;

        self.console.say("starting the control plane");
        let control_plane = Service::start(self.control_plane_spec(&database_url), self.console)?;
        let ready = format!("{}/readyz", self.server_url());
        self.control_plane.insert(control_plane).ready(&http, &ready).await?;

        self.console.say("starting the gateway");
        let gateway = Service::start(self.gateway_spec(), self.console)?;
        let live = format!("{}/v2/health/live", self.gateway_url());
        self.gateway.insert(gateway).ready(&http, &live).await
    }

    /// `DATABASE_URL`, or the URL of a private server, which is started.
    async fn database(&mut self) -> Result<String> {
        if let Some(url) = std::env::var("DATABASE_URL").ok().filter(|url| !url.is_empty()) {
            self.console.say("using the database that DATABASE_URL names");
            return Ok(url);
        }
        let (dir, console) = (self.options.state_dir.join("postgres"), self.console);
        let start = tokio::task::spawn_blocking(move || {
            let progress = |line: &str| console.say(line);
            let cluster = match Cluster::start(&dir, &postgres::Options { durable: true, progress: &progress }) {
                // We hold the state directory's lock, so its owner is dead.
                Err(postgres::Error::AlreadyRunning { .. }) => Cluster::adopt(&dir)?,
                other => other?,
            };
            cluster.create_database(DATABASE)?;
            Ok(cluster)
        });
        // Kept in `self` while it runs: an interrupt must not lose a server that is about to be there.
        let joined = self.starting.insert(start).await;
        self.starting = None;
        let cluster = joined.context("starting PostgreSQL panicked")??;
        self.console.say(format_args!("using {}", cluster.summary()));
        let url = cluster.url(DATABASE);
        self.postgres = Some(cluster);
        Ok(url)
    }

    fn control_plane_spec(&self, database_url: &str) -> Spec {
        let options = &self.options;
        let args = [
            "serve".into(),
            "--database-url".into(),
            database_url.into(),
            "--listen".into(),
            options.listen.to_string().into(),
            "--state-dir".into(),
            options.state_dir.clone().into(),
            "--worker-binary".into(),
            self.binaries.join("modelyard-worker").into(),
        ];
        self.spec(CONTROL_PLANE, args.into())
    }

    fn gateway_spec(&self) -> Spec {
        let options = &self.options;
        let mut args = vec![
            "--control-plane".into(),
            self.server_url().into(),
            "--listen".into(),
            options.gateway.to_string().into(),
            "--state-dir".into(),
            options.state_dir.join("gateway").into(),
        ];
        if let Some(address) = options.gateway_grpc {
            args.extend(["--grpc-listen".into(), address.to_string().into()]);
        }
        self.spec(GATEWAY, args)
    }

    fn spec(&self, name: &'static str, args: Vec<std::ffi::OsString>) -> Spec {
        let program = self.binaries.join(format!("modelyard-{name}"));
        Spec { name, program, args, state_dir: self.options.state_dir.clone() }
    }

    /// Goes on after a failure, so that one thing that does not end does not keep the others running.
    async fn bring_down(&mut self) -> Result<()> {
        if let Some(gateway) = self.gateway.take() {
            gateway.stop().await;
        }
        let mut problems = Vec::new();
        if let Some(control_plane) = self.control_plane.take() {
            control_plane.stop().await;
            // Workers outlive their daemon by design, so they are ended by a command of their own.
            if let Err(error) = self.stop_workers().await {
                problems.push(format!("{error:#}"));
            }
        }
        if let Some(starting) = self.starting.take() {
            // If it failed there is nothing to stop, and whoever interrupted it does not care why.
            self.postgres = starting.await.ok().and_then(Result::ok);
        }
        if let Some(cluster) = self.postgres.take() {
            let stopped = tokio::task::spawn_blocking(move || cluster.stop()).await.context("stopping panicked");
            if let Err(error) = stopped.and_then(|stopped| Ok(stopped?)) {
                problems.push(format!("{error:#}"));
            }
        }
        if problems.is_empty() { Ok(()) } else { bail!("not everything could be stopped: {}", problems.join("; ")) }
    }

    async fn stop_workers(&self) -> Result<()> {
        let program = self.binaries.join("modelyard-control-plane");
        let mut command = Command::new(&program);
        command.arg("stop-workers").arg("--state-dir").arg(&self.options.state_dir).kill_on_drop(true);
        let output = timeout(WORKERS_WITHIN, command.process_group(0).output()).await;
        let output = output
            .context("stopping the workers took too long")?
            .with_context(|| format!("cannot run {}", program.display()))?;
        if !output.status.success() {
            bail!(
                "stopping the workers failed ({}): {}",
                output.status,
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
