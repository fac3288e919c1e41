//! Where a cluster keeps its data, and the small file that remembers it.
//!
//! The wished directory holds the log, the lock and `cluster.json`. The data lies beside them in `data`, unless we are
//! root and the server's unprivileged account cannot reach that place (a checkout under `/root`, say): then it lies
//! under `/var/lib/modelyard/`, which every account can enter and, unlike `/var/tmp`, nothing sweeps.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::account::Account;
use crate::error::{Error, IoContext};
use crate::postmaster::Postmaster;

const RELOCATED: &str = "/var/lib/modelyard";

/// What `cluster.json` holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    /// The directory that holds `data`.
    home: PathBuf,
    /// The port of the last run, to be used again if it is free.
    port: Option<u16>,
}

/// The files of one cluster.
#[derive(Debug)]
pub(crate) struct Place {
    dir: PathBuf,
    record: Record,
}

impl Place {
    /// The place that belongs to the wished directory `dir` (absolute, existing), decided at its first use.
    /// Nothing is written.
    pub(crate) fn of(dir: &Path, account: Option<Account>) -> Result<Self, Error> {
        let file = dir.join("cluster.json");
        let record = match std::fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(std::io::Error::from).doing("read", &file)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let reachable = account.is_none_or(|account| account.reaches(dir));
                Record { home: if reachable { dir.to_path_buf() } else { relocated(dir) }, port: None }
            }
            Err(error) => return Err(error).doing("read", &file),
        };
        Ok(Self { dir: dir.to_path_buf(), record })
    }

    /// The data directory given to `postgres -D`.
    pub(crate) fn data(&self) -> PathBuf {
        self.record.home.join("data")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.dir.join("postgres.log")
    }

    pub(crate) fn port(&self) -> Option<u16> {
        self.record.port
    }

    /// The directory that the data lies in, when that is not the wished one.
    pub(crate) fn elsewhere(&self) -> Option<&Path> {
        (self.record.home != self.dir).then_some(&self.record.home)
    }

    /// Whether a cluster was made here before.
    pub(crate) fn is_made(&self) -> bool {
        self.dir.join("cluster.json").exists() && self.data().join("PG_VERSION").exists()
    }

    /// The major version that made the data.
    pub(crate) fn major(&self) -> Result<u32, Error> {
        let file = self.data().join("PG_VERSION");
        let text = std::fs::read_to_string(&file).doing("read", &file)?;
        let garbled = || std::io::Error::new(std::io::ErrorKind::InvalidData, "not a PostgreSQL version");
        text.trim().parse().map_err(|_| garbled()).doing("understand", &file)
    }

    /// Makes an empty directory for `initdb`, owned by the account, to be put in place by [`Place::keep`]. Remains of
    /// an interrupted attempt are deleted, and so are data elsewhere whose wished directory has since been deleted:
    /// whoever deletes the state directory wants to start afresh.
    pub(crate) fn make(&self, account: Option<Account>) -> Result<PathBuf, Error> {
        let home = &self.record.home;
        if self.elsewhere().is_some() {
            make_ours(home)?;
        }
        let data = self.data();
        if let Some(Postmaster { pid, .. }) = Postmaster::of(&data) {
            let pid = pid.as_raw_nonzero().get();
            return Err(Error::AlreadyRunning { dir: self.dir.clone(), pid, url: "not in use by us".to_owned() });
        }
        let fresh = home.join("data.new");
        for old in [&data, &fresh] {
            match std::fs::remove_dir_all(old) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error).doing("delete", old),
                _ => {}
            }
        }
        std::fs::DirBuilder::new().mode(0o700).create(&fresh).doing("create", &fresh)?;
        if let Some(Account { uid, gid }) = account {
            std::os::unix::fs::chown(&fresh, Some(uid), Some(gid)).doing("change the owner of", &fresh)?;
        }
        Ok(fresh)
    }

    /// Puts the directory that `initdb` has filled in its place. Only now does the cluster exist.
    pub(crate) fn keep(&mut self, fresh: &Path) -> Result<(), Error> {
        std::fs::rename(fresh, self.data()).doing("rename", fresh)?;
        self.write()
    }

    pub(crate) fn remember_port(&mut self, port: u16) -> Result<(), Error> {
        if self.record.port == Some(port) {
            return Ok(());
        }
        self.record.port = Some(port);
        self.write()
    }

    /// Deletes the data, and what remembers them.
    pub(crate) fn delete(&self) -> Result<(), Error> {
        let (data, record) = (self.data(), self.dir.join("cluster.json"));
        std::fs::remove_dir_all(&data).doing("delete", &data)?;
        if let Some(home) = self.elsewhere() {
            std::fs::remove_dir(home).doing("delete", home)?;
        }
        std::fs::remove_file(&record).doing("delete", &record)
    }

    fn write(&self) -> Result<(), Error> {
        let (file, new) = (self.dir.join("cluster.json"), self.dir.join("cluster.json.new"));
        let text = serde_json::to_vec_pretty(&self.record).map_err(std::io::Error::from).doing("write", &file)?;
        std::fs::write(&new, text).doing("write", &new)?;
        std::fs::rename(&new, &file).doing("rename", &new)
    }
}

fn relocated(dir: &Path) -> PathBuf {
    let mut hasher = DefaultHasher::new();
    dir.hash(&mut hasher);
    Path::new(RELOCATED).join(format!("postgres-{:016x}", hasher.finish()))
}

/// Creates `home`, or accepts it if it is a real directory of ours: anything else was put there by someone else.
fn make_ours(home: &Path) -> Result<(), Error> {
    std::fs::DirBuilder::new().recursive(true).mode(0o755).create(home).doing("create", home)?;
    let meta = std::fs::symlink_metadata(home).doing("look at", home)?;
    if meta.is_dir() && meta.uid() == rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    Err(std::io::Error::other("it belongs to someone else")).doing("use", home)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRANGER: Option<Account> = Some(Account { uid: 4_000_001, gid: 4_000_001 });

    #[test]
    fn data_out_of_reach_goes_elsewhere_and_always_to_the_same_place() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        let place = Place::of(dir.path(), STRANGER).unwrap();
        assert!(place.data().starts_with(RELOCATED));
        assert_eq!(place.data(), Place::of(dir.path(), STRANGER).unwrap().data());
        assert_eq!(Place::of(dir.path(), None).unwrap().elsewhere(), None);
    }

    #[test]
    fn a_cluster_exists_once_initdb_has_finished_and_its_port_is_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let mut place = Place::of(dir.path(), None).unwrap();
        let fresh = place.make(None).unwrap();
        std::fs::write(fresh.join("PG_VERSION"), "15\n").unwrap();
        assert!(!place.is_made(), "an interrupted initdb leaves no cluster");

        place.keep(&fresh).unwrap();
        place.remember_port(5433).unwrap();
        let again = Place::of(dir.path(), None).unwrap();
        assert!(again.is_made());
        assert_eq!((again.port(), again.major().unwrap()), (Some(5433), 15));
    }
}
