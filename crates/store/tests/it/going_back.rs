//! Rollbacks, aborts, and what people ask of a rollout.

use modelyard_core::state::Cause;
use modelyard_store::{ControlVerb, StoreError};

use crate::support::*;

fn is_conflict<T>(result: Result<T, StoreError>) -> bool {
    matches!(result, Err(StoreError::Conflict { .. }))
}

#[tokio::test]
async fn a_rollback_goes_to_what_served_before() {
    let fixture = Fixture::with_deployment().await;
    let (name, actor) = (name("m"), ann());
    let back = async |to| fixture.store.rollback(&name, to, "why", None, &actor, now()).await;
    fixture.complete().await;
    assert!(is_conflict(back(None).await), "there is nothing before it");
    fixture.deploy("2").await;
    let row = back(None).await.unwrap();
    assert_eq!((row.revision.number, row.revision.version.version.as_str()), (revision(3), "1"), "to the stable one");
    assert!(matches!(row.revision.cause, Cause::Rollback { from, to, .. } if (from, to) == (revision(2), revision(1))));
    fixture.complete().await;

    fixture.deploy("2").await;
    fixture.complete().await;
    assert_eq!(back(None).await.unwrap().revision.version.version.as_str(), "1", "to the last that served and differs");
    fixture.complete().await;
    assert!(is_conflict(back(Some(revision(1))).await), "it is what serves");
    assert!(matches!(back(Some(revision(99))).await, Err(StoreError::NotFound { .. })));
    assert_eq!(back(Some(revision(4))).await.unwrap().revision.version.version.as_str(), "2");
    let stale = fixture.store.rollback(&name, None, "why", Some(revision(1)), &actor, now()).await;
    assert!(matches!(stale, Err(StoreError::Stale { .. })));
}

#[tokio::test]
async fn an_abort_needs_a_rollout() {
    let fixture = Fixture::with_deployment().await;
    let (name, actor) = (name("m"), ann());
    assert!(is_conflict(fixture.store.abort(&name, None, &actor, now()).await), "nothing served before the first one");
    fixture.complete().await;
    assert!(is_conflict(fixture.store.abort(&name, None, &actor, now()).await));
    fixture.deploy("2").await;
    let row = fixture.store.abort(&name, None, &actor, now()).await.unwrap();
    assert_eq!(row.revision.cause.to_string(), "rollback from 2 to 1: aborted by ann");
}

#[tokio::test]
async fn a_rollout_is_controlled_while_it_is_under_way_and_only_then() {
    use ControlVerb::{Pause, Promote, Resume};
    let fixture = Fixture::with_deployment().await;
    let (name, actor) = (name("m"), ann());
    let drive = async |verb| fixture.store.control(&name, verb, None, &actor, now()).await;
    drive(Pause).await.unwrap();
    assert!(is_conflict(drive(Pause).await), "it is paused already");
    drive(Resume).await.unwrap();
    assert!(is_conflict(drive(Resume).await), "it is not paused");
    drive(Promote).await.unwrap();
    let desired = fixture.store.desired(fixture.epoch).await.unwrap().remove(&name).unwrap();
    assert_eq!((desired.control.revision, desired.control.promoted_by), (revision(1), Some(ann())));
    fixture.complete().await;
    for verb in [Pause, Resume, Promote] {
        assert!(is_conflict(drive(verb).await), "{verb:?}");
    }
    fixture.deploy("2").await;
    drive(Pause).await.unwrap();
    let desired = fixture.store.desired(fixture.epoch).await.unwrap().remove(&name).unwrap();
    assert_eq!(desired.control.promoted_by, None, "what was asked of another revision is void");
}

#[tokio::test]
async fn what_is_desired_has_the_revisions_that_matter() {
    let fixture = Fixture::with_deployment().await;
    fixture.complete().await;
    for version in ["2", "1", "2"] {
        fixture.deploy(version).await;
    }
    let desired = fixture.store.desired(fixture.epoch).await.unwrap().remove(&name("m")).unwrap();
    assert_eq!(desired.target, revision(4));
    let numbers: Vec<_> = desired.revisions.keys().map(|n| n.0).collect();
    assert_eq!(numbers, [1, 2, 3, 4], "the target, the stable one, and those whose rollout never began");
    fixture.complete().await;
    let desired = fixture.store.desired(fixture.epoch).await.unwrap().remove(&name("m")).unwrap();
    assert!(desired.revisions.contains_key(&revision(4)) && !desired.revisions.contains_key(&revision(1)));
}
