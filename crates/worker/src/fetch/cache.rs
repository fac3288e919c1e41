//! Artifacts by their digest in a directory that the workers of a node share, be they in other containers.
//!
//! ```text
//! sha256/HEX         an artifact, whole; a shared lock (flock) on it says that a worker uses it
//! sha256/HEX.part    one on its way
//! sha256/HEX.lock    locked by whoever has the turn to bring it; empty, and never deleted
//! ```
//! Locks end with their process, however it ends. When an artifact was last used is its time of modification.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use modelyard_core::Digest;
use rustix::fs::statvfs;

use super::FetchError;
use super::part::Part;
use crate::artifact::{self, ArtifactError};
use crate::progress::{Progress, Stage};
use crate::size::ByteSize;

pub(super) struct Cache {
    dir: PathBuf,
    limit: Option<u64>,
}

/// An artifact in use: it is not evicted while this lives.
#[derive(Debug)]
pub(crate) struct Cached {
    path: PathBuf,
    _in_use: File,
}

impl Cached {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// The right to bring one artifact. Only who has it may change what lies under its digest.
pub(super) struct Turn<'c> {
    cache: &'c Cache,
    digest: Digest,
    _lock: File,
}

/// What may be evicted.
struct Entry {
    path: PathBuf,
    /// Whose lock tells whether it is in use.
    lock: PathBuf,
    size: u64,
    used: SystemTime,
}

enum Found {
    Whole(Cached),
    Broken,
    Nothing,
}

impl Cache {
    pub(super) fn open(dir: &Path, limit: Option<ByteSize>) -> Result<Self, FetchError> {
        let cache = Self { dir: dir.join("sha256"), limit: limit.map(|limit| limit.0) };
        fs::create_dir_all(&cache.dir).map_err(|source| cache.failed(source))?;
        Ok(cache)
    }

    /// The artifact, if it is there and is what its name says.
    pub(super) fn find(&self, digest: Digest) -> Result<Option<Cached>, FetchError> {
        match self.look(digest).map_err(|source| self.failed(source))? {
            Found::Whole(cached) => Ok(Some(cached)),
            Found::Broken | Found::Nothing => Ok(None),
        }
    }

    fn look(&self, digest: Digest) -> io::Result<Found> {
        let path = self.path(digest, "");
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
            Err(error) => return Err(error),
        };
        file.lock_shared()?;
        // Between opening and locking it may have been evicted.
        if file.metadata()?.nlink() == 0 {
            return Ok(Found::Nothing);
        }
        match artifact::verify(&path, digest) {
            Ok(()) => {
                // Not allowed to a user who does not own it; it is then evicted a little early.
                file.set_modified(SystemTime::now()).ok();
                Ok(Found::Whole(Cached { path, _in_use: file }))
            }
            Err(ArtifactError::Digest { .. }) => Ok(Found::Broken),
            Err(ArtifactError::Io(error)) => Err(error),
        }
    }

    /// Waits until nobody else brings that artifact.
    pub(super) fn take_turn(&self, digest: Digest) -> Result<Turn<'_>, FetchError> {
        let lock = || {
            let lock = lock_file(&self.path(digest, ".lock"))?;
            lock.lock()?;
            Ok(lock)
        };
        let lock = lock().map_err(|source| self.failed(source))?;
        Ok(Turn { cache: self, digest, _lock: lock })
    }

    /// Evicts what was not used for longest, until `need` more bytes keep the limit and fit on the disk. Never what is
    /// in use: that the limit is then passed is told, and no failure.
    ///
    /// # Errors
    /// If the disk has no room.
    pub(super) fn make_room(&self, need: u64) -> Result<(), FetchError> {
        let entries = self.entries().map_err(|source| self.failed(source))?;
        let mut used: u64 = entries.iter().map(|entry| entry.size).sum();
        let is_above = |used: u64| self.limit.filter(|limit| used.saturating_add(need) > *limit);
        for entry in &entries {
            if is_above(used).is_none() && self.free()? >= need {
                break;
            }
            if evict(entry) {
                tracing::info!("evicted {} ({}) from the cache", entry.path.display(), ByteSize(entry.size));
                used -= entry.size;
            }
        }
        if let Some(limit) = is_above(used) {
            let (will, limit) = (ByteSize(used.saturating_add(need)), ByteSize(limit));
            tracing::warn!("the cache will hold {will}, above its limit of {limit}: nothing in it is unused");
        }
        let free = self.free()?;
        if free < need {
            return Err(FetchError::NoRoom { need: ByteSize(need), free: ByteSize(free) });
        }
        Ok(())
    }

    /// Back below the limit, where downloads at the same time passed it.
    pub(super) fn trim(&self) -> Result<(), FetchError> {
        self.make_room(0)
    }

    /// Everything but locks, what was not used for longest first.
    fn entries(&self) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for file in fs::read_dir(&self.dir)? {
            let path = file?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            let lock = match name.strip_suffix(".part") {
                Some(digest) => self.dir.join(format!("{digest}.lock")),
                None if name.parse::<Digest>().is_ok() => path.clone(),
                None => continue,
            };
            // Others evict too.
            let Ok(metadata) = fs::metadata(&path) else { continue };
            entries.push(Entry { lock, size: metadata.len(), used: metadata.modified()?, path });
        }
        entries.sort_by_key(|entry| entry.used);
        Ok(entries)
    }

    fn free(&self) -> Result<u64, FetchError> {
        let disk = statvfs(&self.dir).map_err(|error| self.failed(error.into()))?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    fn path(&self, digest: Digest, suffix: &str) -> PathBuf {
        self.dir.join(format!("{digest}{suffix}"))
    }

    fn failed(&self, source: io::Error) -> FetchError {
        FetchError::Cache { dir: self.dir.clone(), source }
    }
}

