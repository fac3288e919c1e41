//! What can go wrong outside the `Runtime` trait: taking a state directory, and emptying it.

use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// The state directory has one master at a time.
    #[error("another control plane ({}) runs workers in {}", .pid.map_or("pid unknown".to_owned(), |pid| format!("pid {pid}")), .dir.display())]
    Taken { dir: PathBuf, pid: Option<u32> },
    #[error("{}: {source}", .path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// Names the path that an operation failed on.
pub(crate) trait At<T> {
    fn at(self, path: &Path) -> Result<T, LocalError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, path: &Path) -> Result<T, LocalError> {
        self.map_err(|source| LocalError::Io { path: path.to_owned(), source })
    }
}

impl<T> At<T> for rustix::io::Result<T> {
    fn at(self, path: &Path) -> Result<T, LocalError> {
        self.map_err(io::Error::from).at(path)
    }
}
