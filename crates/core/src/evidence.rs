//! Evidence: what gateways saw of each variant. Never stored; verdicts keep the numbers they were made on.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::disagreement::{Disagreement, DisagreementExample};
use crate::histogram::LatencyHistogram;
use crate::names::{DeploymentName, GatewayId, RevisionNumber, VariantName};
use crate::route::{TableVersion, Window};
use crate::units::Exposure;
use crate::workload::WorkloadId;

/// What one gateway has counted since it started. Reports replace each other; none is a difference.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvidenceReport {
    pub gateway: GatewayId,
    /// The route table it follows.
    pub applied: TableVersion,
    /// Workloads that its table names, or that still have requests of it in flight.
    pub in_use: BTreeSet<WorkloadId>,
    pub variants: Vec<VariantEvidence>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VariantEvidence {
    pub deployment: DeploymentName,
    pub window: Window,
    pub revision: RevisionNumber,
    /// A gateway of an earlier version names none: whatever it counted is read as of the version on trial, which decisions
    /// are made on; that of other revisions is then found by nobody.
    #[serde(default = "VariantName::canary")]
    pub variant: VariantName,
    pub evidence: Evidence,
    /// The latest mirrored requests that this variant answered otherwise; none unless the route asks for them. Apart
    /// from the evidence: decisions are made on counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub examples: Vec<DisagreementExample>,
}

/// Which requests belong together: those of one variant within one window of its deployment. The variants of an experiment
/// share a revision.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EvidenceKey {
    pub deployment: DeploymentName,
    pub window: Window,
    pub revision: RevisionNumber,
    pub variant: VariantName,
}

/// Counts of one variant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Requests that this variant was asked, answered or not. Mirrored ones too.
    pub requests: u64,
    /// Of those, the ones it failed: 5xx, a broken or timed-out exchange, or a refusal (4xx) of what the fallback
    /// then answered. A refusal that the fallback shares is the caller's mistake, and not counted. Of mirrored requests, all that got no
    /// answer below 400: another variant could answer them.
    pub errors: u64,
    /// Errors that the caller never saw, since the fallback answered.
    pub rescued: u64,
    /// Of the answers, from the gateway's first byte sent to the last received.
    pub latency: LatencyHistogram,
    /// Who was assigned to this variant.
    #[serde(default, skip_serializing_if = "Exposure::is_empty")]
    pub exposure: Exposure,
    /// How this variant's answers to mirrored requests differ from those that clients got.
    #[serde(default, skip_serializing_if = "Disagreement::is_empty")]
    pub disagreement: Disagreement,
}

impl Evidence {
    pub fn merge(&mut self, other: &Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.errors = self.errors.saturating_add(other.errors);
        self.rescued = self.rescued.saturating_add(other.rescued);
        self.latency.merge(&other.latency);
        self.exposure.merge(&other.exposure);
        self.disagreement.merge(&other.disagreement);
    }
}

/// The sum over gateways.
pub fn merge<'a>(reports: impl IntoIterator<Item = &'a EvidenceReport>) -> BTreeMap<EvidenceKey, Evidence> {
    let mut all = BTreeMap::<EvidenceKey, Evidence>::new();
    for v in reports.into_iter().flat_map(|r| &r.variants) {
        let key = EvidenceKey {
            deployment: v.deployment.clone(),
            window: v.window,
            revision: v.revision,
            variant: v.variant.clone(),
        };
        all.entry(key).or_default().merge(&v.evidence);
    }
    all
}

/// The latest `limit` examples of a deployment's disagreement over all gateways, the latest first.
pub fn examples<'a>(
    reports: impl IntoIterator<Item = &'a EvidenceReport>,
    deployment: &DeploymentName,
    limit: usize,
) -> Vec<DisagreementExample> {
    let of_deployment = reports.into_iter().flat_map(|r| &r.variants).filter(|v| v.deployment == *deployment);
    let mut all: Vec<_> = of_deployment.flat_map(|v| &v.examples).cloned().collect();
    all.sort_by(|a, b| (b.at, &b.request_id).cmp(&(a.at, &a.request_id)));
    all.truncate(limit);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(variant: &str, requests: u64) -> EvidenceReport {
        let text = format!(
            r#"{{"gateway": "g", "applied": {{"epoch": 1, "sequence": 1}}, "in_use": [], "variants": [{{
                "deployment": "m", "window": {{"revision": 2, "step": 1}}, "revision": 2, {variant}
                "evidence": {{"requests": {requests}, "errors": 0, "rescued": 0, "latency": {{}}}}}}]}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn variants_of_one_revision_are_told_apart() {
        let reports =
            [report(r#""variant": "a","#, 1), report(r#""variant": "b","#, 2), report(r#""variant": "a","#, 4)];
        let merged = merge(&reports);
        let requests: Vec<_> = merged.iter().map(|(key, e)| (key.variant.as_str(), e.requests)).collect();
        assert_eq!(requests, [("a", 5), ("b", 2)]);
    }

    #[test]
    fn what_a_gateway_of_an_earlier_version_reports_is_of_the_version_on_trial() {
        let merged = merge(&[report("", 3)]);
        let (key, evidence) = merged.first_key_value().unwrap();
        assert_eq!((key.variant.clone(), evidence.requests), (VariantName::canary(), 3));
        assert!(evidence.disagreement.is_empty() && evidence.exposure.is_empty());
    }
}
