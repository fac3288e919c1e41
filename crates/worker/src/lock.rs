//! The lock that says "a worker lives here".
//!
//! A POSIX record lock: the kernel drops it with the process, and tells others the holder's pid (F_GETLK). It is also
//! dropped when *any* descriptor of the file is closed, so nothing else in this process may open the file.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::io::Errno;
use rustix::process::{Flock, FlockType, fcntl_getlk};

/// Held for as long as the value lives.
#[derive(Debug)]
pub(crate) struct InstanceLock {
    _file: File,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum LockError {
    #[error("another worker{} has this instance directory", .pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    Taken { pid: Option<i32> },
    #[error("the instance directory cannot be locked: {0}")]
    Io(#[from] io::Error),
}

impl InstanceLock {
    /// # Errors
    /// If another worker holds it, or the file cannot be opened.
    pub(crate) fn take(dir: &Path) -> Result<Self, LockError> {
        std::fs::create_dir_all(dir)?;
        let file = File::options().read(true).write(true).create(true).truncate(false).open(dir.join("lock"))?;
        match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _file: file }),
            Err(Errno::AGAIN | Errno::ACCESS) => {
                let holder = fcntl_getlk(&file, &Flock::from(FlockType::WriteLock)).ok().flatten();
                Err(LockError::Taken { pid: holder.and_then(|lock| lock.pid).map(|pid| pid.as_raw_nonzero().get()) })
            }
            Err(error) => Err(LockError::Io(error.into())),
        }
    }
}
