//! Several at once: one wins, none is lost, and events come in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use modelyard_store::{ApplyBatch, EventFilter, Store, StoreError};
use tokio::task::JoinSet;

use crate::support::*;

#[tokio::test]
async fn of_many_applies_with_the_same_expectation_one_wins() {
    let fixture = Fixture::with_deployment().await;
    let apply = async |replicas| {
        let mut wanted = deployment("m", "1");
        wanted.spec.replicas = replicas;
        let mut batch = ApplyBatch::default();
        batch.add_deployment(0, wanted, Some(revision(1)));
        fixture.apply(batch).await
    };
    let results = tokio::join!(apply(2), apply(3), apply(4), apply(5));
    let won = [results.0, results.1, results.2, results.3].iter().filter(|r| r.is_ok()).count();
    assert_eq!(won, 1);
    assert_eq!(fixture.latest().await, revision(2));
}

#[tokio::test]
async fn two_control_planes_may_migrate_at_once() {
    let database = modelyard_test_support::TestDatabase::create().await;
    let (a, b) = (Store::connect(database.url()).unwrap(), Store::connect(database.url()).unwrap());
    let (first, second) = tokio::join!(a.migrate(), b.migrate());
    first.unwrap();
    second.unwrap();
}

/// A reader that goes on from the last id it saw misses nothing, however many write at once.
#[tokio::test]
async fn events_become_visible_in_the_order_of_their_ids() {
    const WRITERS: usize = 10;
    const EACH: usize = 10;
    let fixture = Fixture::with_deployment().await;
    let before = fixture.store.last_event_id().await.unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let reader = {
        let (store, done) = (fixture.store.clone(), done.clone());
        tokio::spawn(async move {
            let mut filter = EventFilter { after: Some(before), ..EventFilter::default() };
            let mut seen = 0;
            loop {
                let last_look = done.load(Ordering::Acquire);
                let events = store.events(&filter, 1000).await.unwrap();
                seen += events.len();
                filter.after = events.last().map(|e| e.id).or(filter.after);
                if last_look && events.is_empty() {
                    return seen;
                }
            }
        })
    };
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let store = Store::connect(fixture.database.url()).unwrap();
        writers.spawn(async move {
            for n in 0..EACH {
                let mut batch = ApplyBatch::default();
                batch.add_model(0, model(&format!("m-{writer}-{n}")));
                store.apply(batch, false, &ann(), now()).await.unwrap();
            }
        });
    }
    while let Some(written) = writers.join_next().await {
        written.unwrap();
    }
    done.store(true, Ordering::Release);
    assert_eq!(reader.await.unwrap(), WRITERS * EACH);
}

/// Whatever is done in whatever order, revisions are numbered without a gap, and the latest is the target.
#[tokio::test]
async fn numbers_stay_dense_through_a_random_walk() {
    let fixture = Fixture::with_deployment().await;
    let actor = ann();
    // A fixed walk: a linear congruential generator (Numerical Recipes) needs no dependency.
    let mut seed: u32 = 20_261_124;
    let mut dice = move |n: u32| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 16) % n
    };
    for _ in 0..150 {
        let done: Result<(), StoreError> = match dice(4) {
            0 => {
                fixture.deploy(if dice(2) == 0 { "1" } else { "2" }).await;
                Ok(())
            }
            1 => fixture.store.rollback(&name("m"), None, "why", None, &actor, now()).await.map(drop),
            2 => fixture.store.abort(&name("m"), None, &actor, now()).await.map(drop),
            _ => {
                fixture.complete().await;
                Ok(())
            }
        };
        assert!(matches!(done, Ok(()) | Err(StoreError::Conflict { .. })), "{done:?}");
    }
    let revisions = fixture.store.revisions(&name("m"), 1000, None).await.unwrap();
    let numbers: Vec<_> = revisions.iter().rev().map(|r| r.revision.number.0).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
    assert!(numbers.len() > 30, "the walk was about something");
    assert_eq!(fixture.latest().await.0, *numbers.last().unwrap());
}
