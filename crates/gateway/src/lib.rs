//! The gateway: the data plane, a process of its own.
//!
//! It follows versioned route tables (`control_link`), and for each request chooses a variant (`choose`) and a backend
//! (`pick`), asks it, and another one where that is safe (`forward`, `ask`). Some requests it asks of another variant
//! afterwards (`mirror`), to tell how the answers differ (`compare`). It counts what it sees (`counters`) and reports it
//! back. It makes no decision about rollouts, and needs neither the control plane nor Postgres to go on serving.
//!
//! TF Serving's and TorchServe's paths lead the same way; what of them is told without a worker is in `v1`.
//!
//! Over gRPC (`grpc_server`) it serves the same by the same path: a call is turned into a request of the REST form.
//!
//! One runtime per core with its own listener and connections (`http_server`, `pool`): requests never cross threads.
//! What threads share is read through `arc-swap` or counted in atomics; no request takes a lock.

mod answer;
mod ask;
mod backend;
mod choose;
mod compare;
mod config;
mod control_link;
mod control_planes;
mod counters;
mod credentials;
mod downstream;
mod forward;
mod grpc_server;
mod http_server;
mod metrics;
mod mirror;
mod own;
mod pick;
mod pool;
mod shared;
mod table;
mod timers;
mod upstream;
mod v1;

use std::sync::Arc;

use anyhow::Context;
use modelyard_tls::ServerTls;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

pub use config::Config;

use crate::control_link::ControlLink;
use crate::shared::Shared;

/// Runs until SIGTERM or SIGINT, then finishes what is in flight.
///
/// # Errors
/// What keeps it from starting.
pub fn run(config: Config) -> anyhow::Result<()> {
    let tls = ServerTls::load(&config.tls)?;
    let (mirror, jobs) = mirror::queue(&config);
    let shared = Arc::new(Shared::new(&config, tls.clone(), mirror));
    let mut link = ControlLink::new(&config, shared.clone())?;
    link.load_last_table();
    let (stop, stopping) = watch::channel(false);
    let mut servers = http_server::start(&config, &shared, &stopping)?;
    servers.push(mirror::start(jobs, config.mirror_tasks, &shared, &stopping).context("no thread to mirror with")?);
    tracing::info!(listen = %config.listen, "gateway serves");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    runtime.block_on(async {
        if let Some(tls) = tls {
            tokio::spawn(tls.keep_current());
        }
        let mut following = Box::pin(link.run());
        tokio::select! {
            () = &mut following => {}
            signalled = signalled() => signalled?,
        }
        // Tables go on to be followed, and evidence to be reported, until the last request is answered.
        shared.stop();
        tracing::info!(linger = %config.linger, "stopping: no longer ready");
        tokio::time::timeout(config.linger.as_duration(), &mut following).await.ok();
        tracing::info!("stopping: finishing what is in flight");
        stop.send(true).ok();
        let ended = tokio::task::spawn_blocking(move || servers.into_iter().for_each(|server| drop(server.join())));
        tokio::select! {
            () = following => {}
            _ = ended => {}
        }
        link.take_leave().await;
        anyhow::Ok(())
    })
}

async fn signalled() -> std::io::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
