//! The gateways: what they are told (route tables), and what they tell (evidence). In memory only.
//!
//! A table goes out through a `watch` channel: a slow gateway skips to the latest, and never holds another one up.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use modelyard_core::{
    DeploymentName, DisagreementExample, Epoch, Evidence, EvidenceKey, EvidenceReport, GatewayId, Observed, Route,
    RouteTable, TableVersion, VariantEvidence, WorkloadId,
};
use modelyard_store::ExposureRow;
use tokio::sync::{Notify, watch};

/// How long a gateway that no longer reports is taken to go on sending by its last table.
const SILENT_AFTER: Duration = Duration::from_secs(30);
/// How long after the beginning of a term all gateways that live are taken to have reported: those that followed an
/// earlier control plane need some time to find that it is gone. Until then nobody knows what they send to.
const REPORTS_EXPECTED_WITHIN: Duration = Duration::from_secs(10);
/// How long the counts of a gateway that is gone still count.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);
/// How long a gateway that lives takes to apply a table and say so, at most: mostly it is a millisecond.
const APPLIED_WITHIN: Duration = Duration::from_millis(50);

pub struct Gateways {
    table: watch::Sender<Arc<RouteTable>>,
    reports: Mutex<HashMap<GatewayId, Report>>,
    reported: Notify,
    since: Instant,
}

struct Report {
    report: EvidenceReport,
    seen: Instant,
}

impl Gateways {
    /// For one term of office. Nothing is published until [`Gateways::publish`]: an empty table would take
    /// everything off the air.
    pub fn new(epoch: Epoch) -> Self {
        let version = TableVersion { epoch, sequence: 0 };
        let table = RouteTable { version, deployments: BTreeMap::new() };
        Self {
            table: watch::Sender::new(Arc::new(table)),
            reports: Mutex::default(),
            reported: Notify::new(),
            since: Instant::now(),
        }
    }

    /// Makes `routes` the table that all gateways follow. Routes as before are not sent again.
    /// Answers with the table's version, if it is a new one.
    pub fn publish(&self, routes: BTreeMap<DeploymentName, Route>) -> Option<TableVersion> {
        let is_new = self.table.send_if_modified(|table| {
            let TableVersion { epoch, sequence } = table.version;
            let news = sequence == 0 || table.deployments != routes;
            if news {
                let version = TableVersion { epoch, sequence: sequence + 1 };
                *table = Arc::new(RouteTable { version, deployments: routes });
            }
            news
        });
        is_new.then(|| self.table.borrow().version)
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
        let mut reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        reports.retain(|_, r| r.seen.elapsed() < FORGOTTEN_AFTER);
        let news = reports.get(&report.gateway).is_none_or(|known| known.report != report);
        reports.insert(report.gateway.clone(), Report { report, seen: Instant::now() });
        self.reported.notify_waiters();
        news
    }

    /// The sum of what all gateways counted.
    pub fn evidence(&self) -> BTreeMap<EvidenceKey, Evidence> {
        let reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        modelyard_core::evidence::merge(reports.values().map(|r| &r.report))
    }

    /// Who was assigned to which variant, by gateway.
    pub fn exposures(&self) -> Vec<ExposureRow> {
        let reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        let variants = reports.values().flat_map(|r| r.report.variants.iter().map(|v| (&r.report.gateway, v)));
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
        let reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        modelyard_core::evidence::examples(reports.values().map(|r| &r.report), deployment, limit)
    }

    /// The workloads that a gateway may still send to.
    pub fn in_use(&self) -> Observed<BTreeSet<WorkloadId>> {
        let reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        if self.since.elapsed() < REPORTS_EXPECTED_WITHIN {
            return Observed::Unknown { reason: "some gateway may not have reported yet".into() };
        }
        let heard = reports.values().filter(|r| r.seen.elapsed() < SILENT_AFTER);
        let reported = heard.flat_map(|r| r.report.in_use.iter().cloned());
        Observed::Known(self.table.borrow().workloads().into_iter().chain(reported).collect())
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
        let reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        let heard = reports.values().filter(|r| r.seen.elapsed() < SILENT_AFTER);
        heard.map(|r| (r.report.gateway.clone(), r.report.applied)).collect()
    }
}
