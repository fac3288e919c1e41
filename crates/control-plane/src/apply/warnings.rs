//! Fields that are accepted and kept, and have no effect here yet. Said aloud: a limit that is not enforced must not
//! be believed in.

use modelyard_core::Strategy;
use modelyard_core::manifest::{Problem, Resource};

use super::documents::Documents;

pub(super) fn of(documents: &Documents<'_>) -> Vec<Problem> {
    let mut warnings = Vec::new();
    for located in &documents.all {
        let Resource::ModelDeployment(deployment) = &located.resource else { continue };
        let mut warn = |path: &str, message: &str| warnings.push(located.problem(path, message));
        if deployment.spec.batching.is_some() {
            warn("spec.batching", "kept, but this build's workers do not batch requests yet");
        }
        if !deployment.spec.resources.is_empty() {
            warn("spec.resources", "kept, but the local runtime does not limit its processes");
        }
        if let Strategy::Canary(canary) = &deployment.spec.strategy
            && canary.analysis.is_some_and(|a| a.max_disagreement.is_some())
        {
            let message = "kept, but disagreement is not measured yet: this limit gates nothing";
            warn("spec.strategy.canary.analysis.maxDisagreement", message);
        }
    }
    warnings
}
