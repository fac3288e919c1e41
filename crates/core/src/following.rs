//! What gateways follow: the table published last, what they report, and which workloads they may still send to.
//!
//! Of one term of office, in memory. Pure: time is told by the caller, as passed since the term began.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::evidence::EvidenceReport;
use crate::names::{DeploymentName, Epoch, GatewayId};
use crate::observation::Observed;
use crate::route::{Route, RouteTable, TableVersion};
use crate::workload::WorkloadId;

/// How long a gateway that no longer reports is taken to go on sending by its last table.
pub const SILENT_AFTER: Duration = Duration::from_secs(30);
/// How long after the beginning of a term all gateways that live are taken to have reported: those that followed an
/// earlier control plane need some time to find that it is gone. Until then nobody knows what they send to.
pub const REPORTS_EXPECTED_WITHIN: Duration = Duration::from_secs(10);
/// How long the counts of a gateway that is gone still count.
pub const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);

/// Tables between the slowest gateway's and the one published last that are told apart.
const MOST_TABLES: usize = 64;

#[derive(Debug)]
pub struct Following {
    published: Arc<RouteTable>,
    /// Workloads of earlier tables that some gateway may follow: it has not said that it follows a later one.
    earlier: BTreeMap<TableVersion, BTreeSet<WorkloadId>>,
    reports: BTreeMap<GatewayId, Heard>,
}

#[derive(Debug)]
struct Heard {
    report: EvidenceReport,
    at: Duration,
}

impl Following {
    /// Nothing is published until [`Following::publish`]: an empty table would take everything off the air.
    pub fn new(epoch: Epoch) -> Self {
        let version = TableVersion { epoch, sequence: 0 };
        let published = Arc::new(RouteTable { version, deployments: BTreeMap::new() });
        Self { published, earlier: BTreeMap::new(), reports: BTreeMap::new() }
    }

    /// Makes `routes` the table that all gateways follow. Answers with it, unless it is the one before.
    pub fn publish(&mut self, routes: BTreeMap<DeploymentName, Route>) -> Option<Arc<RouteTable>> {
        let TableVersion { epoch, sequence } = self.published.version;
        if sequence > 0 && self.published.deployments == routes {
            return None;
        }
        self.earlier.insert(self.published.version, self.published.workloads());
        // A gateway that reports and follows nothing would have them grow without end. The two eldest as one: what they name
        // is in use for longer than it need be.
        if self.earlier.len() > MOST_TABLES
            && let Some((_, eldest)) = self.earlier.pop_first()
            && let Some(mut next) = self.earlier.first_entry()
        {
            next.get_mut().extend(eldest);
        }
        let version = TableVersion { epoch, sequence: sequence + 1 };
        self.published = Arc::new(RouteTable { version, deployments: routes });
        Some(self.published.clone())
    }

    pub fn published(&self) -> &Arc<RouteTable> {
        &self.published
    }

    /// Takes a gateway's report. True if it tells something new. One that was overtaken by a later one tells nothing, but
    /// that the gateway lives.
    pub fn report(&mut self, report: EvidenceReport, now: Duration) -> bool {
        self.reports.retain(|_, heard| now.saturating_sub(heard.at) < FORGOTTEN_AFTER);
        match self.reports.get_mut(&report.gateway) {
            Some(known) if known.report.applied > report.applied => {
                known.at = now;
                false
            }
            Some(known) => {
                let is_new = known.report != report;
                *known = Heard { report, at: now };
                is_new
            }
            None => {
                self.reports.insert(report.gateway.clone(), Heard { report, at: now });
                true
            }
        }
    }

    /// All reports that count, of gateways that are gone too.
    pub fn reports(&self) -> impl Iterator<Item = &EvidenceReport> {
        self.reports.values().map(|heard| &heard.report)
    }

    /// The reports of gateways heard of lately.
    pub fn heard(&self, now: Duration) -> impl Iterator<Item = &EvidenceReport> {
        let is_recent = move |heard: &&Heard| now.saturating_sub(heard.at) < SILENT_AFTER;
        self.reports.values().filter(is_recent).map(|heard| &heard.report)
    }

