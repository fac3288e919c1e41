//! Brings an artifact from a URL into a cache that the workers of a node share, by its digest, or finds it there.
//!
//! Whatever comes from the network is nothing until it has the digest. Of workers that want the same artifact at once,
//! one downloads and the others wait; it keeps the part that it has when a connection breaks, or when it dies, and
//! whoever comes next goes on from there. What may pass by itself (a control plane that restarts, a token that is not
//! mounted yet) is waited for, in words that say so, as long as the patience lasts.
//!
//! Everything here blocks: it runs on a thread of its own, beside the runtime that answers probes.

mod cache;
mod download;
mod part;

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use modelyard_core::Digest;
use reqwest::Url;
use tokio::runtime::Handle;

pub(crate) use cache::Cached;

use self::cache::Cache;
use self::download::{Downloader, Failure};
use crate::progress::{Progress, Stage};
use crate::size::ByteSize;

const FIRST_BACK_OFF: Duration = Duration::from_millis(250);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(10);

/// Where an artifact comes from, and where it is kept.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) url: Url,
    pub(crate) cache: PathBuf,
    /// Of all that is in the cache.
    pub(crate) limit: Option<ByteSize>,
    /// For how long nothing may come before it is given up.
    pub(crate) patience: Duration,
    /// Holds a bearer token, which others may replace at any time.
    pub(crate) token_file: Option<PathBuf>,
    /// PEM certificates to trust beside the system's.
    pub(crate) ca_file: Option<PathBuf>,
}

/// Why there is no artifact. Nothing of this passes by itself.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("the artifact cache {} cannot be used: {source}{}", .dir.display(), hint(.source))]
    Cache { dir: PathBuf, source: std::io::Error },
    #[error("the artifact needs {need} more, and the disk of the cache has {free} left, with nothing in it to evict")]
    NoRoom { need: ByteSize, free: ByteSize },
    #[error("the certificates in {} cannot be used: {reason}", .path.display())]
    Certificates { path: PathBuf, reason: String },
    #[error("no HTTP client can be made: {0}")]
    Client(String),
    #[error("{url} answered {status}: {said}")]
    Refused { url: String, status: u16, said: String },
    #[error("what {url} gives has sha256 {found}, not {expected}, twice: it is not what was registered")]
    WrongContent { url: String, expected: Digest, found: Digest },
    #[error("given up after {} s without receiving anything: {last}", .after.as_secs())]
    GivenUp { after: Duration, last: String },
}

/// What usually is the matter.
fn hint(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => {
            let user = rustix::process::geteuid().as_raw();
            format!(": it must be writable for user {user}, as whom this worker runs")
        }
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ": no space is left".into(),
        _ => String::new(),
    }
}

/// The artifact with that digest, verified, in a file that stays for as long as the value lives.
///
/// # Errors
/// See [`FetchError`].
pub(crate) fn fetch(
    source: &Source,
    digest: Digest,
    runtime: &Handle,
    progress: &Progress,
) -> Result<Cached, FetchError> {
    let cache = Cache::open(&source.cache, source.limit)?;
    progress.set(Stage::Checking);
    // Most starts end here: no request is made, and no other worker waited for.
    if let Some(found) = cache.find(digest)? {
        return Ok(found);
    }
    let downloader = Downloader::new(source, runtime.clone())?;
    let mut patience = Patience::new(source.patience);
    let mut wrong_before = false;
    loop {
        progress.set(Stage::Queued);
        let turn = cache.take_turn(digest)?;
        // Another worker may have brought it meanwhile.
        if let Some(found) = turn.find()? {
            return Ok(found);
        }
        let mut part = turn.part(progress)?;
        let had = part.length();
        match downloader.download(&mut part, &cache, digest, progress) {
            Ok(()) => {
                let kept = turn.keep(part)?;
                cache.trim()?;
                return Ok(kept);
            }
            Err(Failure::Final(error)) => {
                if part.length() == 0 {
                    part.discard()?;
                }
                return Err(error);
            }
            Err(Failure::WrongContent { found }) => {
                part.discard()?;
                let url = downloader.place();
                if wrong_before {
                    return Err(FetchError::WrongContent { url, expected: digest, found });
                }
                wrong_before = true;
                tracing::warn!("what {url} gave has sha256 {found}, not {digest}: deleted; it is fetched once more");
            }
            Err(Failure::Passing(why)) => {
                let gained = part.length() > had;
                // Others may have more luck meanwhile, or another token.
                drop((part, turn));
                patience.wait(gained, why, progress)?;
            }
        }
    }
}

/// Waits between attempts: longer each time, but no longer than patience lasts.
struct Patience {
    limit: Duration,
    since: Instant,
    back_off: Duration,
}

impl Patience {
    fn new(limit: Duration) -> Self {
        Self { limit, since: Instant::now(), back_off: FIRST_BACK_OFF }
    }

    /// # Errors
    /// When it is over.
    fn wait(&mut self, gained: bool, why: String, progress: &Progress) -> Result<(), FetchError> {
        if gained {
            *self = Self::new(self.limit);
        }
        let left = self.limit.saturating_sub(self.since.elapsed());
        if left.is_zero() {
            return Err(FetchError::GivenUp { after: self.limit, last: why });
        }
        // Workers that start together do not ask together.
        let pause = self.back_off.mul_f64(0.5 + fastrand::f64() / 2.0).min(left);
        tracing::warn!("{why}; trying again in {} ms", pause.as_millis());
        progress.set(Stage::Waiting(why));
        thread::sleep(pause);
        self.back_off = (self.back_off * 2).min(LONGEST_BACK_OFF);
        Ok(())
    }
}
