//! How many workers two versions may have while they share a deployment's room: `maxSurge`, as arithmetic.
//!
//! Decided anew in each pass from what was asked for and what is ready, so that it never matters how things came to be
//! as they are. The version to come gets room worker by worker; the stable one gives way only as the newcomers get
//! ready, and keeps one worker for as long as it has traffic that none of them can take. Where there is room for one
//! worker in all, it has to go first.

use modelyard_core::Weight;
use modelyard_core::state::Revision;

/// One version's workers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Workers {
    /// How many its spec asks for, at most.
    pub(crate) size: u32,
    /// How many the runtime was last asked for; `None` while that is unknown.
    pub(crate) asked: Option<u32>,
    pub(crate) ready: u32,
}

/// Two versions with one room.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    pub(crate) surge: u32,
    pub(crate) target: Workers,
    pub(crate) stable: Workers,
    /// The share of traffic that the target's workers must come to bear.
    pub(crate) goal: Weight,
    /// The share that it has.
    pub(crate) weight: Weight,
    pub(crate) is_paused: bool,
}

impl Room {
    pub(crate) fn capacity(&self) -> u32 {
        self.target.size.max(self.stable.size).saturating_add(self.surge)
    }

    /// Whether the two do not fit side by side.
    pub(crate) fn is_tight(&self) -> bool {
        self.capacity() < self.target.size.saturating_add(self.stable.size)
    }

    /// Nothing moves while people want it so, or while it is unknown what runs.
    pub(crate) fn is_held(&self) -> bool {
        self.is_paused || self.target.asked.is_none() || self.stable.asked.is_none()
    }

    /// How many workers the target and the stable version are to have. Together never more than the capacity.
    pub(crate) fn share_out(&self) -> (u32, u32) {
        if !self.is_tight() {
            return (self.target.size, self.stable.size);
        }
        let (capacity, stable) = (self.capacity(), self.stable.size);
        let Some(asked) = self.target.asked else {
            // Whatever it has, it keeps; and so does the stable version.
            let kept = self.stable.asked.unwrap_or(stable).clamp(stable.min(1), stable);
            return (self.target.size.min(capacity - kept), kept);
        };
        let at_once = self.surge.max(1);
        let beside = capacity - stable;
        let grown = if self.is_held() { asked } else { asked.max(self.target.ready + at_once) };
        let coming = grown.min(workers_for(self.goal, self.target.size));
        // Workers beyond those are given back as the stable version's get ready, not before.
        let given_back_late = asked.min(capacity - stable.min(self.stable.ready + at_once));
        let least = u32::from(!self.weight.is_zero());
        let most = capacity - self.reserved_for_stable();
        let target = beside.max(coming).max(given_back_late).max(least).min(most).min(self.target.size);
        (target, stable.min(capacity - target))
    }

    /// One worker, while the stable version has traffic that no worker of the target can take.
    fn reserved_for_stable(&self) -> u32 {
        let has_traffic =
            self.goal < Weight::FULL || self.target.ready == 0 || (self.is_held() && self.weight < Weight::FULL);
        u32::from(has_traffic && self.capacity() > 1).min(self.stable.size)
    }

    /// The target's share of the workers that are ready and stay.
    pub(crate) fn ready_share(&self) -> Weight {
        let (_, stable) = self.share_out();
        let (ready, all) = (self.target.ready, self.target.ready + self.stable.ready.min(stable));
        let basis_points = u64::from(ready) * 10_000 / u64::from(all.max(1));
        u16::try_from(basis_points).ok().and_then(|bp| Weight::from_basis_points(bp).ok()).unwrap_or(Weight::FULL)
    }
}

/// The `maxSurge` that counts for a rollout to `target`. A rollback leaves a version whose manifest may know of bounds
/// that the earlier one did not: there the tightest counts, of all that still run.
pub(crate) fn surge<'r>(target: &'r Revision, others: impl Iterator<Item = &'r Revision>) -> Option<u32> {
    let own = target.spec.strategy.max_surge();
    if !target.cause.is_rollback() {
        return own;
    }
    own.into_iter().chain(others.filter_map(|r| r.spec.strategy.max_surge())).min()
}

/// The workers that bear a share of traffic, of those that bear all of it: rounded up, and at least one.
pub(crate) fn workers_for(share: Weight, all: u32) -> u32 {
    let exact = u64::from(all) * u64::from(share.basis_points());
    u32::try_from(exact.div_ceil(10_000)).unwrap_or(all).max(1).min(all)
}

/// What surge and the present number of workers leave to versions that are kept warm: the newest first.
pub(crate) fn leftovers(capacity: u32, in_use: u32, sizes: impl Iterator<Item = u32>) -> impl Iterator<Item = u32> {
    let mut left = capacity.saturating_sub(in_use);
    sizes.map(move |size| {
        let given = size.min(left);
        left -= given;
        given
    })
}
