//! What runs workloads: workers take time to get ready, crash, hang in their start for good, and wait for room. Writers of
//! an epoch before the latest that wrote are refused.

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};

use fastrand::Rng;
use modelyard_core::{
    BackendId, Epoch, Observation, Observed, ReplicaPhase, ReplicaStatus, Timestamp, Workload, WorkloadId,
    WorkloadStatus,
};

/// Earlier observations that are kept, to be told late.
const REMEMBERED: usize = 8;
/// How long a worker that is ended finishes what it has.
const DRAINS_FOR: u64 = 10_000;
/// The version whose workers never get ready.
pub(crate) const DOOMED: &str = "5";

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fenced;

#[derive(Debug, Default)]
pub(crate) struct Runtime {
    /// The latest epoch that wrote.
    pub(crate) fence: Epoch,
    running: BTreeMap<WorkloadId, Running>,
    /// What was seen lately, the latest last.
    seen: VecDeque<Observation>,
    /// Workers that there is room for in all.
    pub(crate) room: usize,
    made: u32,
    /// Where ended workloads had their workers, and when each was ended.
    ended: BTreeMap<SocketAddr, (WorkloadId, u64)>,
}

#[derive(Debug)]
struct Running {
    workload: Workload,
    epoch: Epoch,
    workers: Vec<Worker>,
    /// Until when it drains.
    removing: Option<u64>,
}

#[derive(Debug)]
struct Worker {
    id: BackendId,
    address: SocketAddr,
    phase: At,
    restarts: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// For want of room.
    Pending,
    Starting {
        ready: u64,
    },
    Ready,
    BackOff {
        until: u64,
    },
}

impl Runtime {
    pub(crate) fn with_room(room: usize) -> Self {
        Self { room, ..Self::default() }
    }

    pub(crate) fn ensure(&mut self, workload: &Workload, epoch: Epoch, now: u64) -> Result<(), Fenced> {
        self.admit(epoch)?;
        let running = self.running.entry(workload.id.clone()).or_insert_with(|| Running {
            workload: workload.clone(),
            epoch,
            workers: Vec::new(),
            removing: None,
        });
        // One that is asked for while it drains comes back: it was not gone yet.
        if running.removing.take().is_some() {
            running.workers.clear();
        }
        (running.workload, running.epoch) = (workload.clone(), epoch);
        self.scale(now);
        Ok(())
    }

    /// True if it was there.
    pub(crate) fn remove(&mut self, id: &WorkloadId, epoch: Epoch, now: u64) -> Result<bool, Fenced> {
        self.admit(epoch)?;
        let Some(running) = self.running.get_mut(id).filter(|running| running.removing.is_none()) else {
            return Ok(false);
        };
        running.removing = Some(now + DRAINS_FOR);
        running.epoch = epoch;
        self.ended.extend(running.workers.iter().map(|worker| (worker.address, (id.clone(), now))));
        Ok(true)
    }

    fn admit(&mut self, epoch: Epoch) -> Result<(), Fenced> {
        if epoch < self.fence {
            return Err(Fenced);
        }
        self.fence = epoch;
        Ok(())
    }

    /// Lets time pass.
    pub(crate) fn tick(&mut self, now: u64) {
        self.running.retain(|_, running| running.removing.is_none_or(|until| until > now));
        for running in self.running.values_mut().filter(|running| running.removing.is_none()) {
            let is_doomed = running.workload.version.as_str() == DOOMED;
            for worker in &mut running.workers {
                worker.phase = match worker.phase {
                    At::Starting { ready } if ready <= now && !is_doomed => At::Ready,
                    At::Starting { ready } if ready <= now => {
                        worker.restarts += 1;
                        At::BackOff { until: now + 10_000 }
                    }
                    At::BackOff { until } if until <= now => At::Starting { ready: now + 2_000 },
                    phase => phase,
                };
            }
        }
        self.scale(now);
    }

