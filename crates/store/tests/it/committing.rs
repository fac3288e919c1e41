//! Commits of the reconciler: whole, in office, on the state they were made from.

use modelyard_core::Actor;
use modelyard_core::event::{EventDraft, EventKind};
use modelyard_core::plan::RollbackDraft;
use modelyard_core::state::{Cause, Outcome};
use modelyard_store::{ControlVerb, EventFilter, StoreError};

use crate::support::*;

#[tokio::test]
async fn a_commit_is_refused_after_any_other_write() {
    let fixture = Fixture::with_deployment().await;
    let (name, actor) = (name("m"), ann());
    for round in 0..4 {
        let stale = fixture.completion().await;
        match round {
            0 => drop(fixture.deploy("2").await),
            1 => fixture.store.control(&name, ControlVerb::Pause, None, &actor, now()).await.unwrap(),
            2 => drop(fixture.store.rollback(&name, Some(revision(1)), "why", None, &actor, now()).await.unwrap()),
            _ => fixture.complete().await,
        }
        assert!(matches!(fixture.commit(&stale).await, Err(StoreError::Stale { .. })), "round {round}");
    }
    fixture.store.delete_deployment(&name, None, &actor, now()).await.unwrap();
    let gone = fixture.store.commit(&name, &empty(), fixture.epoch, now()).await;
    assert!(matches!(gone, Err(StoreError::NotFound { .. })));
}

/// Counts of writes begin anew with a deployment that is made again; numbers of revisions do not.
#[tokio::test]
async fn a_decision_on_a_deployment_is_none_on_the_next_one_of_that_name() {
    let fixture = Fixture::with_deployment().await;
    let (name, stale) = (name("m"), fixture.completion().await);
    fixture.store.delete_deployment(&name, None, &ann(), now()).await.unwrap();
    assert_eq!(fixture.deploy("2").await, revision(2));
    assert_eq!(fixture.completion().await.parent, stale.parent, "as many writes");
    assert!(matches!(fixture.commit(&stale).await, Err(StoreError::Stale { .. })));
    let together = [(&name, &stale)].into();
    let refused = fixture.store.commit_all(&together, fixture.epoch, now()).await.unwrap();
    assert_eq!(refused, [name.clone()].into());
    fixture.complete().await;
}

fn empty() -> modelyard_core::plan::Commit {
    modelyard_core::plan::Commit {
        parent: modelyard_core::StateVersion(0),
        state: Default::default(),
        rollback: None,
        outcomes: Default::default(),
        events: Vec::new(),
    }
}

#[tokio::test]
async fn whoever_is_out_of_office_writes_nothing() {
    let fixture = Fixture::with_deployment().await;
    let commit = fixture.completion().await;
    let next = take_office(&fixture.store, "a").await;
    assert_eq!(next, fixture.epoch.next());
    assert!(matches!(fixture.commit(&commit).await, Err(StoreError::Fenced { .. })));
    assert!(matches!(fixture.store.desired(fixture.epoch).await, Err(StoreError::Fenced { .. })));
    fixture.store.commit(&name("m"), &commit, next, now()).await.unwrap();
}

#[tokio::test]
async fn the_systems_own_rollback_is_a_revision_with_the_number_it_was_given() {
    let fixture = Fixture::with_deployment().await;
    fixture.complete().await;
    fixture.deploy("2").await;
    let mut commit = fixture.completion().await;
    let reason = "maxErrorRate 2 of 2 exceeds 0.01".to_owned();
    commit.rollback =
        Some(RollbackDraft { number: revision(3), from: revision(2), to: revision(1), reason: reason.clone() });
    commit.outcomes = [(revision(2), Outcome::RolledBack { by: revision(3), reason })].into();
    commit.events = vec![EventDraft {
        kind: EventKind::RolledBack,
        actor: Actor::system(),
        model: None,
        deployment: Some(name("m")),
        message: "back".into(),
        data: serde_json::json!({}),
    }];
    fixture.commit(&commit).await.unwrap();
    let made = fixture.store.revision(&name("m"), revision(3)).await.unwrap().revision;
    assert_eq!((made.version.version.as_str(), made.actor), ("1", Actor::system()));
    assert!(matches!(made.cause, Cause::Rollback { .. }));
    let failed = fixture.store.revision(&name("m"), revision(2)).await.unwrap();
    assert!(matches!(failed.outcome, Outcome::RolledBack { .. }) && failed.served_at.is_none());
    let filter = EventFilter { kind: Some(EventKind::RolledBack), ..EventFilter::default() };
    assert_eq!(fixture.store.events(&filter, 10).await.unwrap().len(), 1);

    let mut wrong = fixture.completion().await;
    wrong.rollback =
        Some(RollbackDraft { number: revision(9), from: revision(3), to: revision(1), reason: "x".into() });
    assert!(matches!(fixture.commit(&wrong).await, Err(StoreError::Stale { .. })));
    assert_eq!(fixture.latest().await, revision(3), "nothing of it was written");
}

#[tokio::test]
async fn what_served_when_is_answered_from_the_events() {
    let fixture = Fixture::with_deployment().await;
    let weights = |revision: u64| EventDraft {
        kind: EventKind::WeightsChanged,
        actor: Actor::system(),
        model: None,
        deployment: Some(name("m")),
        message: "traffic".into(),
        data: serde_json::json!({"weights": [{"revision": revision}]}),
    };
    for (second, revision) in [(10, 1), (20, 2)] {
        let mut commit = fixture.completion().await;
        commit.events = vec![weights(revision)];
        let at = now() + modelyard_core::Span::from_secs(second);
        fixture.store.commit(&name("m"), &commit, fixture.epoch, at).await.unwrap();
    }
    let at = |second| now() + modelyard_core::Span::from_secs(second);
    let served = async |second| {
        let event = fixture.store.served_at(&name("m"), at(second)).await.unwrap();
        event.map(|e| e.what.data["weights"][0]["revision"].clone())
    };
    assert_eq!(served(9).await, None);
    assert_eq!(served(10).await, Some(1.into()));
    assert_eq!(served(19).await, Some(1.into()));
    assert_eq!(served(1000).await, Some(2.into()));
    fixture.store.delete_deployment(&name("m"), None, &ann(), at(30)).await.unwrap();
    assert_eq!(served(31).await, Some(serde_json::Value::Null), "deleted: it serves nothing");
}
