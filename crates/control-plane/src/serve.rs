//! Wires everything, and runs it until a signal.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use modelyard_runtime::Runtime;
use modelyard_store::{Store, StoreError};
use modelyard_tls::ServerTls;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{RwLock, watch};
use tokio_util::sync::CancellationToken;

use crate::access::{Access, AccessError};
use crate::app::{App, now};
use crate::apply::sources::Sources;
use crate::artifacts::Artifacts;
use crate::config::Serve;
use crate::exposures::Kept;
use crate::gateways::Gateways;
use crate::http;
use crate::inspect::{Inspector, bounded_memory};
use crate::kubernetes;
use crate::measurements::Measurements;
use crate::node::Node;
use crate::office::{self, Identity, Term};
use crate::peers::Peers;
use crate::wake::Wake;

/// Between attempts to reach Postgres at the start.
const RETRY: Duration = Duration::from_millis(500);
const GIBIBYTE: u64 = 1 << 30;

/// What every term of office is served with.
pub(crate) struct Means {
    pub(crate) config: Serve,
    pub(crate) store: Store,
    pub(crate) artifacts: Arc<Artifacts>,
}

/// # Errors
/// What keeps it from starting, or from acting although it is in office.
pub async fn run(config: Serve) -> anyhow::Result<()> {
    let tls = ServerTls::load(&config.tls)?;
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("cannot listen on {}: is another control plane running?", config.listen))?;
    let means = prepare(config)?;
    let identity = Identity::of(means.config.identity.as_deref(), &means.config.state_dir)
        .with_context(|| format!("cannot lock the state directory {}", means.config.state_dir.display()))?;
    let advertised = means.config.advertised();
    tracing::info!(listen = %means.config.listen, identity = identity.name, advertised, "control plane starts");
    let node = Arc::new(Node::new(identity.name.clone(), advertised, means.store.clone(), Peers::new(&means.config)?));

    let (stop, office_left) = (CancellationToken::new(), CancellationToken::new());
    tokio::spawn(stop_on_signal(stop.clone()));
    if let Some(tls) = tls.clone() {
        tokio::spawn(tls.keep_current());
    }
    let serving = tokio::spawn(http::serve(listener, tls.clone(), node.clone(), office_left.clone()));
    let served = async {
        migrate(&means.store, &node, &stop).await?;
        let access = access(&means, &node, &stop).await?;
        tokio::spawn(access.clone().keep_current());
        node.admit_by(access);
        office::run(&means, &node, stop).await
    };
    let served = served.await;
    // Until here others were told what is going on; now they are to ask the next.
    office_left.cancel();
    serving.await??;
    served.context("this control plane ends")
}

fn prepare(config: Serve) -> anyhow::Result<Means> {
    std::fs::create_dir_all(&config.state_dir)
        .with_context(|| format!("cannot make the state directory {}", config.state_dir.display()))?;
    let artifacts = Arc::new(match &config.artifacts {
        Some(url) => Artifacts::at_url(url, &config.state_dir).with_context(|| format!("--artifacts {url}"))?,
        None => Artifacts::in_directory(&config.state_dir)?,
    });
    let store = Store::connect(&config.database_url)?;
    Ok(Means { config, store, artifacts })
}

impl Means {
    /// What one term of office works with.
    pub(crate) fn app(
        &self,
        term: Term,
        access: Arc<Access>,
        runtime: Arc<dyn Runtime>,
        wake: Arc<Wake>,
    ) -> anyhow::Result<App> {
        let config = &self.config;
        Ok(App {
            store: self.store.in_term(term.epoch()),
            artifacts: self.artifacts.clone(),
            runtime,
            gateways: Gateways::new(term.epoch()),
            exposures_kept: Kept::default(),
            inspector: Inspector {
                worker_binary: config.worker_binary.clone(),
                timeout: config.inspect_timeout,
                max_memory: bounded_memory(config.inspect_memory * GIBIBYTE),
            },
            measurements: Measurements::new(config.prometheus_url.clone()),
            wake,
            reports: watch::Sender::default(),
            sources: Sources::new(access.asks_for_tokens(), config.file_artifacts.as_deref())?,
            registration: RwLock::new(()),
            access,
            term,
        })
    }
}

/// Who may use the API, as Postgres knows it.
async fn access(means: &Means, node: &Node, stop: &CancellationToken) -> anyhow::Result<Arc<Access>> {
    let (store, config) = (&means.store, &means.config);
    loop {
        match kubernetes::tokens::make_first(&config.kubernetes, store).await {
            Ok(()) => match Access::open(store.clone(), config.listen, &config.access, now()).await {
                Ok(access) => return Ok(Arc::new(access)),
                Err(AccessError::Store(error @ StoreError::Unavailable(_))) => node.database_is_silent(&error),
                Err(error) => return Err(error.into()),
            },
            Err(error) => {
                tracing::warn!("the first tokens cannot be made yet: {error:#}");
                node.wait("the first tokens cannot be made yet: the cluster or the database does not answer");
            }
        }
        tokio::select! {
            () = stop.cancelled() => anyhow::bail!("told to stop while waiting for the database"),
            () = tokio::time::sleep(RETRY) => {}
        }
    }
}

/// Waits for Postgres: it may be starting too.
async fn migrate(store: &Store, node: &Node, stop: &CancellationToken) -> anyhow::Result<()> {
    loop {
        match store.migrate().await {
            Ok(()) => return Ok(()),
            Err(error @ StoreError::Unavailable(_)) => node.database_is_silent(&error),
            Err(error) => return Err(error).context("the schema cannot be brought up to date"),
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(RETRY) => {}
        }
    }
}

async fn stop_on_signal(stop: CancellationToken) {
    let wait = async |kind| match signal(kind) {
        Ok(mut signals) => {
            signals.recv().await;
        }
        Err(_) => std::future::pending().await,
    };
    tokio::select! {
        () = wait(SignalKind::terminate()) => {}
        () = wait(SignalKind::interrupt()) => {}
    }
    tracing::info!("stopping; workers go on running");
    stop.cancel();
}
