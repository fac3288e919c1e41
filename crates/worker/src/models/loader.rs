//! Loading the models of a repository: one after the other, on a thread of its own, within the memory that they may
//! have. Where it does not suffice, those that nobody has used for longest make room, unless somebody uses them now.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use modelyard_engine::{Engine, load, warm_up};

use super::budget::{Budget, Reservation, estimate};
use super::slot::Slot;
use super::{Loaded, Running, Table};
use crate::compute::LaneOptions;
use crate::size::ByteSize;

/// How long a model waits for others that are in use to be let go.
const ROOM_WITHIN: Duration = Duration::from_secs(10);
const MADE_ROOM: &str = "it made room for another model: the next request loads it again";
const NO_ROOM: &str = "there was no room for it at the start: the first request loads it";

pub(super) struct Loader {
    jobs: Sender<Job>,
    /// Requests that may wait for one model.
    pub(super) places: usize,
}

struct Job {
    slot: Arc<Slot>,
    /// Others may be unloaded for it.
    makes_room: bool,
}

struct Thread {
    running: Running,
    budget: Arc<Budget>,
    table: Arc<ArcSwap<Table>>,
}

impl Loader {
    /// # Errors
    /// If its thread cannot be started.
    pub(super) fn start(running: Running, budget: Option<u64>, table: &Arc<ArcSwap<Table>>) -> std::io::Result<Self> {
        let (jobs, queue) = channel();
        let places = running.queue.places;
        let thread = Thread { running, budget: Budget::new(budget), table: table.clone() };
        std::thread::Builder::new().name("loader".into()).spawn(move || thread.run(&queue))?;
        Ok(Self { jobs, places })
    }

    /// Has it loaded, if it is not, and nobody has asked for that already. `again`: even if that failed just now.
    pub(super) fn load(&self, slot: &Arc<Slot>, makes_room: bool, again: bool) {
        if slot.begin_loading(again) && self.jobs.send(Job { slot: slot.clone(), makes_room }).is_err() {
            slot.failed("the thread that loads models has ended".into());
        }
    }
}

impl Thread {
    fn run(&self, jobs: &Receiver<Job>) {
        while let Ok(Job { slot, makes_room }) = jobs.recv() {
            let metrics = &self.running.metrics;
            match self.load(&slot, makes_room) {
                Ok(Some(_)) if !slot.is_wanted() => slot.give_up(super::manage::BY_REQUEST),
                Ok(Some(loaded)) => {
                    // Before those who wait for it learn of it.
                    metrics.loaded(&slot.identity, self.count() + 1, self.budget.used());
                    slot.set(Arc::new(loaded));
                }
                Ok(None) => slot.give_up(NO_ROOM),
                Err(error) => {
                    tracing::warn!(model = %slot, "it was not loaded: {error:#}");
                    slot.failed(format!("{error:#}"));
                }
            }
        }
    }

    /// `None`: there is no room.
    fn load(&self, slot: &Arc<Slot>, makes_room: bool) -> anyhow::Result<Option<Loaded>> {
        let begun = Instant::now();
        let artifact = slot.artifact.as_ref().context("it has no file")?;
        let Running { engine: options, queue, batch, pool, metrics } = &self.running;
        let sessions = options.onnxruntime.is_some().then_some(options.parallelism as u64);
        let needed = estimate(artifact.format, artifact.bytes, sessions);
        let Some(memory) = self.room(slot, needed, makes_room)? else { return Ok(None) };
        let engine = open(artifact.format, &artifact.path, options)?;
        if let Err(error) = warm_up(&*engine) {
            tracing::debug!(model = %slot, "the warm-up on zeros failed, which real requests need not: {error}");
        }
        let name = engine.name();
        let inference = metrics.inference_of(&slot.identity);
        let lane = pool.lane(LaneOptions { engine, queue: *queue, batch: *batch, inference });
        tracing::info!(model = %slot, engine = name, memory = %ByteSize(needed), elapsed = ?begun.elapsed(), "loaded");
        Ok(Some(Loaded { format: artifact.format, lane, _in_use: None, _memory: Some(memory) }))
    }

    fn room(&self, slot: &Slot, needed: u64, makes_room: bool) -> anyhow::Result<Option<Reservation>> {
        if let Some(limit) = self.budget.limit().filter(|limit| needed > *limit) {
            anyhow::bail!("it needs {}, and --memory-budget is {}", ByteSize(needed), ByteSize(limit));
        }
        let begun = Instant::now();
        loop {
            if let Some(reserved) = self.budget.reserve(needed) {
                return Ok(Some(reserved));
            }
            if !makes_room {
                return Ok(None);
            }
            if let Some(victim) = self.least_recently_used() {
                if victim.unload(MADE_ROOM) {
                    tracing::info!(model = %victim, "unloaded to make room for {slot}");
                    self.running.metrics.evicted(&victim.identity, self.count(), self.budget.used());
                }
                continue;
            }
            let left = ROOM_WITHIN.checked_sub(begun.elapsed()).with_context(|| {
                format!("it needs {}, and all models that are loaded are in use: try again", ByteSize(needed))
            })?;
            // One that is let go of may be idle without being freed.
            self.budget.wait(left.min(Duration::from_millis(20)));
        }
    }

    fn least_recently_used(&self) -> Option<Arc<Slot>> {
        let table = self.table.load();
        let idle = table.values().flat_map(|model| &model.slots).filter_map(|slot| Some((slot.idle_since()?, slot)));
        idle.min_by_key(|(since, _)| *since).map(|(_, slot)| slot.clone())
    }

    fn count(&self) -> usize {
        self.table.load().values().flat_map(|model| &model.slots).filter(|slot| slot.is_loaded()).count()
    }
}

fn open(
    format: modelyard_core::Format,
    path: &Path,
    options: &modelyard_engine::EngineOptions,
) -> anyhow::Result<Arc<dyn Engine>> {
    Ok(Arc::from(load(format, path, options)?))
}
