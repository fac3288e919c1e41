//! `serve`: lock, listen, fetch and verify, load, warm up, be ready; drain at SIGTERM.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use modelyard_core::{Digest, Format};
use modelyard_engine::{Engine, EngineOptions, load, warm_up};
use modelyard_grpc::Door;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::artifact::verify;
use crate::cli::{ArtifactSource, ServeArgs, Served};
use crate::compute::{ComputePool, LaneOptions};
use crate::drain::{End, Traffic};
use crate::fetch::{Cached, fetch};
use crate::grpc;
use crate::http::{self, InProcess, Worker};
use crate::lock::{InstanceLock, LockError};
use crate::metrics::Metrics;
use crate::models::{Loaded, Models, Running};
use crate::progress::{Progress, Stage};
use crate::status::Status;
use crate::{NOT_LOADED, TAKEN, failure};

/// How long connections may take to close once nothing is in flight.
const CLOSING: Duration = Duration::from_secs(1);

/// # Errors
/// If it cannot listen or write its status. A model that is not loaded, or a directory that is taken, has an exit code.
pub(crate) fn serve(args: ServeArgs) -> anyhow::Result<ExitCode> {
    // First of all: two workers must never share a directory.
    let _lock = match InstanceLock::take(&args.instance_dir) {
        Ok(lock) => lock,
        Err(error @ LockError::Taken { .. }) => {
            return Ok(failure::end(TAKEN, &format!("{error}: {}", args.instance_dir.display())));
        }
        Err(error) => return Err(error.into()),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(run(args));
    // A model that is still loading or computing must not hold up the end.
    runtime.shutdown_background();
    done
}

async fn run(args: ServeArgs) -> anyhow::Result<ExitCode> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut stop = std::pin::pin!(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    });

    http::raise_file_limit();
    let (listeners, address) = http::listeners(args.listen, args.io_threads())?;
    let grpc = match args.grpc_listen {
        Some(address) => Some(listen(address).await?),
        None => None,
    };
    let grpc_address = grpc.as_ref().map(|(_, address)| *address);
    let status = Status { pid: std::process::id(), address, grpc_address, started_at: jiff::Timestamp::now() };
    status.write(&args.instance_dir).context("status.json cannot be written")?;
    tracing::info!(%address, ?grpc_address, "listening");

    let served = args.served().context("nothing to serve was named")?;
    let worker = Arc::new(worker(&args, &served)?);
    let (end, ending) = watch::channel(End::NotYet);
    let servers = http::serve(listeners, &worker, args.manners(), &ending).context("no thread to serve with")?;
    let calls = match grpc {
        Some((listener, _)) => {
            let door = Door::new(args.max_body).context("the gRPC services cannot be described")?;
            let rest = InProcess::new(worker.clone());
            tokio::spawn(grpc::serve(listener, Arc::new(door), rest, ending))
        }
        None => tokio::spawn(async {}),
    };

    let limit = args.drain_timeout.as_duration();
    tokio::select! {
        loaded = loaded(args, served, worker.clone()) => match loaded {
            Ok(()) => stop.await,
            Err(error) => {
                return Ok(failure::end(NOT_LOADED, &format!("the model was not loaded: {error:#}")));
            }
        },
        () = &mut stop => {}
    }

    tracing::info!("draining");
    end.send(End::Draining).ok();
    let unanswered = worker.traffic.drain(limit).await;
    if unanswered > 0 {
        tracing::warn!(unanswered, "the time to drain is over");
    } else {
        end.send(End::Closed).ok();
        let closed = tokio::task::spawn_blocking(|| servers.into_iter().for_each(|server| drop(server.join())));
        tokio::time::timeout(CLOSING, async { tokio::join!(closed, calls) }).await.ok();
    }
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

async fn listen(address: SocketAddr) -> anyhow::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

fn worker(args: &ServeArgs, served: &Served) -> anyhow::Result<Worker> {
    let (models, metrics) = match served {
        Served::One { name, version, .. } => (Models::one(name, version), Arc::new(Metrics::new())),
        Served::Repository { dir, memory } => {
            let metrics = Arc::new(Metrics::of_models());
            let running = Running {
                engine: args.engine.options(args.threads()),
                queue: args.queue(),
                batch: args.batching(),
                pool: ComputePool::start(args.threads(), &metrics).context("compute threads cannot be started")?,
                metrics: metrics.clone(),
            };
            (Models::repository(dir, running, memory.map(|memory| memory.0))?, metrics)
        }
    };
    let (bodies, progress, traffic) = (args.bodies(), Progress::new(), Traffic::new());
    Ok(Worker { models, bodies, progress, traffic, metrics })
}

/// Returns when what is served from the start is loaded.
async fn loaded(args: ServeArgs, served: Served, worker: Arc<Worker>) -> anyhow::Result<()> {
    match served {
        Served::One { format, sha256, source, .. } => {
            let runtime = Handle::current();
            let load = move || load_model(&args, format, sha256, *source, &worker, &runtime);
            tokio::task::spawn_blocking(load).await.context("loading ended early")?
        }
        Served::Repository { .. } => {
            let tell = |done, all| worker.progress.set(Stage::Waiting(format!("{done} of {all} models are loaded")));
            worker.models.load_all(tell).await;
            tracing::info!("ready");
            Ok(())
        }
    }
}

/// An artifact that is there and verified.
enum Artifact {
    File(PathBuf),
    Cached(Cached),
}

impl Artifact {
    fn path(&self) -> &Path {
        match self {
            Self::File(path) => path,
            Self::Cached(cached) => cached.path(),
        }
    }
}

fn load_model(
    args: &ServeArgs,
    format: Format,
    sha256: Digest,
    source: ArtifactSource,
    worker: &Worker,
    runtime: &Handle,
) -> anyhow::Result<()> {
    let begun = Instant::now();
    let artifact = match source {
        ArtifactSource::File(path) => {
            worker.progress.set(Stage::Checking);
            verify(&path, sha256)?;
            Artifact::File(path)
        }
        ArtifactSource::Url(source) => Artifact::Cached(fetch(&source, sha256, runtime, &worker.progress)?),
    };
    worker.progress.set(Stage::Loading);
    let fetched = begun.elapsed();
    let optimized = Some(args.instance_dir.join(format!("optimized-{sha256}")));
    let options = EngineOptions { optimized, ..args.engine.options(args.threads()) };
    let engine: Arc<dyn Engine> = Arc::from(load(format, artifact.path(), &options)?);
    for _ in 0..args.warm_up {
        if let Err(error) = warm_up(&*engine) {
            tracing::warn!("the warm-up on zeros failed, which real requests need not: {error}");
            break;
        }
    }
    let (name, details) = (engine.name(), engine.details());
    let pool = ComputePool::start(args.threads(), &worker.metrics).context("compute threads cannot be started")?;
    let lane = pool.lane(LaneOptions { engine, queue: args.queue(), batch: args.batching(), inference: None });
    tracing::info!(engine = name, ?details, threads = args.threads(), ?fetched, elapsed = ?begun.elapsed(), "ready");
    let in_use = match artifact {
        Artifact::File(_) => None,
        Artifact::Cached(cached) => Some(cached),
    };
    let slot = worker.models.only().context("there is no model to be served")?;
    slot.set(Arc::new(Loaded::alone(format, lane, in_use)));
    Ok(())
}
