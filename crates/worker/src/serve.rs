//! `serve`: lock, listen, fetch and verify, load, warm up, be ready; drain at SIGTERM.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use modelyard_engine::{Engine, EngineOptions, load, warm_up};
use modelyard_grpc::Door;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};

use crate::artifact::verify;
use crate::cli::{ArtifactSource, ServeArgs};
use crate::compute::ComputePool;
use crate::fetch::{Cached, fetch};
use crate::grpc::{self, End};
use crate::http::{self, InProcess, Loaded, Worker};
use crate::lock::{InstanceLock, LockError};
use crate::progress::Stage;
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

    let (listener, address) = listen(args.listen).await?;
    let grpc = match args.grpc_listen {
        Some(address) => Some(listen(address).await?),
        None => None,
    };
    let grpc_address = grpc.as_ref().map(|(_, address)| *address);
    let status = Status { pid: std::process::id(), address, grpc_address, started_at: jiff::Timestamp::now() };
    status.write(&args.instance_dir).context("status.json cannot be written")?;
    tracing::info!(%address, ?grpc_address, model = args.model_name, version = args.model_version, "listening");

    let worker = Arc::new(Worker::new(&args));
    let (close, closed) = oneshot::channel::<()>();
    let server = tokio::spawn(http::serve(listener, worker.clone(), async move { closed.await.unwrap_or(()) }));
    let (end, ending) = watch::channel(End::NotYet);
    let calls = match grpc {
        Some((listener, _)) => {
            let door = Door::new(args.max_body).context("the gRPC services cannot be described")?;
            let rest = InProcess::new(worker.clone());
            tokio::spawn(grpc::serve(listener, Arc::new(door), rest, ending))
        }
        None => tokio::spawn(async {}),
    };

    let limit = args.drain_timeout.as_duration();
    let loading = tokio::task::spawn_blocking({
        let (worker, runtime) = (worker.clone(), Handle::current());
        move || load_model(&args, &worker, &runtime)
    });
    tokio::select! {
        loaded = loading => match loaded.context("loading ended early").and_then(|loaded| loaded) {
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
        close.send(()).ok();
        end.send(End::Closed).ok();
        tokio::time::timeout(CLOSING, async { tokio::join!(server, calls) }).await.ok();
    }
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

async fn listen(address: SocketAddr) -> anyhow::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    let address = listener.local_addr()?;
    Ok((listener, address))
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

fn load_model(args: &ServeArgs, worker: &Worker, runtime: &Handle) -> anyhow::Result<()> {
    let begun = Instant::now();
    let model = &args.model;
    let artifact = match args.source.source().context("no artifact was named")? {
        ArtifactSource::File(path) => {
            worker.progress.set(Stage::Checking);
            verify(&path, model.sha256)?;
            Artifact::File(path)
        }
        ArtifactSource::Url(source) => Artifact::Cached(fetch(&source, model.sha256, runtime, &worker.progress)?),
    };
    worker.progress.set(Stage::Loading);
    let fetched = begun.elapsed();
    let optimized = Some(args.instance_dir.join(format!("optimized-{}", model.sha256)));
    let options = EngineOptions { optimized, ..model.engine(args.threads()) };
    let engine: Arc<dyn Engine> = Arc::from(load(model.format, artifact.path(), &options)?);
    for _ in 0..args.warm_up {
        if let Err(error) = warm_up(&*engine) {
            tracing::warn!("the warm-up on zeros failed, which real requests need not: {error}");
            break;
        }
    }
    let pool = ComputePool::start(&engine, args.threads(), args.queue.into(), args.batching(), &worker.metrics)
        .context("compute threads cannot be started")?;
    tracing::info!(engine = engine.name(), details = ?engine.details(), threads = args.threads(), ?fetched, elapsed = ?begun.elapsed(), "ready");
    let in_use = match artifact {
        Artifact::File(_) => None,
        Artifact::Cached(cached) => Some(cached),
    };
    worker.loaded(Loaded { format: model.format, engine, pool, _in_use: in_use });
    Ok(())
}
