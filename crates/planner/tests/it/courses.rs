//! Blue/green and shadow: a version that is whole, and looked at or asked the same, before it answers anybody.

use modelyard_core::state::Phase;
use modelyard_core::{
    BlueGreen, Canary, DeploymentSpec, Mirroring, Shadow, ShadowStep, Span, Strategy, Variant, VariantName, Weight,
};
use modelyard_planner::{outline, plan};

use crate::world::{World, canary, spec};

fn step() -> ShadowStep {
    ShadowStep { mirror: Mirroring::of(Weight::FULL), hold: Span::from_secs(60) }
}

fn shadow(auto_promote: bool) -> Strategy {
    let Canary { analysis, on_inconclusive, progress_deadline, .. } = canary();
    Strategy::Shadow(Shadow { step: step(), auto_promote, analysis, on_inconclusive, progress_deadline })
}

/// Version 2 is whole, by that strategy.
fn whole(strategy: Strategy) -> World {
    let mut world = World::with_version_1();
    world.apply(spec("2", strategy));
    world.run();
    assert_eq!(world.report().phase, Phase::Starting, "it waits for all of its workers");
    world.all_ready();
    world.run();
    world
}

fn variant(world: &World, name: &VariantName) -> Variant {
    world.route().variants.iter().find(|v| v.name == *name).cloned().expect("a variant of that name")
}

#[test]
fn a_preview_is_whole_and_without_traffic_until_the_flip() {
    let mut world = whole(Strategy::BlueGreen(BlueGreen { hold: Span::from_secs(60), ..BlueGreen::default() }));
    let preview = variant(&world, &VariantName::preview());
    assert_eq!((preview.version.as_str(), preview.weight, preview.backends.len()), ("2", Weight::ZERO, 2));
    assert_eq!(variant(&world, &VariantName::stable()).weight, Weight::FULL);
    assert_eq!(world.report().waiting_on.len(), 1, "{:?}", world.report());

    world.pass_time(60);
    world.run();
    assert_eq!(world.report().phase, Phase::Completed);
    assert_eq!(world.split(), [("2".to_owned(), 100.0)]);
    assert_eq!(variant(&world, &VariantName::previous()).version.as_str(), "1", "the old one stays warm");
}

#[test]
fn people_promote_what_is_not_to_be_promoted_by_itself() {
    let manual = BlueGreen { auto_promote: false, ..BlueGreen::default() };
    let mut world = whole(Strategy::BlueGreen(manual));
    world.pass_time(3600);
    assert!(world.run().commits.is_empty());
    assert_eq!(world.report().waiting_on, ["somebody to promote or abort revision 2"]);
    world.promote();
    world.run();
    assert_eq!(world.split(), [("2".to_owned(), 100.0)]);
}

#[test]
fn a_shadow_is_judged_by_what_it_is_asked_and_answers_nobody() {
    let mut world = whole(shadow(true));
    assert_eq!(variant(&world, &VariantName::shadow()).weight, Weight::ZERO);
    let mirror = world.route().mirror.clone().expect("requests are mirrored");
    assert_eq!((mirror.variant, mirror.share), (VariantName::shadow(), Weight::FULL));
    world.pass_time(60);
    assert!(world.run().commits.is_empty(), "it has not been asked enough");
    world.evidence(1000, 0, 5);
    world.run();
    assert_eq!(world.split(), [("2".to_owned(), 100.0)]);
    assert_eq!(world.route().mirror, None);
    assert!(plan(&world.inputs).is_settled());
}

#[test]
fn a_failing_shadow_is_taken_back_before_anybody_got_its_answers() {
    let mut world = whole(shadow(false));
    world.evidence(200, 100, 5);
    let plan = world.run();
    assert!(plan.commits.values().any(|commit| commit.rollback.is_some()));
    assert_eq!(world.split(), [("1".to_owned(), 100.0)]);
}

#[test]
fn answers_that_were_not_compared_let_nothing_pass() {
    let limited = |strategy| match strategy {
        Strategy::Shadow(Shadow {
            analysis: Some(analysis),
            step,
            auto_promote,
            on_inconclusive,
            progress_deadline,
        }) => {
            let max_disagreement = Some(modelyard_core::Rate::from_share(0.02).unwrap());
            let analysis = Some(modelyard_core::Analysis { max_disagreement, ..analysis });
            Strategy::Shadow(Shadow { analysis, step, auto_promote, on_inconclusive, progress_deadline })
        }
        other => other,
    };
    let mut world = whole(limited(shadow(true)));
    world.evidence(5000, 0, 5);
    world.pass_time(60);
    assert!(world.run().commits.is_empty(), "it answered well, and nobody knows what");
    assert_eq!(world.report().phase, Phase::Progressing);
}

#[test]
fn a_canary_may_begin_as_a_shadow() {
    let mut world = whole(Strategy::Canary(Canary { shadow: Some(step()), ..canary() }));
    assert_eq!(world.split(), [("1".to_owned(), 100.0)]);
    assert_eq!(world.report().step.map(|s| (s.index, s.count)), Some((0, 3)));
    world.evidence(1000, 0, 5);
    world.pass_time(60);
    world.run();
    assert_eq!(world.split(), [("1".to_owned(), 90.0), ("2".to_owned(), 10.0)]);
}

#[test]
fn each_is_told_in_words_before_it_is_applied() {
    let told = |strategy: Strategy| {
        let mut world = World::with_version_1();
        let before = world.desired().clone();
        world.apply(DeploymentSpec { replicas: 2, ..spec("2", strategy) });
        outline(&world.name, Some(&before), world.desired())
    };
    let hold = Span::from_secs(60);
    insta::assert_yaml_snapshot!([
        told(Strategy::BlueGreen(BlueGreen { hold, ..BlueGreen::default() })),
        told(Strategy::BlueGreen(BlueGreen { auto_promote: false, ..BlueGreen::default() })),
        told(shadow(true)),
        told(Strategy::Canary(Canary { shadow: Some(step()), ..canary() })),
    ]);
}
