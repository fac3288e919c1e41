//! A thousand deployments: what is written together, and what is not read again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use modelyard_core::event::EventKind;
use modelyard_core::state::{Outcome, Phase};
use modelyard_core::{DeploymentName, DeploymentSpec};
use modelyard_store::{ApplyBatch, EventFilter, StoreError};

use crate::support::*;

/// Deployments `d0`, `d1`, … of model `m`.
fn batch(count: usize, version: &str) -> ApplyBatch {
    let mut batch = ApplyBatch::default();
    for n in 0..count {
        let mut made = deployment(&format!("d{n}"), version);
        made.spec = DeploymentSpec { model: "m".parse().unwrap(), ..made.spec };
        batch.add_deployment(n, made, None);
    }
    batch
}

#[tokio::test]
async fn decisions_of_many_deployments_are_written_together_but_for_the_stale() {
    let fixture = Fixture::with_deployment().await;
    fixture.apply(batch(3, "1")).await.unwrap();
    let desired = fixture.store.desired(fixture.epoch).await.unwrap();
    fixture.deploy("2").await;
    fixture.store.delete_deployment(&name("d1"), None, &ann(), now()).await.unwrap();
    let commits: BTreeMap<_, _> = desired.iter().map(|(name, d)| (name.clone(), completion_of(d))).collect();
    let commits = commits.iter().collect();
    let refused = fixture.store.commit_all(&commits, fixture.epoch, now()).await.unwrap();
    assert_eq!(refused, BTreeSet::from([name("d1"), name("m")]));
    let after = fixture.store.desired(fixture.epoch).await.unwrap();
    let is_done = |n: &str| after[&name(n)].state.rollout.as_ref().is_some_and(|r| r.phase == Phase::Completed);
    assert_eq!([is_done("d0"), is_done("d2"), is_done("m")], [true, true, false]);
    assert_eq!(after[&name("d0")].parent, desired[&name("d0")].parent.next());
    let outcome = async |n| fixture.store.revision(&name(n), revision(1)).await.unwrap();
    assert!(matches!(outcome("d2").await.outcome, Outcome::Completed { .. }));
    assert_eq!(outcome("d2").await.served_at, Some(now()));
    assert_eq!(outcome("m").await.outcome, Outcome::Pending, "nothing of a refused decision is written");

    take_office(&fixture.store, "a").await;
    let fenced = fixture.store.commit_all(&commits, fixture.epoch, now()).await;
    assert!(matches!(fenced, Err(StoreError::Fenced { .. })));
}

#[tokio::test]
async fn what_was_not_written_to_is_not_read_again_and_nothing_is_missed() {
    let fixture = Fixture::with_deployment().await;
    fixture.apply(batch(3, "1")).await.unwrap();
    let mut known = BTreeMap::new();
    let check = async |known: &mut BTreeMap<DeploymentName, _>, what: &str| {
        fixture.store.refresh_desired(fixture.epoch, known).await.unwrap();
        assert_eq!(*known, fixture.store.desired(fixture.epoch).await.unwrap(), "{what}");
    };
    check(&mut known, "at first").await;
    check(&mut known, "nothing happened").await;
    fixture.deploy("2").await;
    check(&mut known, "another version").await;
    fixture.complete().await;
    check(&mut known, "a decision").await;
    fixture.store.delete_deployment(&name("d1"), None, &ann(), now()).await.unwrap();
    check(&mut known, "one is gone").await;
    fixture.store.delete_deployment(&name("d0"), None, &ann(), now()).await.unwrap();
    fixture.apply(batch(2, "2")).await.unwrap();
    check(&mut known, "one is made anew, and one is back").await;

    let as_it_was = known.clone();
    take_office(&fixture.store, "a").await;
    assert!(matches!(fixture.store.refresh_desired(fixture.epoch, &mut known).await, Err(StoreError::Fenced { .. })));
    assert_eq!(known, as_it_was);
}

#[tokio::test]
async fn events_of_a_batch_stand_in_the_order_of_its_documents() {
    let fixture = Fixture::with_deployment().await;
    fixture.apply(batch(20, "1")).await.unwrap();
    let filter = EventFilter { kind: Some(EventKind::RevisionCreated), ..EventFilter::default() };
    let events = fixture.store.events(&filter, 100).await.unwrap();
    let told: Vec<_> = events.iter().skip(1).map(|e| e.what.deployment.clone().unwrap().to_string()).collect();
    assert_eq!(told, (0..20).map(|n| format!("d{n}")).collect::<Vec<_>>());
}

/// Far above what they take, and far below what one statement for each thing would.
const LIMIT: Duration = Duration::from_secs(5);

#[tokio::test]
async fn a_thousand_deployments_are_applied_read_and_decided_on_in_little_time() {
    let fixture = Fixture::with_deployment().await;
    let timed = |what: &str, began: Instant| {
        let took = began.elapsed();
        eprintln!("1,000 deployments: {what} in {took:?}");
        assert!(took < LIMIT, "{what}: {took:?}");
    };
    for version in ["1", "2"] {
        let began = Instant::now();
        fixture.apply(batch(1000, version)).await.unwrap();
        timed("applied", began);
    }
    let began = Instant::now();
    let mut known = fixture.store.desired(fixture.epoch).await.unwrap();
    timed("read", began);
    let commits: BTreeMap<_, _> = known.iter().map(|(name, d)| (name.clone(), completion_of(d))).collect();
    let began = Instant::now();
    let refused = fixture.store.commit_all(&commits.iter().collect(), fixture.epoch, now()).await.unwrap();
    timed("decided on", began);
    assert!(refused.is_empty(), "{refused:?}");
    let began = Instant::now();
    fixture.store.refresh_desired(fixture.epoch, &mut known).await.unwrap();
    timed("read again, all changed,", began);
    let began = Instant::now();
    fixture.store.refresh_desired(fixture.epoch, &mut known).await.unwrap();
    timed("read again, none changed,", began);
    assert_eq!(known.len(), 1001);
}
