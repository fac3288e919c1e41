//! The wishes on disk: which workloads should run, and the latest epoch that asked.
//!
//! ```text
//! workers/daemon.lock                  held by the control plane
//! workers/epoch.json                   the fence
//! workers/<workload id>/workload.json  the wish
//! workers/<workload id>/<replica>/     lock, status.json, log, log.1
//! ```
//! Nothing here looks at processes.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use modelyard_core::{Epoch, Workload, WorkloadId};
use serde::{Deserialize, Serialize};

use crate::error::{At as _, LocalError};
use crate::lock::DaemonLock;

/// What was last asked for a workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Wish {
    pub(crate) workload: Workload,
    pub(crate) epoch: Epoch,
    /// It is to drain and to be forgotten: kept until that is done, so that a crash on the way does not undo it.
    #[serde(default)]
    pub(crate) removing: bool,
}

#[derive(Serialize, Deserialize)]
struct Fence {
    epoch: Epoch,
}

/// The records of one state directory, which this value has for itself.
#[derive(Debug)]
pub(crate) struct Records {
    workers: PathBuf,
    epoch: Epoch,
    _lock: DaemonLock,
}

/// What a directory below `workers/` turned out to be.
pub(crate) enum Found {
    Wish(Box<Wish>),
    /// No readable wish: a crash in mid-deletion, or somebody's hands.
    Nameless(PathBuf),
}

impl Records {
    /// Takes the directory and reads it.
    pub(crate) fn open(state_dir: &Path) -> Result<(Self, Vec<Found>), LocalError> {
        let workers = workers_dir(state_dir);
        fs::create_dir_all(&workers).at(&workers)?;
        let lock = DaemonLock::take(&workers)?;
        let fence = workers.join("epoch.json");
        let epoch = match fs::read(&fence) {
            // A fence that cannot be read must not be taken for an open one.
            Ok(bytes) => serde_json::from_slice::<Fence>(&bytes).map_err(io::Error::from).at(&fence)?.epoch,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Epoch::default(),
            Err(error) => return Err(error).at(&fence),
        };
        let found = subdirectories(&workers).at(&workers)?.into_iter().map(read_wish).collect();
        Ok((Self { workers, epoch, _lock: lock }, found))
    }

    /// The latest epoch that asked for anything.
    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub(crate) fn advance_epoch(&mut self, epoch: Epoch) -> Result<(), LocalError> {
        let path = self.workers.join("epoch.json");
        write_atomically(&path, &Fence { epoch }).at(&path)?;
        self.epoch = epoch;
        Ok(())
    }

    pub(crate) fn write(&self, wish: &Wish) -> Result<(), LocalError> {
        let dir = self.workers.join(wish.workload.id.as_str());
        fs::create_dir_all(&dir).at(&dir)?;
        let path = dir.join("workload.json");
        write_atomically(&path, wish).at(&path)?;
        File::open(&self.workers).and_then(|dir| dir.sync_all()).at(&self.workers)
    }

    pub(crate) fn forget(&self, id: &WorkloadId) -> Result<(), LocalError> {
        delete(&self.workers.join(id.as_str()))
    }

    pub(crate) fn forget_replica(&self, id: &WorkloadId, number: u32) -> Result<(), LocalError> {
        delete(&self.replica_dir(id, number))
    }

    pub(crate) fn replica_dir(&self, id: &WorkloadId, number: u32) -> PathBuf {
        replica_dir(&self.workers, id, number)
    }

    /// The replicas that have a directory, and so may have a process.
    pub(crate) fn replicas(&self, id: &WorkloadId) -> Result<Vec<u32>, LocalError> {
        let dir = self.workers.join(id.as_str());
        let names = subdirectories(&dir).at(&dir)?;
        Ok(names.iter().filter_map(|path| path.file_name()?.to_str()?.parse().ok()).collect())
    }
}

pub(crate) fn workers_dir(state_dir: &Path) -> PathBuf {
    state_dir.join("workers")
}

pub(crate) fn replica_dir(workers: &Path, id: &WorkloadId, number: u32) -> PathBuf {
    workers.join(id.as_str()).join(number.to_string())
}

pub(crate) fn subdirectories(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Deletes a directory with all that is in it. One that is absent is well deleted.
pub(crate) fn delete(dir: &Path) -> Result<(), LocalError> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).at(dir),
        _ => Ok(()),
    }
}

fn read_wish(dir: PathBuf) -> Found {
    let path = dir.join("workload.json");
    let wish = fs::read(&path).and_then(|bytes| Ok(serde_json::from_slice::<Wish>(&bytes)?));
    match wish {
        // A copied directory would make two workloads write one record.
        Ok(wish) if dir.file_name().is_some_and(|name| name == wish.workload.id.as_str()) => {
            Found::Wish(Box::new(wish))
        }
        Ok(_) => Found::Nameless(dir),
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(path = %path.display(), %error, "the record of a workload cannot be read");
            }
            Found::Nameless(dir)
        }
    }
}

/// After this returns, a crash finds either the old content or the new, whole.
fn write_atomically(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = File::create(&temporary)?;
    file.write_all(&serde_json::to_vec(value)?)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}
