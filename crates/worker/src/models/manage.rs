//! What is done with a repository while it is served: models are loaded, unloaded, and their versions swapped.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use arc_swap::ArcSwap;

use super::loader::Loader;
use super::repository::{Versions, is_plain, scan, scan_model};
use super::slot::{Slot, Unready};
use super::{Loaded, Model, Models, Repository, Running, Table};

/// How long a request that loads a model, or needs one that is not loaded, waits for that.
const LOAD_WITHIN: Duration = Duration::from_secs(120);
pub(super) const BY_REQUEST: &str = "it was unloaded by request";
const REPLACED: &str = "a newer version is served: a request for this one loads it";

/// Why a model was not loaded or unloaded by request.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ManageError {
    #[error("this worker serves one model that its command line names: start it with --repository to load others")]
    Off,
    #[error("there is no model `{0}` in the repository: it must have a directory NAME/VERSION with a model file")]
    Unknown(String),
    #[error("the repository cannot be read: {0}")]
    Io(#[from] std::io::Error),
    #[error("model `{name}` was not loaded: {reason}")]
    Failed { name: String, reason: String },
    #[error("model `{0}` is still being loaded")]
    Slow(String),
}

impl Models {
    /// # Errors
    /// If the directory cannot be read, or no thread started.
    pub(crate) fn repository(dir: &Path, running: Running, budget: Option<u64>) -> anyhow::Result<Self> {
        let found = scan(dir).with_context(|| format!("the repository {} cannot be read", dir.display()))?;
        let table = found.into_iter().filter_map(|(name, versions)| {
            let model = Model::of(&name, versions, None)?;
            Some((name, model))
        });
        let table = Arc::new(ArcSwap::from_pointee(table.collect::<Table>()));
        let loader = Loader::start(running, budget, &table).context("models cannot be loaded")?;
        let (loading, changing) = (tokio::sync::Mutex::new(()), Mutex::new(()));
        let has_started = AtomicBool::new(false);
        Ok(Self { table, repository: Some(Repository { dir: dir.to_owned(), loader, loading, changing, has_started }) })
    }

    /// Loads the models of a repository as far as there is room, and tells of each how many there are and are left.
    pub(crate) async fn load_all(&self, mut tell: impl FnMut(usize, usize)) {
        let Some(repository) = &self.repository else { return };
        let slots: Vec<_> = self.table.load().values().map(|model| model.current.clone()).collect();
        for (at, slot) in slots.iter().enumerate() {
            tell(at, slots.len());
            repository.loader.load(slot, false, false);
            // Whoever asks for it is told why it failed.
            slot.wait(usize::MAX, Instant::now() + LOAD_WITHIN).await.ok();
        }
        repository.has_started.store(true, Ordering::Release);
    }

    /// The model, once it is loaded.
    ///
    /// # Errors
    /// If it is not by `deadline`.
    pub(crate) async fn ready(&self, slot: &Arc<Slot>, deadline: Option<Instant>) -> Result<Arc<Loaded>, Unready> {
        if let Some(loaded) = slot.loaded() {
            return Ok(loaded);
        }
        let Some(repository) = &self.repository else { return Err(Unready::Loading) };
        repository.ready(slot, deadline, false).await
    }

    /// Loads the newest version of a model that the repository has now, and then serves it in the place of the one before.
    ///
    /// # Errors
    /// If it is not loaded; what was served before is served still.
    pub(crate) async fn load(&self, name: &str) -> Result<(), ManageError> {
        let repository = self.repository.as_ref().ok_or(ManageError::Off)?;
        let _loading = repository.loading.lock().await;
        let unknown = || ManageError::Unknown(name.chars().take(80).collect());
        let versions = if is_plain(name) { scan_model(&repository.dir, name)? } else { Versions::new() };
        let before = self.table.load().get(name).cloned();
        let new = Model::of(name, versions, before.as_ref()).ok_or_else(unknown)?;
        let slot = new.current.clone();
        new.slots.iter().for_each(|slot| slot.want(true));
        // What is new can be found by its version from now on, and by its name once it is loaded.
        repository.change(&self.table, |table| {
            let current = before.as_ref().filter(|before| !before.is_off).map_or(&slot, |before| &before.current);
            let is_off = before.as_ref().is_some_and(|before| before.is_off);
            table.insert(name.to_owned(), Model { slots: new.slots.clone(), current: current.clone(), is_off });
        });
        let loaded = repository.ready(&slot, None, true).await;
        let loaded = loaded.map_err(|unready| match unready {
            Unready::Failed(reason) => ManageError::Failed { name: name.to_owned(), reason },
            Unready::Loading | Unready::Full | Unready::Late => ManageError::Slow(name.to_owned()),
        })?;
        repository.change(&self.table, |table| {
            if let Some(model) = table.get_mut(name) {
                model.current = slot.clone();
                model.is_off = false;
            }
        });
        drop(loaded);
        if let Some(before) = before.filter(|before| !Arc::ptr_eq(&before.current, &slot)) {
            before.current.unload(REPLACED);
        }
        Ok(())
    }

    /// Stops serving a model. What was asked of it is answered, then its memory is free.
    ///
    /// # Errors
    /// If there is none.
    pub(crate) fn unload(&self, name: &str) -> Result<(), ManageError> {
        let repository = self.repository.as_ref().ok_or(ManageError::Off)?;
        let mut slots = None;
        repository.change(&self.table, |table| {
            if let Some(model) = table.get_mut(name) {
                model.is_off = true;
                slots = Some(model.slots.clone());
            }
        });
        for slot in slots.ok_or_else(|| ManageError::Unknown(name.chars().take(80).collect()))? {
            slot.want(false);
            slot.unload(BY_REQUEST);
        }
        Ok(())
    }
}

impl Repository {
    async fn ready(&self, slot: &Arc<Slot>, deadline: Option<Instant>, again: bool) -> Result<Arc<Loaded>, Unready> {
        let limit = Instant::now() + LOAD_WITHIN;
        let until = deadline.map_or(limit, |deadline| deadline.min(limit));
        // Once more if it had to make room before this request took it.
        while slot.is_wanted() {
            self.loader.load(slot, true, again);
            slot.wait(self.loader.places, until).await.map_err(|unready| match unready {
                Unready::Loading if until < limit => Unready::Late,
                other => other,
            })?;
            if let Some(loaded) = slot.loaded() {
                return Ok(loaded);
            }
        }
        Err(Unready::Failed(BY_REQUEST.into()))
    }
}

impl Model {
    /// With the slots that `before` had for files that are as they were.
    fn of(name: &str, versions: Versions, before: Option<&Self>) -> Option<Self> {
        let slot = |(version, artifact): (String, _)| {
            let is_same = |slot: &&Arc<Slot>| {
                slot.identity.version == version && slot.artifact.as_ref().is_some_and(|known| *known == artifact)
            };
            let known = before.and_then(|before| before.slots.iter().find(is_same).cloned());
            known.unwrap_or_else(|| Arc::new(Slot::of(name, &version, artifact)))
        };
        let slots: Vec<_> = versions.into_iter().map(slot).collect();
        let current = slots.last()?.clone();
        Some(Self { slots, current, is_off: false })
    }
}