    /// The workloads that a gateway may still send to: those of the table published last, those that gateways report, and
    /// those of any table in between. A gateway may have one of these and not have said so yet, or be about to get it.
    pub fn in_use(&mut self, now: Duration) -> Observed<BTreeSet<WorkloadId>> {
        if now < REPORTS_EXPECTED_WITHIN {
            return Observed::Unknown { reason: "some gateway may not have reported yet".into() };
        }
        let slowest = self.heard(now).map(|report| report.applied).min().unwrap_or(self.published.version);
        self.earlier.retain(|version, _| *version > slowest);
        let reported = self.heard(now).flat_map(|report| report.in_use.iter());
        let earlier = self.earlier.values().flatten();
        let others: BTreeSet<_> = reported.chain(earlier).cloned().collect();
        Observed::Known(self.published.workloads().into_iter().chain(others).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::Variant;
    use crate::weight::Weight;

    fn workload(name: &str) -> WorkloadId {
        format!("m-{name}").parse().unwrap()
    }

    fn routes(names: &[&str]) -> BTreeMap<DeploymentName, Route> {
        let variant = |name: &&str| Variant {
            name: "stable".parse().unwrap(),
            revision: crate::names::RevisionNumber(1),
            version: "1".parse().unwrap(),
            workload: workload(name),
            weight: Weight::FULL,
            fallback: true,
            backends: Vec::new(),
        };
        let route = Route { variants: names.iter().map(variant).collect(), ..Route::default() };
        BTreeMap::from([("m".parse().unwrap(), route)])
    }

    fn report(following: &Following, names: &[&str]) -> EvidenceReport {
        EvidenceReport {
            gateway: "g".parse().unwrap(),
            applied: following.published().version,
            in_use: names.iter().map(|name| workload(name)).collect(),
            variants: Vec::new(),
        }
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    const OLD: &str = "00000000aa";
    const NEW: &str = "00000000bb";

    #[test]
    fn what_a_gateway_may_have_got_and_not_said_yet_is_in_use() {
        let mut following = Following::new(Epoch(1));
        following.publish(routes(&[OLD]));
        following.report(report(&following, &[OLD]), at(20));
        following.publish(routes(&[OLD, NEW]));
        following.publish(routes(&[OLD]));
        let both = BTreeSet::from([workload(OLD), workload(NEW)]);
        assert_eq!(following.in_use(at(21)), Observed::Known(both), "it was told of both, and has not answered");
        following.report(report(&following, &[OLD]), at(22));
        assert_eq!(following.in_use(at(23)), Observed::Known(BTreeSet::from([workload(OLD)])));
    }

    #[test]
    fn a_report_that_was_overtaken_is_not_taken_for_what_is() {
        let mut following = Following::new(Epoch(1));
        following.publish(routes(&[OLD]));
        let early = report(&following, &[OLD]);
        following.publish(routes(&[OLD, NEW]));
        assert!(following.report(report(&following, &[OLD, NEW]), at(20)));
        assert!(!following.report(early, at(21)));
        following.publish(routes(&[OLD]));
        let in_use = following.in_use(at(22));
        assert!(in_use.known().is_some_and(|in_use| in_use.contains(&workload(NEW))), "{in_use:?}");
    }

    #[test]
    fn a_gateway_that_is_silent_for_long_is_not_waited_for() {
        let mut following = Following::new(Epoch(1));
        following.publish(routes(&[OLD]));
        following.report(report(&following, &[OLD]), at(5));
        following.publish(routes(&[NEW]));
        assert_eq!(following.in_use(at(9)).known(), None, "others may not have reported yet");
        assert!(following.in_use(at(34)).known().is_some_and(|in_use| in_use.contains(&workload(OLD))));
        assert_eq!(following.in_use(at(35)), Observed::Known(BTreeSet::from([workload(NEW)])));
    }
}
