//! What Postgres keeps: revisions, the reconciler's state, people's wishes, and who is in office. Every write of a control
//! plane is compared with the state that it was made from, and with the epoch in office.

use std::collections::{BTreeMap, BTreeSet};

use modelyard_core::inputs::DesiredDeployment;
use modelyard_core::plan::Commit;
use modelyard_core::state::{Cause, Control, DeploymentState, Outcome, Phase, Revision};
use modelyard_core::{
    Actor, DeploymentName, DeploymentSpec, Epoch, ModelVersion, RevisionNumber, RevisionVariant, StateVersion,
    Timestamp,
};

/// How long a lease lasts unless it is renewed, in milliseconds.
pub(crate) const LEASE: u64 = 5_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StoreError {
    Fenced,
    Stale,
    NotFound,
    Unavailable,
}

#[derive(Debug, Default)]
pub(crate) struct Store {
    deployments: BTreeMap<DeploymentName, Row>,
    /// The last revision of each name: numbers are never used twice.
    numbers: BTreeMap<DeploymentName, RevisionNumber>,
    pub(crate) office: Office,
}

/// Who decides, by Postgres' clock.
#[derive(Debug, Default)]
pub(crate) struct Office {
    pub(crate) epoch: Epoch,
    pub(crate) holder: Option<usize>,
    pub(crate) expires: u64,
}

#[derive(Debug)]
struct Row {
    desired: DesiredDeployment,
    history: BTreeMap<RevisionNumber, Revision>,
    outcomes: BTreeMap<RevisionNumber, Outcome>,
    served: BTreeSet<RevisionNumber>,
}

impl Office {
    pub(crate) fn take(&mut self, candidate: usize, now: u64) -> Option<Epoch> {
        (self.expires <= now).then(|| {
            *self = Self { epoch: self.epoch.next(), holder: Some(candidate), expires: now + LEASE };
            self.epoch
        })
    }

    /// False if another has it.
    pub(crate) fn renew(&mut self, candidate: usize, epoch: Epoch, now: u64) -> bool {
        let is_holder = self.holder == Some(candidate) && self.epoch == epoch;
        if is_holder {
            self.expires = now + LEASE;
        }
        is_holder
    }
}

/// A revision that people ask for.
pub(crate) struct Asked {
    pub(crate) spec: DeploymentSpec,
    pub(crate) version: ModelVersion,
    pub(crate) variants: Vec<RevisionVariant>,
    pub(crate) cause: Cause,
}

impl Row {
    fn new() -> Self {
        let desired = DesiredDeployment {
            target: RevisionNumber(0),
            revisions: BTreeMap::new(),
            control: Control::default(),
            state: DeploymentState::default(),
            parent: StateVersion(0),
        };
        Self { desired, history: BTreeMap::new(), outcomes: BTreeMap::new(), served: BTreeSet::new() }
    }

    fn touch(&mut self) {
        self.desired.parent = self.desired.parent.next();
    }

    fn is_rolling(&self) -> bool {
        let rollout = self.desired.state.rollout.as_ref();
        !rollout.is_some_and(|r| r.revision == self.desired.target && r.phase == Phase::Completed)
    }

    /// Of the revisions: the target, those that the state names, and those that are pending.
    fn load(&mut self) {
        let desired = &mut self.desired;
        let state = &desired.state;
        let is_named = |n: RevisionNumber| {
            n == desired.target
                || state.stable == Some(n)
                || state.rollout.as_ref().is_some_and(|r| r.revision == n)
                || state.warm.iter().any(|w| w.revision == n)
        };
        let is_loaded = |n: RevisionNumber| is_named(n) || !self.outcomes.contains_key(&n);
        let loaded = self.history.iter().filter(|(n, _)| is_loaded(**n));
        desired.revisions = loaded.map(|(n, revision)| (*n, revision.clone())).collect();
    }
}

impl Store {
    /// # Errors
    /// [`StoreError::Fenced`]
    pub(crate) fn desired(&self, epoch: Epoch) -> Result<BTreeMap<DeploymentName, DesiredDeployment>, StoreError> {
        self.check(epoch)?;
        Ok(self.deployments.iter().map(|(name, row)| (name.clone(), row.desired.clone())).collect())
    }

