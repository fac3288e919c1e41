//! The route of a deployment: variants with weights, the backends that are ready for them, and which requests are whose.

use modelyard_core::inputs::Inputs;
use modelyard_core::state::{Phase, Revision, Rollout};
use modelyard_core::{
    Assignment, Backend, DeploymentName, Experiment, Mirror, Observation, RevisionNumber, Route, Timestamp, Variant,
    VariantName, VersionName, Weight, Window, Workload,
};

use crate::rollout::{Next, split};

/// Weights sum to the whole: the stable revision, or without one the target, has what the target's share leaves.
pub(crate) fn route(name: &DeploymentName, next: &Next, inputs: &Inputs) -> Route {
    let (rollout, observation) = (&next.rollout, &inputs.observation);
    let mut variants = Vec::new();
    match next.state.stable.filter(|stable| *stable != rollout.revision) {
        Some(stable) => {
            variants.extend(of_revision(next, stable, VariantName::stable(), rollout.weight.rest(), observation));
            let target = next.revision(rollout.revision);
            let target_name = target_variant(target, rollout);
            if target.is_some_and(|target| target.variants.is_empty()) {
                variants.extend(of_revision(next, rollout.revision, target_name, rollout.weight, observation));
            } else {
                // Variants have their names and weights once they serve; until then they are reached by version.
                add_unweighted(&mut variants, next, rollout.revision, &target_name, observation);
            }
        }
        None => {
            variants.extend(of_revision(next, rollout.revision, VariantName::stable(), Weight::FULL, observation));
        }
    }
    for warm in &next.state.warm {
        add_unweighted(&mut variants, next, warm.revision, &VariantName::previous(), observation);
    }
    let assignment = assignment(name, next, &variants, inputs.now);
    let rules = in_charge(next).and_then(|revision| revision.spec.strategy.ab_test());
    let rules = rules.map(|test| test.rules.clone()).unwrap_or_default();
    let model = in_charge(next).map(|revision| &revision.spec.model);
    let aliases = model.and_then(|model| inputs.aliases.get(model)).cloned().unwrap_or_default();
    Route { window: window(rollout), variants, assignment, rules, mirror: mirror(next), aliases }
}

/// What a revision runs, without traffic, but for what is there already.
fn add_unweighted(
    variants: &mut Vec<Variant>,
    next: &Next,
    number: RevisionNumber,
    name: &VariantName,
    observation: &Observation,
) {
    for workload in next.runs(number).into_iter().flat_map(|runs| runs.workloads()) {
        if variants.iter().all(|v| v.workload != workload.id) {
            let version = workload.version.clone();
            variants.push(variant(name.clone(), number, version, workload, Weight::ZERO, observation));
        }
    }
}

/// The variants of a revision. The stable one is asked what another one failed; of an A/B test, its first variant is.
fn of_revision(
    next: &Next,
    number: RevisionNumber,
    name: VariantName,
    share: Weight,
    observation: &Observation,
) -> Vec<Variant> {
    let (Some(revision), Some(runs)) = (next.revision(number), next.runs(number)) else { return Vec::new() };
    let is_stable = name == VariantName::stable();
    let shares = split(revision, name, share).into_iter();
    let with_workload = shares.filter_map(|share| Some((runs.workload(share.tested.unwrap_or(0))?, share)));
    let with_workload = with_workload.map(|(workload, share)| {
        let fallback = is_stable && share.tested.unwrap_or(0) == 0;
        let version = share.version.version;
        Variant { fallback, ..variant(share.variant, number, version, workload, share.weight, observation) }
    });
    with_workload.collect()
}

fn variant(
    name: VariantName,
    revision: RevisionNumber,
    version: VersionName,
    workload: &Workload,
    weight: Weight,
    observation: &Observation,
) -> Variant {
    let ready = observation.of(&workload.id).known().into_iter().flat_map(|status| status.ready());
    let backends = ready.map(|(id, address)| Backend { id: id.clone(), address }).collect();
    Variant { name, revision, version, workload: workload.id.clone(), weight, fallback: false, backends }
}

/// The revision that has what a version on trial leaves.
fn in_charge<'n>(next: &'n Next) -> Option<&'n Revision> {
    next.revision(next.state.stable.unwrap_or(next.rollout.revision))
}

/// Of an A/B test: which units have which variant.
fn assignment(name: &DeploymentName, next: &Next, variants: &[Variant], now: Timestamp) -> Option<Assignment> {
    let revision = in_charge(next).filter(|revision| !revision.variants.is_empty())?;
    let weighted = variants.iter().filter(|v| !v.weight.is_zero()).map(|v| (v.name.clone(), v.weight));
    let weighted: Vec<_> = weighted.collect();
    match &next.state.experiment {
        Some(experiment) if next.state.stable.is_some() => experiment.assignment(&weighted),
        // What runs of a first revision serves before it is stable; units have by then what they are to keep.
        _ => Experiment::of(revision, None, false, name, now)?.assignment(&weighted),
    }
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
