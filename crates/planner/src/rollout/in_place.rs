//! The walk where both versions do not fit side by side (`maxSurge`): the newcomer's workers take the place of the
//! stable version's one by one, and traffic follows those that are ready.
//!
//! The stages are those of any walk. A rolling update shares out traffic by ready workers until all of them are; each
//! step of a canary begins with the share of the one before, and its hold with its own weight. See `capacity.rs` for
//! the numbers.

use std::collections::BTreeMap;

use modelyard_core::state::Phase;
use modelyard_core::{Autoscaling, Observed, RevisionNumber, Weight, Workload, WorkloadId, WorkloadStatus};

use super::Walk;
use crate::capacity::{self, Room, Workers, leftovers, workers_for};
use crate::runs::Runs;

impl Walk<'_> {
    /// What must keep running: with how many workers, at most.
    pub(super) fn wanted(&self) -> BTreeMap<WorkloadId, Workload> {
        let sizes = self.sizes();
        let limited = |number: RevisionNumber| {
            let size = sizes.get(&number).copied().unwrap_or(0);
            let workloads = self.workloads_of(number);
            // Several have room beside each other, or none would be bounded.
            let limit = move |w: &Workload| if workloads.len() > 1 { w.clone() } else { w.clone().limited_to(size) };
            workloads.iter().map(limit)
        };
        let mut wanted = BTreeMap::<WorkloadId, Workload>::new();
        // Before a version of an A/B test takes over, it is both the target's and the stable revision's.
        for workload in [self.rollout.revision].into_iter().chain(self.state.stable).flat_map(limited) {
            let known = wanted.remove(&workload.id);
            let both = known.map_or_else(|| workload.clone(), |known| enough_for_both(known, &workload));
            wanted.insert(workload.id.clone(), both);
        }
        for workload in self.state.warm.iter().rev().flat_map(|warm| limited(warm.revision)) {
            wanted.entry(workload.id.clone()).or_insert(workload);
        }
        wanted
    }

    fn sizes(&self) -> BTreeMap<RevisionNumber, u32> {
        let target = self.rollout.revision;
        let mut sizes = BTreeMap::from([(target, self.size(target))]);
        sizes.extend(self.state.stable.map(|stable| (stable, self.size(stable))));
        let mut warm: Vec<_> = self.state.warm.iter().map(|w| w.revision).collect();
        let Some(surge) = self.surge() else {
            sizes.extend(warm.into_iter().map(|number| (number, self.size(number))));
            return sizes;
        };
        let capacity = match (self.room(surge), self.state.stable) {
            (Some(room), Some(stable)) => {
                let (of_target, of_stable) = room.share_out();
                sizes.extend([(target, of_target), (stable, of_stable)]);
                room.capacity()
            }
            _ => self.size(target).saturating_add(surge),
        };
        warm.reverse();
        let in_use = sizes.values().sum();
        let given = leftovers(capacity, in_use, warm.iter().map(|number| self.size(*number)));
        sizes.extend(warm.iter().copied().zip(given));
        sizes
    }

    /// The room that the target and the stable version share, if they do not fit side by side.
    pub(super) fn tight_room(&self) -> Option<Room> {
        self.room(self.surge()?).filter(Room::is_tight)
    }

    /// Whether the unfinished rollout has more ready workers than the stable version that gave way to it. Then those
    /// go on serving while what comes after it starts: to give all traffic to the few that are left would overrun them.
    pub(super) fn has_outgrown_stable(&self, known: RevisionNumber) -> bool {
        let Some(stable) = self.state.stable else { return false };
        let mut of_stable = self.workloads_of(stable).iter().zip(self.observed(stable));
        let gave_way = of_stable.any(|(w, o)| o.known().is_some_and(|s| s.workload.size() < w.size()));
        let is_same = self.ids_of(known) == self.ids_of(self.desired.target);
        gave_way && !is_same && self.ready_replicas(known) > self.ready_replicas(stable)
    }

    /// From the target's first worker to its first share of traffic; without steps, to all of it.
    pub(super) fn start_in_place(&mut self, room: &Room) -> bool {
        let (ready, needed) = (room.target.ready, self.needed_replicas(self.rollout.revision));
        // A rollback asks for no more than what serves now has.
        let may_take_over = ready >= needed || (self.is_rollback() && ready > 0 && ready >= room.stable.ready);
        let is_paused = self.is_held_by_pause();
        if may_take_over && !is_paused {
            return self.complete();
        }
        if room.is_held() {
            self.wait_for_workers(room, Weight::FULL);
            return false;
        }
        let first = self.course().filter(|_| !self.is_rollback() && room.capacity() > 1);
        match first.and_then(|course| course.stages.first().cloned()) {
            Some(step) if ready > 0 => self.enter_canary_step(0, Some(step)),
            Some(step) => {
                self.wait_for_workers(room, step.weight);
                false
            }
            None => {
                self.rollout.weight = room.ready_share();
                self.wait_for_workers(room, Weight::FULL);
                false
            }
        }
    }

    /// Whether the target has the workers for that share of traffic, and, short of all of it, the share. Until then it
    /// has as much as its ready workers make of all.
    pub(super) fn is_up_to(&mut self, goal: Weight) -> bool {
        let Some(room) = self.tight_room() else { return true };
        if goal < Weight::FULL && self.rollout.weight >= goal {
            return true;
        }
        let needed = workers_for(goal, self.needed_replicas(self.rollout.revision));
        if !room.is_paused && room.target.ready >= needed {
            (self.rollout.weight, self.rollout.since) = (goal, self.inputs.now);
            return true;
        }
        if !room.is_held() && room.target.ready > 0 {
            let share = room.ready_share().clamp(self.weight_before(), goal);
            // With the whole weight the hold would begin: for that the workers must be there.
            self.rollout.weight = if goal < Weight::FULL && share == goal { self.rollout.weight } else { share };
        }
        self.wait_for_workers(&room, goal);
        false
    }

    // ---- what is known -----------------------------------------------------------------------------------------

    fn room(&self, surge: u32) -> Option<Room> {
        let (target, phase) = (self.rollout.revision, self.rollout.phase);
        let stable = self.state.stable.filter(|stable| *stable != target && phase != Phase::Completed)?;
        let control = &self.desired.control;
        Some(Room {
            surge,
            target: self.workers(target),
            stable: self.workers(stable),
            goal: self.goal(),
            weight: self.rollout.weight,
            is_paused: control.revision == target && control.paused_by.is_some(),
        })
    }

    fn workers(&self, number: RevisionNumber) -> Workers {
        let asked = |observed: &Observed<WorkloadStatus>| match observed {
            Observed::Known(status) => Some(status.workload.size()),
            Observed::Absent => Some(0),
            Observed::Unknown { .. } => None,
        };
        let asked = self.observed(number).map(asked).sum();
        Workers { size: self.size(number), asked, ready: self.ready_replicas(number) }
    }

    fn size(&self, number: RevisionNumber) -> u32 {
        self.runs.get(&number).map_or(0, Runs::size)
    }

    /// The variants of an A/B test are whole, side by side: nothing to or from them is bounded.
    fn surge(&self) -> Option<u32> {
        let revision = |number| self.revisions.get(&number);
        let others = self.state.stable.into_iter().chain(self.state.warm.iter().map(|w| w.revision));
        let (target, others) = (revision(self.rollout.revision)?, others.filter_map(revision));
        let is_tested = [target].into_iter().chain(others.clone()).any(|r| !r.variants.is_empty());
        if is_tested { None } else { capacity::surge(target, others) }
    }

    /// The share of traffic that the target's workers are to be there for.
    fn goal(&self) -> Weight {
        let Some(course) = self.course().filter(|_| !self.is_rollback() && !self.is_promoted()) else {
            return Weight::FULL;
        };
        let step = match self.rollout.phase {
            Phase::Starting => course.stages.first(),
            Phase::Progressing => course.stages.get(self.rollout.step as usize),
            Phase::Completed => None,
        };
        step.map_or(Weight::FULL, |step| step.weight)
    }

    /// What the step before the present one has brought.
    fn weight_before(&self) -> Weight {
        let before = (self.rollout.step as usize).checked_sub(1);
        let step = self.course().and_then(|course| Some(course.stages.get(before?)?.weight));
        step.unwrap_or(Weight::ZERO)
    }

    fn wait_for_workers(&mut self, room: &Room, goal: Weight) {
        self.is_coming_up = true;
        let all = self.needed_replicas(self.rollout.revision);
        let (ready, needed, version) = (room.target.ready, workers_for(goal, all), self.target_version());
        let whole = if goal < Weight::FULL { format!(" for {goal} of the traffic") } else { String::new() };
        self.wait(format!("{ready} of {needed} workers of version {version} are ready{whole}"));
        let Some(stable) = self.state.stable.map(|stable| self.version_of(stable)) else { return };
        self.wait(match room.capacity() {
            0 | 1 => format!(
                "there is room for one worker (maxSurge {}): version {stable} ends before version {version} can start, \
                 and nothing serves in between",
                room.surge
            ),
            capacity => format!(
                "there is room for {capacity} workers (maxSurge {}): version {stable} gives way as version {version} \
                 gets ready",
                room.surge
            ),
        });
    }
}

/// One workload that two revisions run, each in its own number: with as many workers as either needs, and room for as many
/// as either may have.
fn enough_for_both(mut one: Workload, other: &Workload) -> Workload {
    let (needed, size) = (one.needed().max(other.needed()), one.size().max(other.size()));
    one.replicas = one.replicas.max(other.replicas).max(needed.min(size));
    one.autoscaling = one.autoscaling.or(other.autoscaling).map(|limits| Autoscaling {
        min_replicas: limits.min_replicas.max(needed),
        max_replicas: limits.max_replicas.max(size),
        ..limits
    });
    one
}
