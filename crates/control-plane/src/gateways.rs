//! The gateways: what they are told (route tables), and what they tell (evidence). In memory only.
//!
//! A table goes out through a `watch` channel: a slow gateway skips to the latest, and never holds another one up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use modelyard_core::{
    DeploymentName, DisagreementExample, Epoch, Evidence, EvidenceKey, EvidenceReport, Following, GatewayId, Observed,
    Route, RouteTable, TableVersion, VariantEvidence, WorkloadId,
};
use modelyard_store::ExposureRow;
use tokio::sync::{Notify, watch};

/// How long a gateway that lives takes to apply a table and say so, at most: mostly it is a millisecond.
const APPLIED_WITHIN: Duration = Duration::from_millis(50);

pub struct Gateways {
    table: watch::Sender<Arc<RouteTable>>,
    following: Mutex<Following>,
    reported: Notify,
    since: Instant,
}

impl Gateways {
    /// For one term of office. Nothing is published until [`Gateways::publish`]: an empty table would take
    /// everything off the air.
    pub fn new(epoch: Epoch) -> Self {
        let following = Following::new(epoch);
        Self {
            table: watch::Sender::new(following.published().clone()),
            following: Mutex::new(following),
            reported: Notify::new(),
            since: Instant::now(),
        }
    }

    /// Makes `routes` the table that all gateways follow. Routes as before are not sent again.
    /// Answers with the table's version, if it is a new one.
    pub fn publish(&self, routes: BTreeMap<DeploymentName, Route>) -> Option<TableVersion> {
        let mut following = self.following();
        let table = following.publish(routes)?;
        let version = table.version;
        // While the lock is held: tables go out in their order.
        self.table.send_replace(table);
        Some(version)
    }

    /// The table published last.
    pub fn published(&self) -> Arc<RouteTable> {
        self.table.borrow().clone()
    }

    /// The latest table, and each one to come. The first may be one that was never published (sequence 0).
    pub fn follow(&self) -> watch::Receiver<Arc<RouteTable>> {
        self.table.subscribe()
    }

    /// Takes a gateway's report. True if it tells something new.
    pub fn report(&self, report: EvidenceReport) -> bool {
        let is_new = self.following().report(report, self.since.elapsed());
        self.reported.notify_waiters();
        is_new
    }

    /// The sum of what all gateways counted.
    pub fn evidence(&self) -> BTreeMap<EvidenceKey, Evidence> {
        modelyard_core::evidence::merge(self.following().reports())
    }

    /// Who was assigned to which variant, by gateway.
    pub fn exposures(&self) -> Vec<ExposureRow> {
        let following = self.following();
        let variants = following.reports().flat_map(|report| report.variants.iter().map(|v| (&report.gateway, v)));
        let exposed = variants.filter(|(_, v)| !v.evidence.exposure.is_empty());
        let row = |(gateway, v): (&GatewayId, &VariantEvidence)| ExposureRow {
            deployment: v.deployment.clone(),
            revision: v.revision,
            variant: v.variant.clone(),
            gateway: gateway.clone(),
            window: v.window,
            exposure: v.evidence.exposure.clone(),
        };
        exposed.map(row).collect()
    }

    /// The latest mirrored requests of a deployment that were answered otherwise, the latest first. None unless its mirror
    /// keeps some.
    pub fn examples(&self, deployment: &DeploymentName, limit: usize) -> Vec<DisagreementExample> {
        modelyard_core::evidence::examples(self.following().reports(), deployment, limit)
    }

    /// The workloads that a gateway may still send to.
    pub fn in_use(&self) -> Observed<BTreeSet<WorkloadId>> {
        self.following().in_use(self.since.elapsed())
    }

    /// Waits until all gateways that were heard of lately follow this table or a later one. Not for long: one of them may
    /// have gone since.
    pub async fn caught_up(&self, version: TableVersion) {
        let caught_up = async {
            loop {
                let mut reported = std::pin::pin!(self.reported.notified());
                reported.as_mut().enable();
                if self.known().iter().all(|(_, applied)| *applied >= version) {
                    return;
                }
                reported.await;
            }
        };
        tokio::time::timeout(APPLIED_WITHIN, caught_up).await.ok();
    }

    /// The gateways heard of lately, with the table each follows.
    pub fn known(&self) -> Vec<(GatewayId, TableVersion)> {
        let following = self.following();
        following.heard(self.since.elapsed()).map(|report| (report.gateway.clone(), report.applied)).collect()
    }

    fn following(&self) -> MutexGuard<'_, Following> {
        self.following.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
