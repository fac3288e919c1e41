//! What a worker serves: one model that its command line names, or those of a repository, which come and go.
//!
//! Names and versions are looked up in a table that is replaced as a whole, so requests take no lock. A version is in
//! use while a request has it ([`Loaded`] is counted), and its memory is free when the last one lets it go.

mod budget;
mod loader;
mod manage;
mod repository;
mod slot;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use modelyard_core::Format;
use modelyard_engine::EngineOptions;
use modelyard_protocol::IndexItem;

use crate::compute::{BatchLimits, ComputePool, Lane, QueueLimits};
use crate::fetch::Cached;
use crate::http::Inference;
use crate::metrics::Metrics;
use budget::Reservation;
use loader::Loader;
pub(crate) use manage::ManageError;
pub(crate) use slot::{Slot, Unready};

/// The name that clients call, and the version.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    pub(crate) name: String,
    pub(crate) version: String,
}

/// A model that can be asked.
pub(crate) struct Loaded {
    pub(crate) format: Format,
    pub(crate) lane: Lane<Inference>,
    /// Keeps its artifact in the cache.
    _in_use: Option<Cached>,
    /// Its part of the memory.
    _memory: Option<Reservation>,
}

impl Loaded {
    /// Of a worker that serves this only.
    pub(crate) fn alone(format: Format, lane: Lane<Inference>, in_use: Option<Cached>) -> Self {
        Self { format, lane, _in_use: in_use, _memory: None }
    }
}

/// How models are loaded and run.
pub(crate) struct Running {
    pub(crate) engine: EngineOptions,
    pub(crate) queue: QueueLimits,
    pub(crate) batch: Option<BatchLimits>,
    pub(crate) pool: ComputePool<Inference>,
    pub(crate) metrics: Arc<Metrics>,
}

/// The versions of a model, and the one that is asked if none is named.
#[derive(Clone)]
struct Model {
    /// Of ascending versions; at least one.
    slots: Vec<Arc<Slot>>,
    current: Arc<Slot>,
    /// It was unloaded by request, and is not served until it is loaded by request.
    is_off: bool,
}

type Table = BTreeMap<String, Model>;

pub(crate) struct Models {
    table: Arc<ArcSwap<Table>>,
    repository: Option<Repository>,
}

struct Repository {
    dir: PathBuf,
    loader: Loader,
    /// Loadings by request, one at a time: a version must not give way to one before it.
    loading: tokio::sync::Mutex<()>,
    /// Changes of the table, one at a time.
    changing: Mutex<()>,
    /// What is loaded from the start, is.
    has_started: AtomicBool,
}

/// There is no such model.
#[derive(Debug)]
pub(crate) enum NotFound {
    /// And this is what there is.
    Model(String),
    Version(String),
    Off,
}

impl Models {
    pub(crate) fn one(name: &str, version: &str) -> Self {
        let slot = Arc::new(Slot::fixed(name, version));
        let model = Model { slots: vec![slot.clone()], current: slot, is_off: false };
        Self { table: Arc::new(ArcSwap::from_pointee([(name.to_owned(), model)].into())), repository: None }
    }

    pub(crate) fn is_repository(&self) -> bool {
        self.repository.is_some()
    }

    /// The only one, if there is one only by definition.
    pub(crate) fn only(&self) -> Option<Arc<Slot>> {
        if self.is_repository() {
            return None;
        }
        self.table.load().values().next().map(|model| model.current.clone())
    }

    /// # Errors
    /// If there is none, or it was unloaded by request.
    pub(crate) fn find(&self, name: &str, version: Option<&str>) -> Result<Arc<Slot>, NotFound> {
        let table = self.table.load();
        let Some(model) = table.get(name) else {
            let listed = match &self.repository {
                None => table.values().map(|model| model.current.to_string()).collect(),
                Some(repository) => format!("the {} models of {}", table.len(), repository.dir.display()),
            };
            return Err(NotFound::Model(listed));
        };
        let slot = match version {
            None => &model.current,
            Some(version) => {
                let named = |slot: &&Arc<Slot>| slot.identity.version == version;
                model.slots.iter().find(named).ok_or_else(|| NotFound::Version(model.versions()))?
            }
        };
        if model.is_off { Err(NotFound::Off) } else { Ok(slot.clone()) }
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.table.load().keys().cloned().collect()
    }

    /// Whether all that was to be loaded at the start is.
    pub(crate) fn has_started(&self) -> bool {
        match &self.repository {
            None => self.only().is_some_and(|slot| slot.is_loaded()),
            Some(repository) => repository.has_started.load(Ordering::Acquire),
        }
    }

    /// All versions with their states. `unready`: why nothing is ready, if so.
    pub(crate) fn index(&self, unready: Option<&str>) -> Vec<IndexItem> {
        let table = self.table.load();
        let item = |slot: &Arc<Slot>| {
            let own = if self.is_repository() { slot.unready() } else { None };
            let reason = unready.map(str::to_owned).or(own);
            IndexItem::new(&slot.identity.name, &slot.identity.version, reason.as_deref())
        };
        table.values().flat_map(|model| &model.slots).map(item).collect()
    }
}

impl Model {
    fn versions(&self) -> String {
        self.slots.iter().map(|slot| slot.identity.version.as_str()).collect::<Vec<_>>().join(", ")
    }
}

impl Repository {
    fn change(&self, table: &ArcSwap<Table>, change: impl FnOnce(&mut Table)) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut new = Table::clone(&table.load());
        change(&mut new);
        table.store(Arc::new(new));
    }
}
