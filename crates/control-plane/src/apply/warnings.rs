//! Fields that are accepted and kept, and have no effect here yet. Said aloud: a limit that is not enforced must not
//! be believed in.

use modelyard_core::Course;
use modelyard_core::manifest::{Problem, Resource};

use super::documents::Documents;

pub(super) fn of(documents: &Documents<'_>, runtime: &str) -> Vec<Problem> {
    let mut warnings = Vec::new();
    for located in &documents.all {
        let Resource::ModelDeployment(deployment) = &located.resource else { continue };
        let mut warn = |path: &str, message: &str| warnings.push(located.problem(path, message));
        if runtime == "local" {
            let spec = &deployment.spec;
            if !spec.resources.is_empty() {
                warn("spec.resources", "kept, but the local runtime does not limit its processes");
            }
            for (path, is_set) in [
                ("spec.nodeSelector", !spec.node_selector.is_empty()),
                ("spec.tolerations", !spec.tolerations.is_empty()),
                ("spec.autoscaling", spec.autoscaling.is_some()),
                ("spec.disruptionBudget", spec.disruption_budget.is_some()),
            ] {
                if is_set {
                    warn(path, "kept, but only a cluster heeds it");
                }
            }
        }
        let limit = |course: &Course| course.analysis.as_ref().is_some_and(|a| a.max_disagreement.is_some());
        let is_blind = |course: &Course| limit(course) && course.stages.iter().all(|stage| stage.mirror.is_none());
        if deployment.spec.strategy.course().as_ref().is_some_and(is_blind) {
            let message = "kept, but it gates nothing: answers are compared where requests are mirrored, as by a canary's \
                           `shadow`";
            warn(&format!("spec.strategy.{}.analysis.maxDisagreement", deployment.spec.strategy), message);
        }
    }
    warnings
}
