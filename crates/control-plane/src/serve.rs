//! Wires everything, and runs it until a signal.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use modelyard_runtime::Runtime;
use modelyard_runtime_local::{LocalConfig, LocalRuntime};
use modelyard_store::{Store, StoreError};
use modelyard_tls::ServerTls;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{RwLock, watch};
use tokio_util::sync::CancellationToken;

use crate::access::Access;
use crate::app::{App, now};
use crate::artifacts::Artifacts;
use crate::config::Serve;
use crate::gateways::Gateways;
use crate::inspect::Inspector;
use crate::wake::Wake;
use crate::{http, reconcile, sweep};

/// Between attempts to reach Postgres at the start.
const RETRY: Duration = Duration::from_millis(500);
const GIBIBYTE: u64 = 1 << 30;

/// # Errors
/// What keeps it from starting, or another control plane having taken office.
pub async fn run(config: Serve) -> anyhow::Result<()> {
    let tls = ServerTls::load(&config.tls)?;
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("cannot listen on {}: is another control plane running?", config.listen))?;
    let app = Arc::new(assemble(&config).await?);
    let stop = CancellationToken::new();
    tokio::spawn(stop_on_signal(stop.clone()));
    tokio::spawn(sweep::run(app.clone()));
    tokio::spawn(app.access.clone().keep_current());
    if let Some(tls) = tls.clone() {
        tokio::spawn(tls.keep_current());
    }
    let serving = tokio::spawn(http::serve(listener, tls, app.clone(), stop.clone()));
    tracing::info!(listen = %config.listen, epoch = %app.epoch, "control plane in office");
    let reconciled = reconcile::run(app, stop.clone()).await;
    stop.cancel();
    serving.await??;
    reconciled.context("this control plane ends")
}

async fn assemble(config: &Serve) -> anyhow::Result<App> {
    std::fs::create_dir_all(&config.state_dir)
        .with_context(|| format!("cannot make the state directory {}", config.state_dir.display()))?;
    let artifacts = Arc::new(match &config.artifacts {
        Some(url) => Artifacts::at_url(url, &config.state_dir).with_context(|| format!("--artifacts {url}"))?,
        None => Artifacts::in_directory(&config.state_dir)?,
    });
    let store = Store::connect(&config.database_url)?;
    migrate(&store).await?;
    let access = Arc::new(Access::open(store.clone(), config.listen, &config.access, now()).await?);
    let epoch = store.take_office().await?;
    let runtime: Arc<dyn Runtime> = LocalRuntime::open(
        LocalConfig {
            drain_timeout: config.drain_timeout,
            ..LocalConfig::new(config.state_dir.clone(), config.worker_binary.clone())
        },
        artifacts.clone(),
    )
    .await?;
    Ok(App {
        epoch,
        store,
        access,
        artifacts,
        runtime,
        gateways: Gateways::new(epoch),
        inspector: Inspector {
            worker_binary: config.worker_binary.clone(),
            timeout: config.inspect_timeout,
            max_memory: config.inspect_memory * GIBIBYTE,
        },
        wake: Wake::default(),
        reports: watch::Sender::default(),
        http: reqwest::Client::builder().connect_timeout(Duration::from_secs(10)).build()?,
        registration: RwLock::new(()),
    })
}

/// Waits for Postgres: it may be starting too.
async fn migrate(store: &Store) -> anyhow::Result<()> {
    loop {
        match store.migrate().await {
            Ok(()) => return Ok(()),
            Err(error @ StoreError::Unavailable(_)) => {
                tracing::warn!(%error, "waiting for the database");
                tokio::time::sleep(RETRY).await;
            }
            Err(error) => return Err(error).context("the schema cannot be brought up to date"),
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
