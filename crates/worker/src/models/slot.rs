//! One version of a model: whether it is loaded, and if not, why.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use tokio::sync::watch;

use super::repository::Artifact;
use super::{Identity, Loaded};

/// A version that could not be loaded is not tried again within so long, unless by request.
const RETRY_AFTER: Duration = Duration::from_secs(10);

pub(crate) struct Slot {
    pub(crate) identity: Arc<Identity>,
    loaded: ArcSwapOption<Loaded>,
    /// Where it is loaded from, in a repository.
    pub(super) artifact: Option<Artifact>,
    state: watch::Sender<State>,
    /// When it was last used, in nanoseconds since this process began to count.
    used: AtomicU64,
    /// Requests that wait for it to be loaded.
    waiting: AtomicUsize,
    /// What is loaded now is not wanted any more.
    is_unwanted: AtomicBool,
}

#[derive(Debug, Clone)]
pub(super) enum State {
    /// And why.
    Unloaded(&'static str),
    /// It is, or is about to be.
    Loading,
    Ready,
    Failed {
        at: Instant,
        reason: String,
    },
}

/// Why a version cannot be asked now.
#[derive(Debug)]
pub(crate) enum Unready {
    Loading,
    Failed(String),
    /// As many requests wait for it as may.
    Full,
    Late,
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} version {}", self.identity.name, self.identity.version)
    }
}

impl Slot {
    fn new(name: &str, version: &str, artifact: Option<Artifact>) -> Self {
        Self {
            identity: Arc::new(Identity { name: name.to_owned(), version: version.to_owned() }),
            loaded: ArcSwapOption::empty(),
            artifact,
            state: watch::Sender::new(State::Unloaded("it was not asked for yet: the first request loads it")),
            used: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            is_unwanted: AtomicBool::new(false),
        }
    }

    /// Of a worker that serves nothing else, and tells by other ways how far it is.
    pub(super) fn fixed(name: &str, version: &str) -> Self {
        Self::new(name, version, None)
    }

    pub(super) fn of(name: &str, version: &str, artifact: Artifact) -> Self {
        Self::new(name, version, Some(artifact))
    }

    pub(crate) fn is_loaded(&self) -> bool {
        self.loaded.load().is_some()
    }

    /// What can be asked, which is in use until it is dropped.
    pub(crate) fn loaded(&self) -> Option<Arc<Loaded>> {
        let loaded = self.loaded.load_full()?;
        self.used.store(now(), Ordering::Relaxed);
        Some(loaded)
    }

    /// Looks at what is loaded without using it.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Loaded) -> T) -> Option<T> {
        self.loaded.load().as_deref().map(look)
    }

    /// From now on it is ready.
    pub(crate) fn set(&self, loaded: Arc<Loaded>) {
        self.used.store(now(), Ordering::Relaxed);
        self.loaded.store(Some(loaded));
        self.state.send_replace(State::Ready);
    }

    pub(super) fn failed(&self, reason: String) {
        self.state.send_replace(State::Failed { at: Instant::now(), reason });
    }

    /// Those who have it finish with it.
    pub(super) fn unload(&self, why: &'static str) -> bool {
        let was_loaded = self.loaded.swap(None).is_some();
        self.state.send_if_modified(|state| {
            let is_new = !matches!(state, State::Loading);
            if is_new {
                *state = State::Unloaded(why);
            }
            is_new
        });
        was_loaded
    }

    /// Says that it is about to be loaded; not if it is already, or was in vain a short while ago (unless `again`).
    pub(super) fn begin_loading(&self, again: bool) -> bool {
        self.state.send_if_modified(|state| {
            let is_due = match state {
                State::Unloaded(_) => true,
                State::Failed { at, .. } => again || at.elapsed() >= RETRY_AFTER,
                State::Loading | State::Ready => false,
            };
            if is_due {
                *state = State::Loading;
            }
            is_due
        })
    }

    pub(super) fn give_up(&self, why: &'static str) {
        self.state.send_replace(State::Unloaded(why));
    }

    pub(super) fn want(&self, is_wanted: bool) {
        self.is_unwanted.store(!is_wanted, Ordering::Release);
    }

    pub(super) fn is_wanted(&self) -> bool {
        !self.is_unwanted.load(Ordering::Acquire)
    }

    /// When it was last used, if it could be unloaded now.
    pub(super) fn idle_since(&self) -> Option<u64> {
        let is_idle = self.loaded.load().as_ref().is_some_and(|loaded| Arc::strong_count(loaded) == 1);
        (is_idle && self.waiting.load(Ordering::Relaxed) == 0).then(|| self.used.load(Ordering::Relaxed))
    }

    /// Why it is not ready, if so.
    pub(super) fn unready(&self) -> Option<String> {
        match &*self.state.borrow() {
            State::Ready => None,
            State::Loading => Some("it is being loaded".into()),
            State::Unloaded(why) => Some((*why).to_owned()),
            State::Failed { reason, .. } => Some(reason.clone()),
        }
    }

    /// Whether a request for it is worth its while.
    pub(crate) fn can_be_asked(&self) -> bool {
        !matches!(&*self.state.borrow(), State::Failed { at, .. } if at.elapsed() < RETRY_AFTER)
    }

    /// Waits for the end of a loading, together with at most `places` others.
    ///
    /// # Errors
    /// If it fails, or does not end by `until`.
    pub(super) async fn wait(&self, places: usize, until: Instant) -> Result<(), Unready> {
        let _waiting = Waiting::begin(&self.waiting, places).ok_or(Unready::Full)?;
        let mut state = self.state.subscribe();
        let ended = state.wait_for(|state| !matches!(state, State::Loading));
        match tokio::time::timeout_at(until.into(), ended).await {
            Err(_) => Err(Unready::Loading),
            Ok(state) => match state.as_deref() {
                Ok(State::Failed { reason, .. }) => Err(Unready::Failed(reason.clone())),
                _ => Ok(()),
            },
        }
    }
}

struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn begin(all: &'a AtomicUsize, places: usize) -> Option<Self> {
        let waiting = Self(all);
        (all.fetch_add(1, Ordering::Relaxed) < places).then_some(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn now() -> u64 {
    static BEGUN: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    u64::try_from(BEGUN.elapsed().as_nanos()).unwrap_or(u64::MAX)
}
