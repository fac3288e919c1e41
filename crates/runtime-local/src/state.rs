//! What this process knows of its workloads: the wishes, and how far each replica has come.
//!
//! The one place where a replica's supervisor is started and let go, so that there is never a second one.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use modelyard_core::{Observation, Observed, ReplicaPhase, ReplicaStatus, Workload, WorkloadId, WorkloadStatus};
use modelyard_runtime::{ArtifactSource, RuntimeError};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::config::LocalConfig;
use crate::record::{Records, Wish, replica_dir, workers_dir};
use crate::replica::Supervisor;

/// What a replica's supervisor works towards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal {
    Run,
    End,
}

pub(crate) struct Shared {
    pub(crate) config: LocalConfig,
    pub(crate) artifacts: Arc<dyn ArtifactSource>,
    pub(crate) changes: watch::Sender<u64>,
    /// `None` after shutdown. Held over every change of wishes, on disk and in memory, so that both agree.
    pub(crate) records: Arc<tokio::sync::Mutex<Option<Records>>>,
    state: Mutex<BTreeMap<WorkloadId, Entry>>,
    /// Supervision is over, so what is known here ages.
    abandoned: AtomicBool,
}

struct Entry {
    wish: Wish,
    replicas: BTreeMap<u32, Slot>,
}

struct Slot {
    /// As its supervisor sees it; [`Slot::seen`] is what others see.
    status: ReplicaStatus,
    /// It was told to end, whatever is wished since.
    ending: bool,
    /// Its process, if any, has been looked for and asked whether it is ready.
    looked: bool,
    goal: watch::Sender<Goal>,
    supervisor: JoinHandle<()>,
}

impl Slot {
    fn seen(&self) -> ReplicaStatus {
        let mut seen = self.status.clone();
        if self.ending || *self.goal.borrow() == Goal::End {
            seen.phase = ReplicaPhase::Draining;
        }
        seen
    }
}

/// What a supervisor reports of its replica.
pub(crate) struct Report<'a> {
    pub(crate) status: &'a mut ReplicaStatus,
    pub(crate) ending: &'a mut bool,
}

impl Shared {
    pub(crate) fn new(config: LocalConfig, artifacts: Arc<dyn ArtifactSource>, records: Records) -> Self {
        Self {
            config,
            artifacts,
            changes: watch::Sender::new(0),
            records: Arc::new(tokio::sync::Mutex::new(Some(records))),
            state: Mutex::default(),
            abandoned: AtomicBool::new(false),
        }
    }

