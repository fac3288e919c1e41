//! What an experiment keeps, and what it takes outcomes for.

use super::*;
use crate::outcomes::NewOutcome;
use crate::state::Cause;
use crate::{Actor, DeploymentSpec, Digest, Format, ModelVersion, RevisionVariant, Signature};

fn version(name: &str) -> ModelVersion {
    ModelVersion {
        model: "m".parse().unwrap(),
        version: name.parse().unwrap(),
        format: Format::Onnx,
        digest: Digest::of(name.as_bytes()),
        size: 1,
        signature: Signature::default(),
        labels: BTreeMap::new(),
        metadata: BTreeMap::new(),
    }
}

/// Variants as `(name, version, weight in per cent)`.
fn revision(number: u64, variants: &[(&str, &str, f64)], cause: Cause) -> Revision {
    let listed: Vec<_> =
        variants.iter().map(|(n, v, w)| serde_json::json!({"name": n, "version": v, "weight": w})).collect();
    let spec: DeploymentSpec = serde_json::from_value(serde_json::json!({
        "model": "m", "version": "1", "replicas": 1, "rollbackWindow": "10m",
        "strategy": {"abTest": {"variants": listed, "stickyBy": {"header": "x-user"}}},
    }))
    .unwrap();
    let variants = variants.iter().map(|(name, v, weight)| RevisionVariant {
        name: name.parse().unwrap(),
        version: version(v),
        weight: Weight::from_percent(*weight).unwrap(),
    });
    Revision {
        number: RevisionNumber(number),
        spec,
        version: version("1"),
        variants: variants.collect(),
        cause,
        actor: Actor::system(),
        created_at: at(0),
    }
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(1_000_000 + seconds * 1000)
}

fn deployment() -> DeploymentName {
    "d".parse().unwrap()
}

/// One of revision 2, with equal shares.
fn begun() -> Experiment {
    let first = revision(2, &[("a", "1", 50.0), ("b", "2", 50.0)], Cause::Applied);
    Experiment::of(&first, None, false, &deployment(), at(0)).unwrap()
}

fn next(last: &Experiment, revision: &Revision, is_running: bool) -> Experiment {
    Experiment::of(revision, Some(last), is_running, &deployment(), at(100)).unwrap()
}

fn units() -> impl Iterator<Item = String> {
    (0..2000).map(|n| format!("user-{n}"))
}

fn outcome(request_id: Option<&str>, unit: Option<&str>, at: Option<Timestamp>) -> NewOutcome {
    let (request_id, unit) = (request_id.map(|id| id.parse().unwrap()), unit.map(|unit| unit.parse().unwrap()));
    NewOutcome { request_id, unit, metric: "clicked".parse().unwrap(), value: 1.0, at }
}

#[test]
fn other_weights_move_only_the_share_that_they_must() {
    let first = begun();
    let second = next(&first, &revision(3, &[("a", "1", 40.0), ("b", "2", 60.0)], Cause::Applied), true);
    assert_eq!((second.began, second.salt.as_str()), (RevisionNumber(2), "d/2"));
    let assignment = |e: &Experiment, a, b| {
        let weight = |percent| Weight::from_percent(percent).unwrap();
        e.assignment(&[("a".parse().unwrap(), weight(a)), ("b".parse().unwrap(), weight(b))]).unwrap()
    };
    let (before, after) = (assignment(&first, 50.0, 50.0), assignment(&second, 40.0, 60.0));
    let moved: Vec<_> = units().filter(|unit| before.variant_of(unit) != after.variant_of(unit)).collect();
    assert!((120..290).contains(&moved.len()), "{} of 2000 moved, not a tenth", moved.len());
    assert!(moved.iter().all(|unit| after.variant_of(unit).as_str() == "b"), "from the one that shrinks");
}

#[test]
fn the_same_weights_are_the_same_layout() {
    let same = next(&begun(), &revision(3, &[("a", "1", 50.0), ("b", "2", 50.0)], Cause::Applied), true);
    assert_eq!(same.layout().revisions, [RevisionNumber(2), RevisionNumber(3)]);
    assert_eq!(same.layout().since, at(0));
}

