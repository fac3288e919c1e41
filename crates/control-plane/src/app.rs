//! What the handlers and the reconciler share, for one term of office.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use modelyard_core::plan::DeploymentReport;
use modelyard_core::{DeploymentName, Timestamp};
use modelyard_runtime::Runtime;
use modelyard_store::Store;
use tokio::sync::{RwLock, watch};

use crate::access::Access;
use crate::apply::sources::Sources;
use crate::artifacts::Artifacts;
use crate::exposures::Kept;
use crate::gateways::Gateways;
use crate::inspect::Inspector;
use crate::measurements::Measurements;
use crate::office::Term;
use crate::wake::Wake;

pub type Reports = BTreeMap<DeploymentName, DeploymentReport>;

pub struct App {
    /// What it may act by. All of this ends with it.
    pub term: Term,
    /// Refuses writes once the term is over.
    pub store: Store,
    pub access: Arc<Access>,
    pub artifacts: Arc<Artifacts>,
    pub runtime: Arc<dyn Runtime>,
    pub gateways: Gateways,
    /// What of the gateways' counts is in Postgres.
    pub exposures_kept: Kept,
    pub inspector: Inspector,
    /// What gates ask of a Prometheus.
    pub measurements: Measurements,
    pub wake: Arc<Wake>,
    /// What the last reconcile found of each deployment.
    pub reports: watch::Sender<Arc<Reports>>,
    /// Of artifacts that are not uploaded.
    pub sources: Sources,
    /// Read while an artifact is being registered, written while unused ones are deleted: none is deleted between its
    /// inspection and its registration.
    pub registration: RwLock<()>,
}

impl App {
    pub fn report(&self, name: &DeploymentName) -> Option<DeploymentReport> {
        self.reports.borrow().get(name).cloned()
    }
}

/// The clock. Decisions get the time from here, as an argument.
pub fn now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
}