    /// A decision, whole or not at all.
    ///
    /// # Errors
    /// [`StoreError::Fenced`], [`StoreError::Stale`], [`StoreError::NotFound`]
    pub(crate) fn commit(
        &mut self,
        name: &DeploymentName,
        commit: &Commit,
        epoch: Epoch,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.check(epoch)?;
        let row = self.deployments.get_mut(name).ok_or(StoreError::NotFound)?;
        if row.desired.parent != commit.parent || commit.made_for().is_some_and(|target| target != row.desired.target) {
            return Err(StoreError::Stale);
        }
        if let Some(draft) = &commit.rollback {
            let last = self.numbers.entry(name.clone()).or_default();
            let copied = row.history.get(&draft.to).cloned().ok_or(StoreError::NotFound)?;
            if last.next() != draft.number {
                return Err(StoreError::Stale);
            }
            *last = draft.number;
            let cause = Cause::Rollback { from: draft.from, to: draft.to, reason: draft.reason.clone() };
            let made = Revision { number: draft.number, cause, actor: Actor::system(), created_at: now, ..copied };
            row.history.insert(draft.number, made);
            row.desired.target = draft.number;
        }
        row.desired.state = commit.state.clone();
        row.touch();
        for (number, outcome) in &commit.outcomes {
            if matches!(outcome, Outcome::Completed { .. }) {
                row.served.insert(*number);
            }
            row.outcomes.insert(*number, outcome.clone());
        }
        row.load();
        Ok(())
    }

    fn check(&self, epoch: Epoch) -> Result<(), StoreError> {
        if epoch == self.office.epoch { Ok(()) } else { Err(StoreError::Fenced) }
    }

    // ---- what people write -------------------------------------------------------------------------------------

    pub(crate) fn apply(
        &mut self,
        name: &DeploymentName,
        asked: Asked,
        actor: Actor,
        now: Timestamp,
    ) -> RevisionNumber {
        let number = self.numbers.entry(name.clone()).or_default();
        *number = number.next();
        let number = *number;
        let row = self.deployments.entry(name.clone()).or_insert_with(Row::new);
        let Asked { spec, version, variants, cause } = asked;
        row.history.insert(number, Revision { number, spec, version, variants, cause, actor, created_at: now });
        row.desired.target = number;
        row.touch();
        row.load();
        number
    }

    /// A copy of `to`, or of what last served all traffic. `None` if there is nothing to go back to.
    pub(crate) fn roll_back(
        &mut self,
        name: &DeploymentName,
        to: Option<RevisionNumber>,
        actor: Actor,
        now: Timestamp,
    ) -> Option<(RevisionNumber, RevisionNumber)> {
        let row = self.deployments.get(name)?;
        let target = row.history.get(&row.desired.target)?;
        let is_same = |a: &Revision, b: &Revision| a.spec == b.spec && a.version.version == b.version.version;
        let stable = row.desired.state.stable.filter(|_| row.is_rolling());
        let served = || row.served.iter().rev().copied().filter(|n| *n < target.number);
        let last = || served().find(|n| row.history.get(n).is_some_and(|r| !is_same(r, target)));
        let to = row.history.get(&to.or(stable).or_else(last)?)?;
        if !row.is_rolling() && is_same(to, target) {
            return None;
        }
        let cause = Cause::Rollback { from: target.number, to: to.number, reason: "asked for".into() };
        let (from, to) = (to.number, to.clone());
        let asked = Asked { spec: to.spec, version: to.version, variants: to.variants, cause };
        Some((self.apply(name, asked, actor, now), from))
    }

    /// What people ask of the rollout under way. `None` if there is none.
    pub(crate) fn control(&mut self, name: &DeploymentName, change: impl FnOnce(&mut Control)) -> Option<()> {
        let row = self.deployments.get_mut(name).filter(|row| row.is_rolling())?;
        if row.desired.control.revision != row.desired.target {
            row.desired.control = Control { revision: row.desired.target, ..Control::default() };
        }
        change(&mut row.desired.control);
        row.touch();
        Some(())
    }

    pub(crate) fn delete(&mut self, name: &DeploymentName) -> bool {
        self.deployments.remove(name).is_some()
    }

    // ---- what is known -----------------------------------------------------------------------------------------

    pub(crate) fn row(&self, name: &DeploymentName) -> Option<&DesiredDeployment> {
        self.deployments.get(name).map(|row| &row.desired)
    }

    pub(crate) fn is_rolling(&self, name: &DeploymentName) -> bool {
        self.deployments.get(name).is_some_and(Row::is_rolling)
    }

    /// All revisions that there are of it.
    pub(crate) fn history(&self, name: &DeploymentName) -> Vec<RevisionNumber> {
        self.deployments.get(name).map(|row| row.history.keys().copied().collect()).unwrap_or_default()
    }

    pub(crate) fn outcome(&self, name: &DeploymentName, number: RevisionNumber) -> Option<&Outcome> {
        self.deployments.get(name)?.outcomes.get(&number)
    }
}
