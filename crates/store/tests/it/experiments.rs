//! A/B tests: variants, outcomes and exposures as they are kept, and the end of an experiment.

use modelyard_core::experiment::Joined;
use modelyard_core::outcomes::NewOutcome;
use modelyard_core::state::Cause;
use modelyard_core::{
    AbTest, AbVariant, DeploymentSpec, Exposure, RevisionNumber, StickyBy, Strategy, UnitHash, VariantName, Weight,
    Window, request_id,
};
use modelyard_store::{ApplyBatch, ExposureRow, OutcomeRow, ProblemStatus, StoreError};

use crate::support::{Fixture, ann, deployment, name, now, revision};

fn test_of(versions: [&str; 2]) -> Strategy {
    let variant = |(variant, version): (&str, &str)| AbVariant {
        name: variant.parse().unwrap(),
        model: None,
        version: version.parse().unwrap(),
        weight: Weight::from_percent(50.0).unwrap(),
    };
    Strategy::AbTest(AbTest {
        variants: ["a", "b"].into_iter().zip(versions).map(variant).collect(),
        sticky_by: StickyBy::ClientIp,
        rules: Vec::new(),
        holdout: None,
        salt: None,
        metrics: Vec::new(),
    })
}

fn batch(strategy: Strategy) -> ApplyBatch {
    let mut manifest = deployment("m", "1");
    manifest.spec = DeploymentSpec { strategy, ..manifest.spec };
    let mut batch = ApplyBatch::default();
    batch.add_deployment(0, manifest, None);
    batch
}

/// With an A/B test of versions 1 and 2 that serves, as revision 2.
async fn under_test() -> Fixture {
    let fixture = Fixture::with_deployment().await;
    fixture.complete().await;
    fixture.apply(batch(test_of(["1", "2"]))).await.unwrap();
    fixture.complete().await;
    fixture
}

async fn outcomes(fixture: &Fixture, posted: &[(&str, &str, f64)]) -> u64 {
    let experiment = fixture.store.experiment(&name("m")).await.unwrap().experiment;
    let row = |(request, unit, value): &(&str, &str, f64)| {
        let (request_id, unit) = (Some(request.parse().unwrap()), Some(unit.parse().unwrap()));
        let outcome = NewOutcome { request_id, unit, metric: "spent".parse().unwrap(), value: *value, at: None };
        let joined = experiment.join(&outcome, now()).unwrap();
        OutcomeRow { joined, metric: outcome.metric, value: *value, at: now() }
    };
    let rows: Vec<_> = posted.iter().map(row).collect();
    fixture.store.record_outcomes(&name("m"), experiment.began, &rows).await.unwrap()
}

fn request(number: u128, variant: &str) -> String {
    request_id::write(number, Some((revision(2), &variant.parse().unwrap())))
}

#[tokio::test]
async fn variants_are_kept_with_their_versions_and_read_everywhere() {
    let fixture = under_test().await;
    let row = fixture.store.revision(&name("m"), revision(2)).await.unwrap().revision;
    let kept: Vec<_> = row.variants.iter().map(|v| (v.name.as_str(), v.version.version.as_str())).collect();
    assert_eq!(kept, [("a", "1"), ("b", "2")]);
    let desired = &fixture.store.desired(fixture.epoch).await.unwrap()[&name("m")];
    assert_eq!(desired.revisions[&revision(2)], row);
    let again = fixture.apply(batch(test_of(["1", "2"]))).await.unwrap();
    assert_eq!(again.documents[0].revision, Some(revision(2)), "nothing new");
    let experiment = fixture.store.experiment(&name("m")).await.unwrap();
    assert!(experiment.running && experiment.revision == row);
}

#[tokio::test]
async fn a_variant_of_no_version_is_refused_in_its_place() {
    let fixture = Fixture::with_deployment().await;
    let StoreError::Refused(problems) = fixture.apply(batch(test_of(["1", "9"]))).await.unwrap_err() else { panic!() };
    let found: Vec<_> = problems.iter().map(|p| (p.path.as_str(), p.status)).collect();
    assert_eq!(found, [("spec.strategy.abTest.variants[1].version", ProblemStatus::Invalid)]);
    assert!(matches!(fixture.store.experiment(&name("m")).await, Err(StoreError::NotFound { .. })));
}

#[tokio::test]
async fn a_version_that_is_a_variant_is_in_use() {
    let fixture = under_test().await;
    let deleted = fixture.store.delete_version(&"m".parse().unwrap(), &"2".parse().unwrap(), &ann(), now()).await;
    let StoreError::InUse { by, .. } = deleted.unwrap_err() else { panic!() };
    assert_eq!(by, ["deployment m (revision 2)"]);
}

