//! The two locks that say who lives: a worker's on its directory, a control plane's on all of them.
//!
//! A worker holds a POSIX record lock, which the kernel drops with the process and whose holder it names. Closing any
//! descriptor of that file would drop the locks of the process that closes it; this process holds none there, so it
//! may look freely.

use std::fs::{File, TryLockError};
use std::io::{self, Seek as _, Write as _};
use std::path::Path;

use rustix::process::{Flock, FlockType, Pid, fcntl_getlk};

use crate::error::{At as _, LocalError};

/// The process that holds the lock of the worker directory `dir`.
///
/// # Errors
/// Also if the holder lives in another pid namespace, where it cannot be named.
pub(crate) fn holder(dir: &Path) -> io::Result<Option<Pid>> {
    let file = match File::open(dir.join("lock")) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match fcntl_getlk(&file, &Flock::from(FlockType::WriteLock))? {
        None => Ok(None),
        Some(Flock { pid: Some(pid), .. }) => Ok(Some(pid)),
        Some(_) => Err(io::Error::other("the worker lives in another pid namespace")),
    }
}

/// Makes this process the one that runs the workers of a directory, for as long as the value lives.
#[derive(Debug)]
pub(crate) struct DaemonLock {
    _file: File,
}

impl DaemonLock {
    pub(crate) fn take(workers: &Path) -> Result<Self, LocalError> {
        let path = workers.join("daemon.lock");
        let mut file = File::options().read(true).write(true).create(true).truncate(false).open(&path).at(&path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let pid = std::fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok());
                return Err(LocalError::Taken { dir: workers.to_owned(), pid });
            }
            Err(TryLockError::Error(source)) => return Err(source).at(&path),
        }
        // The pid is for people; the lock is what counts.
        file.set_len(0).and_then(|()| file.rewind()).at(&path)?;
        writeln!(file, "{}", std::process::id()).at(&path)?;
        Ok(Self { _file: file })
    }
}