    /// Each workload gets as many workers as it asks for, as far as there is room.
    fn scale(&mut self, now: u64) {
        let taken = |running: &Running| running.workers.iter().filter(|w| w.phase != At::Pending).count();
        let mut free = self.room.saturating_sub(self.running.values().map(taken).sum());
        for running in self.running.values_mut().filter(|running| running.removing.is_none()) {
            let wanted = running.workload.replicas as usize;
            while running.workers.len() > wanted {
                running.workers.pop();
            }
            while running.workers.len() < wanted {
                self.made += 1;
                let address = SocketAddr::from((Ipv4Addr::from(0x0a00_0000 + self.made), 8000));
                let Ok(id) = self.made.to_string().parse() else { return };
                running.workers.push(Worker { id, address, phase: At::Pending, restarts: 0 });
            }
            for worker in running.workers.iter_mut().filter(|worker| worker.phase == At::Pending) {
                if free == 0 {
                    break;
                }
                free -= 1;
                // Spread, without dice: what is asked at one time is not ready at one time.
                let ready = now + 300 + 700 * u64::from(self.made % 5);
                worker.phase = At::Starting { ready };
            }
        }
    }

    /// As it is.
    pub(crate) fn observe(&mut self, wall: impl Fn(u64) -> Timestamp) -> Observation {
        let workloads = self.running.iter().map(|(id, running)| (id.clone(), Observed::Known(running.status(&wall))));
        let observation = Observation { workloads: workloads.collect() };
        if self.seen.back() != Some(&observation) {
            self.seen.push_back(observation.clone());
            if self.seen.len() > REMEMBERED {
                self.seen.pop_front();
            }
        }
        observation
    }

    /// As it was a while ago.
    pub(crate) fn recall(&self, rng: &mut Rng) -> Option<&Observation> {
        (!self.seen.is_empty()).then(|| self.seen.get(rng.usize(..self.seen.len())))?
    }

    /// A worker that was ready ends by itself.
    pub(crate) fn crash(&mut self, rng: &mut Rng, now: u64) -> Option<WorkloadId> {
        let ready = self.running.iter_mut().filter(|(_, running)| running.removing.is_none());
        let ready = ready.flat_map(|(id, running)| running.workers.iter_mut().map(move |worker| (id, worker)));
        let mut ready: Vec<_> = ready.filter(|(_, worker)| worker.phase == At::Ready).collect();
        let chosen = (!ready.is_empty()).then(|| rng.usize(..ready.len()))?;
        let (id, worker) = ready.get_mut(chosen)?;
        worker.phase = At::BackOff { until: now + 5_000 };
        worker.restarts += 1;
        Some((*id).clone())
    }

    // ---- what is known -----------------------------------------------------------------------------------------

    /// Whether a worker at the address takes requests.
    pub(crate) fn answers(&self, workload: &WorkloadId, address: SocketAddr) -> bool {
        let running = self.running.get(workload);
        running.is_some_and(|r| r.workers.iter().any(|w| w.address == address && w.phase == At::Ready))
    }

    /// When the workload that had a worker there was ended, if it was.
    pub(crate) fn ended(&self, address: SocketAddr) -> Option<u64> {
        self.ended.get(&address).map(|(_, at)| *at)
    }

    /// Takes it that the workload was never ended.
    pub(crate) fn forgive(&mut self, id: &WorkloadId) {
        self.ended.retain(|_, (ended, _)| ended != id);
    }

    pub(crate) fn ids(&self) -> Vec<WorkloadId> {
        let staying = self.running.iter().filter(|(_, running)| running.removing.is_none());
        staying.map(|(id, _)| id.clone()).collect()
    }
}

impl Running {
    fn status(&self, wall: impl Fn(u64) -> Timestamp) -> WorkloadStatus {
        let phase = |at: At| match at {
            _ if self.removing.is_some() => ReplicaPhase::Draining,
            At::Pending | At::Starting { .. } => ReplicaPhase::Starting,
            At::Ready => ReplicaPhase::Ready,
            At::BackOff { until } => ReplicaPhase::BackOff { until: wall(until) },
        };
        let replicas = self.workers.iter().map(|worker| ReplicaStatus {
            id: worker.id.clone(),
            phase: phase(worker.phase),
            endpoint: Some(worker.address),
            restarts: worker.restarts,
            message: (worker.phase == At::Pending).then(|| "there is no room".to_owned()),
        });
        let (workload, epoch) = (self.workload.clone(), self.epoch);
        WorkloadStatus {
            workload,
            epoch,
            replicas: replicas.collect(),
            drift: Vec::new(),
            messages: Vec::new(),
            autoscaler: None,
        }
    }
}
