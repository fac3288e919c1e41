//! What control planes and gateways tell each other.

use modelyard_core::{EvidenceReport, RouteTable, evidence};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::assert_same;

pub(crate) fn route_table(bytes: &[u8]) {
    if let Some(table) = round::<RouteTable>(bytes) {
        let _ = table.workloads();
    }
}

pub(crate) fn evidence_report(bytes: &[u8]) {
    let Some(report) = round::<EvidenceReport>(bytes) else { return };
    let merged = evidence::merge([&report, &report]);
    for evidence in merged.values() {
        let _ = evidence.latency.quantile_micros(99, 100);
        let _ = evidence.exposure.units.estimate();
        for output in evidence.disagreement.outputs.values() {
            assert!((0.0..=1.0).contains(&output.drift()));
        }
    }
    assert!(merged.len() <= report.variants.len());
    let _ = report.variants.first().map(|v| evidence::examples([&report], &v.deployment, 3));
}

fn round<T: Serialize + DeserializeOwned + std::fmt::Debug>(bytes: &[u8]) -> Option<T> {
    let read: T = serde_json::from_slice(bytes).ok()?;
    let written = serde_json::to_string(&read).expect("what was read is written");
    let again: T = serde_json::from_str(&written).expect("what was written is read");
    assert_same(&again, &read);
    Some(read)
}
