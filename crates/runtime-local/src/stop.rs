//! Ends workers without a control plane.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use tokio::task::JoinSet;

use crate::error::{At as _, LocalError};
use crate::lock::DaemonLock;
use crate::process::WorkerProcess;
use crate::record::{delete, subdirectories, workers_dir};

/// How much longer than asked a worker may drain before it is killed.
const KILL_GRACE: Duration = Duration::from_secs(5);

/// Ends all workers of a state directory and forgets its workloads. Returns how many workers were running.
/// The fence stays: an old control plane remains an old one.
///
/// # Errors
/// [`LocalError::Taken`] while a control plane runs, which would start them again.
pub async fn stop_all(state_dir: &Path, drain_timeout: Duration) -> Result<usize, LocalError> {
    let workers = workers_dir(state_dir);
    if !workers.try_exists().at(&workers)? {
        return Ok(0);
    }
    let _lock = DaemonLock::take(&workers)?;
    let dirs = subdirectories(&workers).at(&workers)?;
    // The wishes go first: where this is interrupted, the next control plane ends what it finds without one.
    for path in dirs.iter().map(|dir| dir.join("workload.json")) {
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).at(&path),
            _ => {}
        }
    }
    end_workers_below(dirs, drain_timeout + KILL_GRACE).await
}

/// Ends the workers in the subdirectories of `dirs`, all at once, then deletes `dirs`. Returns how many there were.
pub(crate) async fn end_workers_below(dirs: Vec<PathBuf>, kill_after: Duration) -> Result<usize, LocalError> {
    let mut ending = JoinSet::new();
    for dir in &dirs {
        for replica in subdirectories(dir).at(dir)? {
            ending.spawn(async move { end_worker(&replica, kill_after).await.at(&replica) });
        }
    }
    let mut ended = 0;
    while let Some(joined) = ending.join_next().await {
        ended += usize::from(joined.map_err(io::Error::other).at(Path::new("workers"))??);
    }
    dirs.iter().try_for_each(|dir| delete(dir))?;
    Ok(ended)
}

/// Whether there was one to end.
async fn end_worker(dir: &Path, kill_after: Duration) -> io::Result<bool> {
    let Some(mut process) = WorkerProcess::find(dir)? else { return Ok(false) };
    drain(&mut process, kill_after).await?;
    Ok(true)
}

/// Tells a worker to finish what it has begun and to end, and kills it where it does not.
pub(crate) async fn drain(process: &mut WorkerProcess, kill_after: Duration) -> io::Result<()> {
    process.signal(Signal::TERM)?;
    if let Ok(exited) = tokio::time::timeout(kill_after, process.exited()).await {
        return exited.map(drop);
    }
    tracing::warn!(pid = process.pid(), "a worker did not end in time and is killed");
    process.signal(Signal::KILL)?;
    process.exited().await.map(drop)
}
