//! What can go wrong with a private PostgreSQL, in words that say what to do.

use std::path::{Path, PathBuf};

/// Why a private PostgreSQL could not be found, started, asked or stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No server binaries, and they could not be installed by us.
    #[error("no PostgreSQL server was found on PATH or in the usual places: {advice}")]
    NotInstalled { advice: String },
    /// The package manager failed.
    #[error("installing PostgreSQL failed: `{command}`: {output}")]
    Install { command: String, output: String },
    /// The data directory belongs to another major version than any that is installed.
    #[error(
        "the database in {data} was made by PostgreSQL {wanted}, but here is only PostgreSQL {found}: install version \
         {wanted}, or delete {dir} to start afresh"
    )]
    WrongVersion { data: PathBuf, dir: PathBuf, wanted: u32, found: String },
    /// A server left behind by a process that was killed still runs on this directory; see `Cluster::adopt`.
    #[error("a PostgreSQL server (pid {pid}) already runs on {dir}: {url}")]
    AlreadyRunning { dir: PathBuf, pid: i32, url: String },
    /// Another process is starting or stopping a server on this directory.
    #[error("{dir} is in use by another process")]
    Busy { dir: PathBuf },
    /// `adopt` found nothing to take over.
    #[error("no PostgreSQL server runs on {dir}")]
    NotRunning { dir: PathBuf },
    /// We are root, and there is no unprivileged user to run the server as.
    #[error("PostgreSQL refuses to run as root, and there is neither a user `postgres` nor `nobody` to run it as")]
    NoAccount,
    /// `initdb` failed.
    #[error("initdb failed: {output}")]
    Initdb { output: String },
    /// The server ended before it was ready.
    #[error("PostgreSQL ended while starting ({status}); its last words ({log}):\n{tail}")]
    Died { status: String, log: PathBuf, tail: String },
    /// The server did not accept connections in time.
    #[error("PostgreSQL was not ready after {seconds} s; its last words ({log}):\n{tail}")]
    NotReady { seconds: u64, log: PathBuf, tail: String },
    /// The server did not end, not even when killed.
    #[error("PostgreSQL (pid {pid}) did not stop")]
    NotStopped { pid: i32 },
    /// The server refused a statement.
    #[error("PostgreSQL refused: {message} (SQLSTATE {code})")]
    Refused { code: String, message: String },
    /// A file or process operation failed.
    #[error("{what}")]
    Io { what: String, source: std::io::Error },
}

/// Says which operation on which path an I/O error belongs to.
pub(crate) trait IoContext<T> {
    fn doing(self, what: &str, path: &Path) -> Result<T, Error>;
}

impl<T> IoContext<T> for std::io::Result<T> {
    fn doing(self, what: &str, path: &Path) -> Result<T, Error> {
        self.map_err(|source| Error::Io { what: format!("cannot {what} {}", path.display()), source })
    }
}

impl<T> IoContext<T> for Result<T, rustix::io::Errno> {
    fn doing(self, what: &str, path: &Path) -> Result<T, Error> {
        self.map_err(std::io::Error::from).doing(what, path)
    }
}
