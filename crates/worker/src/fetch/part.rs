//! An artifact that is on its way: the bytes that are there, and their hash so far.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use modelyard_core::Digest;
use sha2::{Digest as _, Sha256};

use super::FetchError;

const CHUNK: usize = 1 << 20;

/// A file that only grows, or starts over. Whoever has one has the turn for its digest.
pub(super) struct Part {
    path: PathBuf,
    file: File,
    hasher: Sha256,
    length: u64,
}

impl Part {
    /// Takes over what an attempt before this one left, if there is such.
    ///
    /// # Errors
    /// If it cannot be read or made.
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        let mut file = File::options().read(true).write(true).create(true).truncate(false).open(&path)?;
        let (mut hasher, mut length) = (Sha256::new(), 0);
        let mut chunk = vec![0; CHUNK];
        loop {
            match file.read(&mut chunk) {
                Ok(0) => return Ok(Self { path, file, hasher, length }),
                Ok(n) => {
                    hasher.update(&chunk[..n]);
                    length += n as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    pub(super) fn digest(&self) -> Digest {
        Digest::from_bytes(self.hasher.clone().finalize().into())
    }

    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<(), FetchError> {
        let written = self.file.write_all(bytes);
        written.map_err(|source| self.failed(source))?;
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Forgets what is there.
    pub(super) fn restart(&mut self) -> Result<(), FetchError> {
        *self = fs::remove_file(&self.path)
            .and_then(|()| Self::open(self.path.clone()))
            .map_err(|source| self.failed(source))?;
        Ok(())
    }

    /// Leaves nothing of it.
    pub(super) fn discard(self) -> Result<(), FetchError> {
        fs::remove_file(&self.path).map_err(|source| self.failed(source))
    }

    /// Makes it a file of that name, whole and on disk; a reader sees it all or not at all.
    pub(super) fn finish(self, path: &Path) -> io::Result<File> {
        self.file.sync_all()?;
        // Before it has the name: who finds it there finds it in use.
        self.file.lock_shared()?;
        fs::rename(&self.path, path)?;
        if let Some(dir) = path.parent() {
            File::open(dir)?.sync_all()?;
        }
        Ok(self.file)
    }

    fn failed(&self, source: io::Error) -> FetchError {
        FetchError::Cache { dir: self.path.parent().unwrap_or(&self.path).to_owned(), source }
    }
}
