//! What an experiment has shown: estimates and differences that may be looked at at any time, and whether units were
//! split as they should be.
//!
//! Pure, like all of this crate: the same numbers give the same report. [`report`] is what people read; the plan takes
//! the sample ratio alone, for a condition.

mod means;
mod ratio;
mod summary;

pub use means::{LEAST_UNITS, Sample};
pub use ratio::sample_ratio;
pub use summary::{Shown, report};

use std::collections::BTreeMap;

use modelyard_core::outcomes::SampleRatio;
use modelyard_core::{DeploymentName, Evidence, EvidenceKey, Route};

/// Of an experiment that serves everyone, by what gateways have counted since its latest revision came to serve.
pub(crate) fn ratio_of_route(
    deployment: &DeploymentName,
    route: &Route,
    evidence: &BTreeMap<EvidenceKey, Evidence>,
) -> Option<SampleRatio> {
    let serves_all = route.window.step == u32::MAX;
    let assignment = route.assignment.as_ref().filter(|_| serves_all)?;
    let tested = route.variants.iter().filter(|v| assignment.slots.iter().any(|slot| slot.variant == v.name));
    let exposures = tested.map(|variant| {
        let (window, revision) = (route.window, variant.revision);
        let key = EvidenceKey { deployment: deployment.clone(), window, revision, variant: variant.name.clone() };
        let exposure = evidence.get(&key).map(|evidence| evidence.exposure.clone()).unwrap_or_default();
        (variant.name.clone(), variant.weight, exposure)
    });
    let exposures: Vec<_> = exposures.collect();
    Some(sample_ratio(exposures.iter().map(|(name, weight, exposure)| (name, *weight, &exposure.units))))
}
