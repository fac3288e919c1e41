//! Artifacts, named by their SHA-256 digest, in an object store: a local directory, S3 or GCS.
//!
//! Uploads are streams, hashed while they pass; what does not have the digest it should is never seen under one.
//! Nothing is held whole in memory.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt};
use modelyard_core::Digest;
use modelyard_runtime::{ArtifactSource, RuntimeError};
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt, WriteMultipart};
use sha2::{Digest as _, Sha256};
use tempfile::TempPath;
use tokio::io::AsyncWriteExt;
use url::Url;

use crate::bucket::Bucket;

/// Parts of an upload: S3 wants at least 5 MiB. At most [`PARTS_IN_FLIGHT`] are in memory per upload.
const PART_BYTES: usize = 8 * 1024 * 1024;
const PARTS_IN_FLIGHT: usize = 2;

#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    #[error("there is no artifact with sha256 {0}")]
    NotFound(Digest),
    #[error("the content has sha256 {actual}, not {wanted}: it was changed, or cut short, on its way")]
    WrongDigest { wanted: Digest, actual: Digest },
    #[error("the upload ended early: {0}")]
    Interrupted(String),
    #[error("no space is left where artifacts are kept; nothing was stored. Free some and upload again")]
    NoSpace,
    #[error("the artifact store failed: {0}")]
    Store(String),
}

impl From<object_store::Error> for ArtifactError {
    fn from(error: object_store::Error) -> Self {
        let mut cause: &dyn std::error::Error = &error;
        loop {
            let io = cause.downcast_ref::<std::io::Error>();
            if io.is_some_and(|e| e.kind() == std::io::ErrorKind::StorageFull) {
                return Self::NoSpace;
            }
            match cause.source() {
                Some(next) => cause = next,
                None => return Self::Store(error.to_string()),
            }
        }
    }
}

/// What was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    pub digest: Digest,
    pub size: u64,
    /// Whether it was not there before.
    pub new: bool,
}

/// A part of an artifact, or all of it.
pub struct Content {
    pub stream: BoxStream<'static, Result<Bytes, object_store::Error>>,
    /// The bytes of it that the stream holds.
    pub range: Range<u64>,
    /// Of the whole artifact.
    pub size: u64,
}

pub struct Artifacts {
    store: Arc<dyn ObjectStore>,
    /// The files' directory, where the store is a local one.
    root: Option<PathBuf>,
    /// Where the store is a remote one.
    bucket: Option<Bucket>,
    /// Where artifacts of a remote store are kept for workers of this machine.
    cache: PathBuf,
}

impl Artifacts {
    /// In a local directory, `DIR/artifacts`.
    ///
    /// # Errors
    /// If the directory cannot be made.
    pub fn in_directory(state_dir: &Path) -> anyhow::Result<Self> {
        let root = state_dir.join("artifacts");
        std::fs::create_dir_all(&root)?;
        let root = root.canonicalize()?;
        let store = LocalFileSystem::new_with_prefix(&root)?.with_automatic_cleanup(false).with_fsync(true);
        Ok(Self { store: Arc::new(store), root: Some(root), bucket: None, cache: state_dir.join("artifact-cache") })
    }

    /// In a bucket, at a URL such as `s3://bucket/prefix`. See [`Bucket::at`].
    ///
    /// # Errors
    /// If it names no bucket.
    pub fn at_url(url: &str, state_dir: &Path) -> anyhow::Result<Self> {
        let bucket = Bucket::at(url)?;
        let store = object_store::prefix::PrefixStore::new(bucket.store.clone(), bucket.key.clone());
        Ok(Self { store: Arc::new(store), root: None, bucket: Some(bucket), cache: state_dir.join("artifact-cache") })
    }

    /// Stores a stream. Where `wanted` is given, content with another digest is refused.
    ///
    /// # Errors
    /// See [`ArtifactError`]; whichever it is, nothing is left behind.
    pub async fn put<E: std::fmt::Display>(
        &self,
        content: impl Stream<Item = Result<Bytes, E>>,
        wanted: Option<Digest>,
    ) -> Result<Stored, ArtifactError> {
        // An upload is seen when it is finished. If its digest is known before, so is its place; a bucket renames by
        // copying, and S3 does not do that with more than 5 GB.
        let incoming = || Key::from(format!("incoming/{}", uuid::Uuid::new_v4()));
        let place = wanted.as_ref().map_or_else(incoming, key);
        let mut upload = WriteMultipart::new_with_chunk_size(self.store.put_multipart(&place).await?, PART_BYTES);
        let received = async {
            let (digest, size) = receive(content, &mut upload, wanted).await?;
            Ok(Stored { digest, size, new: self.size(&digest).await?.is_none() })
        };
        match received.await {
            Ok(stored) => {
                upload.finish().await?;
                let named = key(&stored.digest);
                if place != named {
                    let renamed = self.store.rename(&place, &named).await;
                    if renamed.is_err() {
                        self.store.delete(&place).await.ok();
                    }
                    renamed?;
                }
                Ok(stored)
            }
            Err(error) => {
                upload.abort().await.ok();
                Err(error)
            }
        }
    }