impl Turn<'_> {
    /// As [`Cache::find`]; what is not what its name says is deleted.
    pub(super) fn find(&self) -> Result<Option<Cached>, FetchError> {
        let failed = |source| self.cache.failed(source);
        match self.cache.look(self.digest).map_err(failed)? {
            Found::Whole(cached) => Ok(Some(cached)),
            Found::Nothing => Ok(None),
            Found::Broken => {
                let path = self.cache.path(self.digest, "");
                tracing::warn!("{} has another content than its name says: deleted, and fetched anew", path.display());
                fs::remove_file(path).map_err(failed)?;
                Ok(None)
            }
        }
    }

    /// The part that is there, from an attempt before; an empty one else.
    pub(super) fn part(&self, progress: &Progress) -> Result<Part, FetchError> {
        progress.set(Stage::Checking);
        Part::open(self.cache.path(self.digest, ".part")).map_err(|source| self.cache.failed(source))
    }

    /// Gives a part that is whole its name.
    pub(super) fn keep(&self, part: Part) -> Result<Cached, FetchError> {
        let path = self.cache.path(self.digest, "");
        let file = part.finish(&path).map_err(|source| self.cache.failed(source))?;
        Ok(Cached { path, _in_use: file })
    }
}

fn lock_file(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).create(true).truncate(false).open(path)
}

/// Deletes it unless it is in use. False too if it cannot be deleted: it then still takes its room.
fn evict(entry: &Entry) -> bool {
    // NFS locks exclusively only what is open for writing.
    let Ok(lock) = File::options().read(true).write(true).open(&entry.lock) else { return false };
    match lock.try_lock() {
        Ok(()) => fs::remove_file(&entry.path).is_ok(),
        Err(TryLockError::WouldBlock | TryLockError::Error(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const KIB: u64 = 1024;

    /// Puts an artifact of one KiB there, last used that many minutes ago.
    fn put(cache: &Cache, content: u8, minutes: u64) -> Digest {
        let bytes = [content; KIB as usize];
        let digest = Digest::of(&bytes);
        let path = cache.path(digest, "");
        fs::write(&path, bytes).unwrap();
        let used = SystemTime::now() - Duration::from_secs(60 * minutes);
        File::options().write(true).open(path).unwrap().set_modified(used).unwrap();
        digest
    }

    fn cache(dir: &Path, limit: Option<u64>) -> Cache {
        Cache::open(dir, limit.map(ByteSize)).unwrap()
    }

    fn has(cache: &Cache, digest: Digest) -> bool {
        cache.path(digest, "").exists()
    }

    #[test]
    fn what_was_not_used_for_longest_goes_first_and_no_more_than_needed() {
        let dir = tempfile::tempdir().unwrap();
        let cache = cache(dir.path(), Some(3 * KIB));
        let (old, older, new) = (put(&cache, 1, 20), put(&cache, 2, 30), put(&cache, 3, 10));
        drop(cache.find(older).unwrap().unwrap());
        cache.make_room(KIB).unwrap();
        assert!(!has(&cache, old), "it was used last of all");
        assert!(has(&cache, older) && has(&cache, new));
    }

    #[test]
    fn what_is_in_use_stays_though_the_limit_is_passed() {
        let dir = tempfile::tempdir().unwrap();
        let cache = cache(dir.path(), Some(KIB));
        let (used, unused) = (put(&cache, 1, 20), put(&cache, 2, 10));
        let in_use = cache.find(used).unwrap().unwrap();
        cache.make_room(KIB).unwrap();
        assert!(has(&cache, used) && !has(&cache, unused));
        drop(in_use);
        cache.trim().unwrap();
        assert!(has(&cache, used), "one KiB is within the limit");
        cache.make_room(1).unwrap();
        assert!(!has(&cache, used));
    }

    #[test]
    fn a_part_that_nobody_completes_is_evicted_and_one_under_way_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let cache = cache(dir.path(), Some(0));
        let turn = cache.take_turn(Digest::of(b"under way")).unwrap();
        let left = cache.take_turn(Digest::of(b"left")).unwrap();
        for turn in [&turn, &left] {
            turn.part(&Progress::new()).unwrap().append(b"half").unwrap();
        }
        drop(left);
        cache.trim().unwrap();
        assert!(cache.path(Digest::of(b"under way"), ".part").exists());
        assert!(!cache.path(Digest::of(b"left"), ".part").exists());
    }

    #[test]
    fn a_disk_without_room_is_said_to_be_one() {
        let dir = tempfile::tempdir().unwrap();
        let error = cache(dir.path(), None).make_room(u64::MAX).unwrap_err();
        assert!(error.to_string().contains("the disk of the cache has"), "{error}");
    }

    #[test]
    fn only_who_has_the_turn_deletes_what_is_broken() {
        let dir = tempfile::tempdir().unwrap();
        let cache = cache(dir.path(), None);
        let digest = put(&cache, 1, 0);
        fs::write(cache.path(digest, ""), b"broken").unwrap();
        assert!(cache.find(digest).unwrap().is_none());
        assert!(has(&cache, digest));
        assert!(cache.take_turn(digest).unwrap().find().unwrap().is_none());
        assert!(!has(&cache, digest));
    }
}