    /// Runs `work` with the records to itself, where it may block. Once begun it ends, even if the caller is gone.
    pub(crate) async fn with_records<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Arc<Self>, &mut Records) -> Result<T, RuntimeError> + Send + 'static,
    ) -> Result<T, RuntimeError> {
        let mut records = self.records.clone().lock_owned().await;
        let shared = self.clone();
        let done = tokio::task::spawn_blocking(move || match records.as_mut() {
            Some(records) => work(&shared, records),
            None => Err(RuntimeError::Unavailable("it has been shut down".into())),
        });
        done.await.map_err(|error| RuntimeError::Unavailable(error.to_string()))?
    }

    /// `None` once supervision is over.
    pub(crate) fn observation(&self) -> Option<Observation> {
        let state = self.state();
        let workloads = state.iter().map(|(id, entry)| {
            let mut replicas: Vec<ReplicaStatus> = entry.replicas.values().map(Slot::seen).collect();
            replicas.sort_by(|a, b| a.id.cmp(&b.id));
            let status = WorkloadStatus {
                workload: entry.wish.workload.clone(),
                epoch: entry.wish.epoch,
                replicas,
                drift: Vec::new(),
                messages: Vec::new(),
                autoscaler: None,
            };
            (id.clone(), Observed::Known(status))
        });
        (!self.abandoned.load(Ordering::Relaxed)).then(|| Observation { workloads: workloads.collect() })
    }

    pub(crate) fn wish(&self, id: &WorkloadId) -> Option<Wish> {
        self.state().get(id).map(|entry| entry.wish.clone())
    }

    pub(crate) fn workload(&self, id: &WorkloadId) -> Option<Workload> {
        self.wish(id).map(|wish| wish.workload)
    }

    /// The directory of a replica that is there.
    pub(crate) fn replica_dir(&self, id: &WorkloadId, number: u32) -> Option<PathBuf> {
        let there = self.state().get(id)?.replicas.contains_key(&number);
        there.then(|| replica_dir(&workers_dir(&self.config.state_dir), id, number))
    }

    pub(crate) fn all_looked_at(&self) -> bool {
        self.state().values().flat_map(|entry| entry.replicas.values()).all(|slot| slot.looked)
    }

    /// Sets the supervisors of a workload to work. `existing` replicas that are not wished are ended.
    ///
    /// Call it with the records held and the wish recorded.
    pub(crate) fn apply(self: &Arc<Self>, wish: Wish, existing: &[u32]) {
        let wanted = if wish.removing { 0 } else { wish.workload.replicas };
        let id = wish.workload.id.clone();
        let mut state = self.state();
        let entry = state.entry(id.clone()).or_insert_with(|| Entry { wish: wish.clone(), replicas: BTreeMap::new() });
        entry.wish = wish;
        for (number, slot) in &entry.replicas {
            slot.goal.send_replace(if *number < wanted { Goal::Run } else { Goal::End });
        }
        for number in (0..wanted).chain(existing.iter().copied().filter(|number| *number >= wanted)) {
            entry.replicas.entry(number).or_insert_with(|| self.slot(&id, number, number < wanted));
        }
        drop(state);
        self.bump();
    }

    fn slot(self: &Arc<Self>, id: &WorkloadId, number: u32, run: bool) -> Slot {
        let goal = watch::Sender::new(if run { Goal::Run } else { Goal::End });
        let supervisor = Supervisor::new(self.clone(), id.clone(), number, goal.subscribe());
        Slot {
            status: ReplicaStatus {
                id: number.to_string().parse().expect("a number is a fine backend id"),
                phase: ReplicaPhase::Starting,
                endpoint: None,
                restarts: 0,
                message: None,
            },
            ending: false,
            looked: false,
            goal,
            // It cannot look for its slot before the caller lets go of the state.
            supervisor: tokio::spawn(supervisor.run()),
        }
    }

    /// Lets a replica without a process go, and its workload with the last of them, if that is still wished.
    /// Returns whether it is gone. Call it with the records held.
    pub(crate) fn retire(&self, records: &Records, id: &WorkloadId, number: u32) -> Result<bool, RuntimeError> {
        let last = {
            let state = self.state();
            let Some(entry) = state.get(id) else { return Ok(true) };
            let Some(slot) = entry.replicas.get(&number) else { return Ok(true) };
            if *slot.goal.borrow() == Goal::Run {
                return Ok(false);
            }
            entry.wish.removing && entry.replicas.len() == 1
        };
        // Wishes change only under the records, which the caller holds: what was just read still holds.
        records.forget_replica(id, number)?;
        if last {
            records.forget(id)?;
        }
        let mut state = self.state();
        if last {
            state.remove(id);
        } else if let Some(entry) = state.get_mut(id) {
            entry.replicas.remove(&number);
        }
        drop(state);
        self.bump();
        Ok(true)
    }

    /// Forgets a workload that is to be removed and has no replica. Call it with the records held.
    pub(crate) fn forget_if_empty(&self, records: &Records, id: &WorkloadId) -> Result<(), RuntimeError> {
        let empty = self.state().get(id).is_some_and(|entry| entry.wish.removing && entry.replicas.is_empty());
        if empty {
            records.forget(id)?;
            self.state().remove(id);
            self.bump();
        }
        Ok(())
    }

    /// Changes what is known of a replica, and says so to whoever watches if it shows.
    pub(crate) fn report(&self, id: &WorkloadId, number: u32, change: impl FnOnce(Report<'_>)) {
        let mut state = self.state();
        let Some(slot) = state.get_mut(id).and_then(|entry| entry.replicas.get_mut(&number)) else { return };
        let before = slot.seen();
        change(Report { status: &mut slot.status, ending: &mut slot.ending });
        let changed = slot.seen() != before;
        drop(state);
        if changed {
            self.bump();
        }
    }

    pub(crate) fn looked_at(&self, id: &WorkloadId, number: u32) {
        let mut state = self.state();
        let Some(slot) = state.get_mut(id).and_then(|entry| entry.replicas.get_mut(&number)) else { return };
        let first = !std::mem::replace(&mut slot.looked, true);
        drop(state);
        if first {
            self.bump();
        }
    }

    /// Ends supervision, not processes. The supervisors have ended once the handles have.
    pub(crate) fn abandon(&self) -> Vec<JoinHandle<()>> {
        let mut state = self.state();
        self.abandoned.store(true, Ordering::Relaxed);
        let workloads = std::mem::take(&mut *state);
        drop(state);
        let slots = workloads.into_values().flat_map(|entry| entry.replicas.into_values());
        slots.map(|slot| slot.supervisor).inspect(JoinHandle::abort).collect()
    }

    fn bump(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    fn state(&self) -> MutexGuard<'_, BTreeMap<WorkloadId, Entry>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