    /// The size of an artifact in bytes; `None` if it is not there.
    pub async fn size(&self, digest: &Digest) -> Result<Option<u64>, ArtifactError> {
        match self.store.head(&key(digest)).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// # Errors
    /// [`ArtifactError::NotFound`]; a store that fails.
    pub async fn get(&self, digest: &Digest, range: Option<GetRange>) -> Result<Content, ArtifactError> {
        let options = GetOptions { range, ..GetOptions::default() };
        match self.store.get_opts(&key(digest), options).await {
            Ok(found) => Ok(Content { range: found.range.clone(), size: found.meta.size, stream: found.into_stream() }),
            Err(object_store::Error::NotFound { .. }) => Err(ArtifactError::NotFound(*digest)),
            Err(error) => Err(error.into()),
        }
    }

    /// Where the artifact can be read without us, for a while: signed, for whoever has it. `None` where the store is
    /// no bucket, or its credentials cannot sign.
    pub async fn signed_url(&self, digest: &Digest) -> Option<Url> {
        let signed = self.bucket.as_ref()?.signed(&key(digest)).await;
        signed.inspect_err(|error| tracing::warn!(%error, "no address of an artifact can be signed")).ok()
    }

    pub async fn delete(&self, digest: &Digest) -> Result<(), ArtifactError> {
        // Workers that have it open keep it.
        tokio::fs::remove_file(self.cache.join(digest.to_string())).await.ok();
        match self.store.delete(&key(digest)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Artifacts, and leftovers of uploads that a crash cut off, that were last written before `before`.
    pub async fn older_than(&self, age: std::time::Duration) -> Result<Vec<(Key, Option<Digest>)>, ArtifactError> {
        let mut old = Vec::new();
        let mut all = self.store.list(None);
        while let Some(meta) = all.try_next().await? {
            let written = std::time::SystemTime::from(meta.last_modified);
            if written.elapsed().is_ok_and(|elapsed| elapsed >= age) {
                let digest = meta.location.filename().and_then(|name| name.parse().ok());
                old.push((meta.location, digest));
            }
        }
        Ok(old)
    }

    pub async fn delete_key(&self, key: &Key) -> Result<(), ArtifactError> {
        Ok(self.store.delete(key).await?)
    }

    /// A file with the artifact's content, for a look at it: what is fetched for it goes with the value.
    ///
    /// # Errors
    /// See [`ArtifactError`].
    pub async fn copy(&self, digest: &Digest) -> Result<LocalCopy, ArtifactError> {
        match &self.root {
            Some(root) => Ok(LocalCopy::Stored(root.join(key(digest).as_ref()))),
            None => self.fetch(digest).await.map(LocalCopy::Fetched),
        }
    }

    /// A file of this machine with the artifact's content, that stays.
    ///
    /// # Errors
    /// See [`ArtifactError`].
    pub async fn file(&self, digest: &Digest) -> Result<PathBuf, ArtifactError> {
        match &self.root {
            Some(root) => Ok(root.join(key(digest).as_ref())),
            None => self.cached(digest).await,
        }
    }

    async fn cached(&self, digest: &Digest) -> Result<PathBuf, ArtifactError> {
        let file = self.cache.join(digest.to_string());
        if tokio::fs::try_exists(&file).await.unwrap_or(false) {
            return Ok(file);
        }
        self.fetch(digest).await?.persist(&file).map_err(|error| io(error.error))?;
        Ok(file)
    }

    /// The content in a file that is deleted when nobody has its path any more.
    async fn fetch(&self, digest: &Digest) -> Result<TempPath, ArtifactError> {
        tokio::fs::create_dir_all(&self.cache).await.map_err(io)?;
        let (part, path) = tempfile::NamedTempFile::new_in(&self.cache).map_err(io)?.into_parts();
        let mut content = self.get(digest, None).await?.stream;
        let mut out = tokio::fs::File::from_std(part);
        while let Some(chunk) = content.try_next().await? {
            out.write_all(&chunk).await.map_err(io)?;
        }
        out.sync_all().await.map_err(io)?;
        Ok(path)
    }
}

/// An artifact as a file.
pub enum LocalCopy {
    Stored(PathBuf),
    Fetched(TempPath),
}

impl LocalCopy {
    pub fn path(&self) -> &Path {
        match self {
            Self::Stored(path) => path,
            Self::Fetched(path) => path,
        }
    }
}

fn io(error: std::io::Error) -> ArtifactError {
    match error.kind() {
        std::io::ErrorKind::StorageFull => ArtifactError::NoSpace,
        _ => ArtifactError::Store(error.to_string()),
    }
}

#[async_trait]
impl ArtifactSource for Artifacts {
    async fn local_path(&self, digest: &Digest) -> Result<PathBuf, RuntimeError> {
        self.file(digest).await.map_err(|error| RuntimeError::Unavailable(error.to_string()))
    }
}

fn key(digest: &Digest) -> Key {
    let digest = digest.to_string();
    Key::from(format!("sha256/{}/{digest}", &digest[..2]))
}

/// Passes a stream on to an upload, hashing it on the way.
async fn receive<E: std::fmt::Display>(
    content: impl Stream<Item = Result<Bytes, E>>,
    upload: &mut WriteMultipart,
    wanted: Option<Digest>,
) -> Result<(Digest, u64), ArtifactError> {
    let mut hasher = Sha256::new();
    let mut size = 0;
    let mut content = std::pin::pin!(content);
    while let Some(chunk) = content.next().await {
        let chunk = chunk.map_err(|error| ArtifactError::Interrupted(error.to_string()))?;
        upload.wait_for_capacity(PARTS_IN_FLIGHT).await?;
        hasher.update(&chunk);
        size += chunk.len() as u64;
        upload.put(chunk);
    }
    upload.wait_for_capacity(0).await?;
    let actual = Digest::from_bytes(hasher.finalize().into());
    match wanted {
        Some(wanted) if wanted != actual => Err(ArtifactError::WrongDigest { wanted, actual }),
        _ => Ok((actual, size)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks(parts: &[&[u8]]) -> impl Stream<Item = Result<Bytes, std::io::Error>> + use<> {
        futures::stream::iter(parts.iter().map(|p| Ok(Bytes::copy_from_slice(p))).collect::<Vec<_>>())
    }

    fn files(dir: &Path) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
        entries.flat_map(|p| if p.is_dir() { files(&p) } else { vec![p] }).collect()
    }

    #[tokio::test]
    async fn what_is_put_is_found_under_its_digest() {
        let dir = tempfile::tempdir().unwrap();
        let artifacts = Artifacts::in_directory(dir.path()).unwrap();
        let stored = artifacts.put(chunks(&[b"ab", b"c"]), None).await.unwrap();
        assert_eq!(stored, Stored { digest: Digest::of(b"abc"), size: 3, new: true });
        assert!(!artifacts.put(chunks(&[b"abc"]), Some(stored.digest)).await.unwrap().new);
        let content = artifacts.get(&stored.digest, Some(GetRange::Bounded(1..3))).await.unwrap();
        assert_eq!((content.range.clone(), content.size), (1..3, 3));
        assert_eq!(content.stream.try_collect::<Vec<_>>().await.unwrap().concat(), b"bc");
        assert_eq!(std::fs::read(artifacts.file(&stored.digest).await.unwrap()).unwrap(), b"abc");
    }

    #[tokio::test]
    async fn content_with_another_digest_or_cut_short_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let artifacts = Artifacts::in_directory(dir.path()).unwrap();
        let wrong = artifacts.put(chunks(&[b"abc"]), Some(Digest::of(b"xyz"))).await;
        assert!(matches!(wrong, Err(ArtifactError::WrongDigest { .. })), "{wrong:?}");
        let cut = futures::stream::iter([Ok(Bytes::from_static(b"ab")), Err("connection reset")]);
        let cut = artifacts.put(cut, None).await;
        assert!(matches!(cut, Err(ArtifactError::Interrupted(_))), "{cut:?}");
        assert_eq!(files(dir.path()), Vec::<PathBuf>::new());
    }
}
