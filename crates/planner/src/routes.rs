//! The route of a deployment: variants with weights, and the backends that are ready for them.

use modelyard_core::state::{Phase, Revision, Rollout};
use modelyard_core::{Backend, Mirror, Observation, RevisionNumber, Route, Variant, VariantName, Weight, Window};

use crate::rollout::Next;

/// Weights sum to the whole: the stable revision, or without one the target, has what the target's share leaves.
pub(crate) fn route(next: &Next, observation: &Observation) -> Route {
    let rollout = &next.rollout;
    let mut variants = Vec::new();
    let mut add = |number: RevisionNumber, as_name: VariantName, weight: Weight| {
        let Some(revision) = next.revision(number) else { return };
        let Some(workload) = next.workload_id(number).cloned() else { return };
        let ready = observation.of(&workload).known().into_iter().flat_map(|status| status.ready());
        let backends = ready.map(|(id, address)| Backend { id: id.clone(), address }).collect();
        let version = revision.version.version.clone();
        let fallback = as_name == VariantName::stable();
        variants.push(Variant { name: as_name, revision: number, version, workload, weight, fallback, backends });
    };
    match next.state.stable.filter(|stable| *stable != rollout.revision) {
        Some(stable) => {
            add(stable, VariantName::stable(), rollout.weight.rest());
            add(rollout.revision, target_variant(next.revision(rollout.revision), rollout), rollout.weight);
        }
        None => add(rollout.revision, VariantName::stable(), Weight::FULL),
    }
    for warm in &next.state.warm {
        add(warm.revision, VariantName::previous(), Weight::ZERO);
    }
    Route { window: window(rollout), variants, mirror: mirror(next), ..Route::default() }
}

/// Of the stage under way: what the target is asked besides.
fn mirror(next: &Next) -> Option<Mirror> {
    let rollout = Some(&next.rollout).filter(|rollout| rollout.phase == Phase::Progressing)?;
    let course = next.revision(rollout.revision)?.spec.strategy.course()?;
    let mirroring = course.stages.get(rollout.step as usize)?.mirror.as_ref()?;
    Some(mirroring.to(course.variant()))
}

/// What people call a version on its way: that is how they ask for it, too. One with traffic is a canary by any strategy.
pub(crate) fn target_variant(target: Option<&Revision>, rollout: &Rollout) -> VariantName {
    let course = target.and_then(|revision| revision.spec.strategy.course());
    let unseen = course.filter(|_| rollout.weight.is_zero());
    unseen.map_or_else(VariantName::canary, |course| course.variant())
}

/// The stretch that evidence gathered now belongs to.
pub(crate) fn window(rollout: &Rollout) -> Window {
    let step = match rollout.phase {
        Phase::Starting => 0,
        Phase::Progressing if rollout.warming => WARM_UP | (rollout.step + 1),
        Phase::Progressing => rollout.step + 1,
        Phase::Completed => u32::MAX,
    };
    Window { revision: rollout.revision, step }
}

/// What parts the window of a step's warm-up from that of the step. No canary has that many steps.
const WARM_UP: u32 = 1 << 31;
