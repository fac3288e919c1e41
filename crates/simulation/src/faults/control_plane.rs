//! What a control plane has in memory: its term of office, what gateways told it, the table that it published last, and the
//! calls that it has under way. Nothing of it survives the term. As `modelyard-control-plane` does it: `gateways.rs`,
//! `office/term.rs` and `reconcile/calls.rs`.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use modelyard_core::inputs::Inputs;
use modelyard_core::plan::Plan;
use modelyard_core::{
    DeploymentName, Epoch, EvidenceReport, Following, GatewayId, Route, Timestamp, Workload, WorkloadId,
};

use super::gateway::Published;
use super::store::LEASE;

/// How much earlier than the store the holder takes its lease for lapsed.
const MARGIN: u64 = 1_000;
/// How long a gateway that is silent is waited for before what it sends to ends; and in a new term, any gateway.
const WAITED_FOR: u64 = 30_000;
const WAITED_FOR_AT_FIRST: u64 = 10_000;
#[derive(Debug)]
pub(crate) struct ControlPlane {
    pub(crate) name: &'static str,
    pub(crate) halt: Option<Halt>,
    /// What its clock shows more than it should, in milliseconds.
    pub(crate) clock_off: i64,
    pub(crate) term: Option<Term>,
}

/// Why it does nothing now.
#[derive(Debug)]
pub(crate) enum Halt {
    /// It ended; what it had in memory is gone.
    Down { until: u64 },
    /// It is stopped, and will not know. What it was about to do is done when it goes on.
    Stopped { until: u64, about: Option<Box<About>> },
}

/// A plan that was made and not carried out yet.
#[derive(Debug)]
pub(crate) struct About {
    pub(crate) plan: Plan,
    pub(crate) observed: u64,
    /// The gateways that had to be waited for then.
    pub(crate) followed: Vec<bool>,
    /// It has asked its term already, and will not again before its first act.
    pub(crate) is_past_check: bool,
}

/// A term of office, as its holder knows it.
#[derive(Debug)]
pub(crate) struct Term {
    pub(crate) epoch: Epoch,
    began: u64,
    lapses: u64,
    pub(crate) published: Rc<Published>,
    pub(crate) following: Following,
    /// When each gateway reported last.
    told: BTreeMap<GatewayId, u64>,
    pub(crate) last: Option<Inputs>,
    pub(crate) calls: BTreeMap<WorkloadId, UnderWay>,
    pub(crate) wake_at: Option<Timestamp>,
}

#[derive(Debug)]
pub(crate) struct UnderWay {
    pub(crate) call: Call,
    pub(crate) number: u64,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Call {
    Ensure(Box<Workload>),
    Remove(WorkloadId),
}

impl Call {
    pub(crate) fn id(&self) -> &WorkloadId {
        match self {
            Self::Ensure(workload) => &workload.id,
            Self::Remove(id) => id,
        }
    }

    pub(crate) fn verb(&self) -> &'static str {
        match self {
            Self::Ensure(_) => "ensure",
            Self::Remove(_) => "remove",
        }
    }
}

impl ControlPlane {
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, halt: None, clock_off: 0, term: None }
    }

    /// What its clock shows.
    pub(crate) fn wall(&self, now: u64) -> Timestamp {
        let millis = 1_764_000_000_000 + i64::try_from(now).unwrap_or(i64::MAX / 2) + self.clock_off;
        Timestamp::from_millis(millis)
    }

    pub(crate) fn runs(&self) -> bool {
        self.halt.is_none()
    }

    /// Whether it believes to be in office.
    pub(crate) fn is_in_office(&self, now: u64) -> bool {
        self.runs() && self.term.as_ref().is_some_and(|term| !term.has_lapsed(now))
    }
}

impl Term {
    pub(crate) fn begin(epoch: Epoch, now: u64) -> Self {
        let following = Following::new(epoch);
        Self {
            epoch,
            began: now,
            lapses: now + LEASE - MARGIN,
            published: Rc::new(Published { table: following.published().clone(), made: now }),
            following,
            told: BTreeMap::new(),
            last: None,
            calls: BTreeMap::new(),
            wake_at: None,
        }
    }

    pub(crate) fn renewed(&mut self, now: u64) {
        self.lapses = now + LEASE - MARGIN;
    }

    pub(crate) fn has_lapsed(&self, now: u64) -> bool {
        now >= self.lapses
    }

    /// How long it has lasted.
    pub(crate) fn age(&self, now: u64) -> Duration {
        Duration::from_millis(now.saturating_sub(self.began))
    }

    pub(crate) fn report(&mut self, report: &EvidenceReport, now: u64) {
        self.told.insert(report.gateway.clone(), now);
        self.following.report(report.clone(), self.age(now));
    }

    /// Whether no workload may end that a gateway sends to, under any of its names: the promise, in numbers of its own.
    pub(crate) fn waits_for(&self, ids: &[GatewayId], now: u64) -> bool {
        let told = |id| self.told.get(id).is_some_and(|told| now < *told + WAITED_FOR);
        now < self.began + WAITED_FOR_AT_FIRST || ids.iter().any(told)
    }

    /// Makes `routes` the table that gateways follow, unless it is already.
    pub(crate) fn publish(&mut self, routes: BTreeMap<DeploymentName, Route>, made: u64) -> bool {
        let table = self.following.publish(routes);
        let is_new = table.is_some();
        if let Some(table) = table {
            self.published = Rc::new(Published { table, made });
        }
        is_new
    }
}