#[test]
fn other_versions_another_unit_or_a_test_after_the_end_begin_anew() {
    let first = begun();
    let other = revision(3, &[("a", "1", 50.0), ("b", "3", 50.0)], Cause::Applied);
    assert_eq!(next(&first, &other, true).began, RevisionNumber(3));
    let mut by_cookie = revision(3, &[("a", "1", 50.0), ("b", "2", 50.0)], Cause::Applied);
    if let crate::Strategy::AbTest(test) = &mut by_cookie.spec.strategy {
        test.sticky_by = StickyBy::Cookie("c".parse().unwrap());
    }
    assert_eq!(next(&first, &by_cookie, true).began, RevisionNumber(3));
    let same = revision(5, &[("a", "1", 50.0), ("b", "2", 50.0)], Cause::Applied);
    assert_eq!(next(&first, &same, false).began, RevisionNumber(5), "it was concluded in between");
    let back = Cause::Rollback { from: RevisionNumber(4), to: RevisionNumber(2), reason: "too early".into() };
    let taken_up = next(&first, &Revision { cause: back, ..same }, false);
    assert_eq!((taken_up.began, taken_up.slots()), (RevisionNumber(2), first.slots()), "units have what they had");
}

#[test]
fn a_variant_that_joins_leaves_the_others_their_units() {
    let first = begun();
    let three = revision(3, &[("a", "1", 40.0), ("b", "2", 40.0), ("c", "3", 20.0)], Cause::Applied);
    let second = next(&first, &three, true);
    assert_eq!((second.began, second.versions.len()), (RevisionNumber(2), 3));
}

#[test]
fn what_is_on_trial_beside_it_gives_units_back() {
    let experiment = begun();
    let weight = |percent| Weight::from_percent(percent).unwrap();
    let shares = |a, b, canary| {
        let named = [("a", a), ("b", b), ("canary", canary)].map(|(n, w)| (n.parse().unwrap(), weight(w)));
        experiment.assignment(&named).unwrap()
    };
    let (before, small, large) = (shares(50.0, 50.0, 0.0), shares(45.0, 45.0, 10.0), shares(25.0, 25.0, 50.0));
    for unit in units() {
        let (before, small, large) = (before.variant_of(&unit), small.variant_of(&unit), large.variant_of(&unit));
        assert!(small == before || small.as_str() == "canary", "{unit}: {before} {small}");
        assert!(large == small || large.as_str() == "canary", "{unit}: {small} {large}");
    }
}

#[test]
fn an_outcome_is_of_the_variant_that_its_request_was_assigned() {
    let experiment = next(&begun(), &revision(3, &[("a", "1", 10.0), ("b", "2", 90.0)], Cause::Applied), true);
    let id = request_id::write(7, Some((RevisionNumber(2), &"a".parse().unwrap())));
    let joined = experiment.join(&outcome(Some(&id), Some("ann"), None), at(500)).unwrap();
    assert_eq!((joined.layout, joined.variant.as_str()), (RevisionNumber(2), "a"), "as it was then");
    let other = request_id::write(8, Some((RevisionNumber(2), &"a".parse().unwrap())));
    let again = experiment.join(&outcome(Some(&other), Some("ann"), None), at(500)).unwrap();
    assert_eq!(again.unit, joined.unit);
    assert_ne!(again.key, joined.key, "another request, another outcome");
    assert!(!joined.unit.contains("ann"));
}

#[test]
fn an_outcome_of_a_unit_is_of_the_variant_that_it_had_then() {
    let experiment = next(&begun(), &revision(3, &[("a", "1", 10.0), ("b", "2", 90.0)], Cause::Applied), true);
    let joined = |unit: &str, at: Timestamp| experiment.join(&outcome(None, Some(unit), Some(at)), at).unwrap();
    let of_a = |when: Timestamp| units().filter(|unit| joined(unit, when).variant.as_str() == "a").count();
    let (before, after) = (of_a(at(50)), of_a(at(150)));
    assert!((900..1100).contains(&before) && (150..250).contains(&after), "{before} {after}");
    assert_eq!(joined("ann", at(50)).layout, RevisionNumber(2));
    assert_eq!(joined("ann", at(150)).layout, RevisionNumber(3));
    assert_eq!(joined("ann", at(-50)).layout, RevisionNumber(2), "before it began there was no other");
}

#[test]
fn what_belongs_to_nothing_is_refused_in_words() {
    let experiment = begun();
    let refused =
        |request_id: Option<&str>, unit| experiment.join(&outcome(request_id, unit, None), at(1)).unwrap_err();
    assert_eq!(refused(None, None), JoinError::OfNobody);
    assert!(matches!(refused(Some("order-1"), None), JoinError::NotAssigned(_)));
    let earlier = request_id::write(7, Some((RevisionNumber(1), &"a".parse().unwrap())));
    assert!(matches!(refused(Some(&earlier), None), JoinError::OfAnother(..)));
    assert!(experiment.join(&outcome(Some("order-1"), Some("ann"), None), at(1)).is_ok(), "the unit tells");
}

#[test]
fn an_experiment_reads_back_as_it_was_written() {
    let json = serde_json::to_string(&begun()).unwrap();
    assert_eq!(serde_json::from_str::<Experiment>(&json).unwrap(), begun());
}