#[tokio::test]
async fn an_outcome_counts_once_and_a_unit_is_one_number() {
    let fixture = under_test().await;
    let posted = [
        (request(1, "a"), "ann", 10.0),
        (request(2, "a"), "ann", 20.0),
        (request(3, "a"), "bob", 3.0),
        (request(4, "b"), "cid", 7.0),
    ];
    let posted: Vec<_> = posted.iter().map(|(r, u, v)| (r.as_str(), *u, *v)).collect();
    assert_eq!(outcomes(&fixture, &posted).await, 4);
    assert_eq!(outcomes(&fixture, &posted).await, 0, "the same again");
    let other = (posted[0].0, "ann", 99.0);
    assert_eq!(outcomes(&fixture, &[other]).await, 0, "the first one counts");
    let tallies = async |summed: &[&str]| {
        let summed: Vec<_> = summed.iter().map(|name| name.parse().unwrap()).collect();
        let tallies = fixture.store.tallies(&name("m"), revision(2), revision(2), &summed).await.unwrap();
        tallies.iter().map(|t| (t.variant.to_string(), t.units, t.mean, t.variance)).collect::<Vec<_>>()
    };
    assert_eq!(tallies(&[]).await, [("a".into(), 2, 9.0, 72.0), ("b".into(), 1, 7.0, 0.0)]);
    assert_eq!(tallies(&["spent"]).await[0], ("a".into(), 2, 16.5, 364.5));
    assert!(fixture.store.tallies(&name("m"), revision(2), revision(3), &[]).await.unwrap().is_empty());
}

#[tokio::test]
async fn ten_thousand_outcomes_are_one_statement() {
    let fixture = under_test().await;
    let row = |n: usize| OutcomeRow {
        joined: Joined {
            layout: revision(2),
            variant: if n.is_multiple_of(2) { "a" } else { "b" }.parse().unwrap(),
            unit: format!("{n:032x}"),
            key: format!("{n:032x}"),
        },
        metric: "clicked".parse().unwrap(),
        value: f64::from(u8::from(n.is_multiple_of(3))),
        at: now(),
    };
    let rows: Vec<_> = (0..10_000).map(row).collect();
    assert_eq!(fixture.store.record_outcomes(&name("m"), revision(2), &rows).await.unwrap(), 10_000);
    let tallies = fixture.store.tallies(&name("m"), revision(2), revision(2), &[]).await.unwrap();
    assert_eq!(tallies.iter().map(|t| t.units).sum::<u64>(), 10_000);
}

#[tokio::test]
async fn exposures_add_up_over_gateways_and_outlive_them() {
    let fixture = under_test().await;
    let row = |gateway: &str, units: std::ops::Range<u32>| {
        let mut exposure = Exposure { requests: u64::from(units.end - units.start), ..Exposure::default() };
        let salt = "m/2".parse().unwrap();
        units.for_each(|unit| exposure.units.add(UnitHash::of(&salt, &unit.to_string())));
        ExposureRow {
            deployment: name("m"),
            revision: revision(2),
            variant: "a".parse().unwrap(),
            gateway: gateway.parse().unwrap(),
            window: Window { revision: revision(2), step: u32::MAX },
            exposure,
        }
    };
    let gone = ExposureRow { deployment: name("gone"), ..row("one", 0..5) };
    let write = async |rows: &[ExposureRow]| fixture.store.record_exposures(rows).await.unwrap();
    write(&[row("one", 0..10), row("two", 5..20), gone]).await;
    write(&[row("one", 0..12)]).await;
    write(&[row("one", 0..3)]).await;
    let kept = fixture.store.exposures(&name("m"), &[revision(2)]).await.unwrap();
    let a: VariantName = "a".parse().unwrap();
    assert_eq!((kept[&a].requests, kept[&a].units.estimate()), (27, 20), "a unit that came to both is one");
    assert!(fixture.store.exposures(&name("m"), &[revision(1)]).await.unwrap().is_empty());
}

#[tokio::test]
async fn concluding_makes_a_revision_of_the_winners_version() {
    let fixture = under_test().await;
    let conclude = async |winner: &str, expected: Option<RevisionNumber>| {
        let winner: VariantName = winner.parse().unwrap();
        fixture.store.conclude(&name("m"), &winner, Strategy::rolling(), expected, &ann(), now()).await
    };
    assert!(matches!(conclude("c", None).await, Err(StoreError::Invalid { .. })));
    assert!(matches!(conclude("b", Some(revision(1))).await, Err(StoreError::Stale { .. })));
    let row = conclude("b", None).await.unwrap().revision;
    assert_eq!((row.number, row.version.version.as_str()), (revision(3), "2"));
    assert_eq!(row.cause, Cause::Concluded { experiment: revision(2), winner: "b".parse().unwrap() });
    assert!(row.variants.is_empty());
    assert!(matches!(conclude("b", None).await, Err(StoreError::Conflict { .. })), "its rollout is under way");
}

#[tokio::test]
async fn a_rollback_copies_variants() {
    let fixture = under_test().await;
    fixture.deploy("2").await;
    fixture.complete().await;
    let back = fixture.store.rollback(&name("m"), Some(revision(2)), "why", None, &ann(), now()).await.unwrap();
    assert_eq!(back.revision.variants.len(), 2);
}
