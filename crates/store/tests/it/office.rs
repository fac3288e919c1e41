//! The office: one holder at a time, by Postgres' clock.

use std::time::Duration;

use modelyard_core::Epoch;
use modelyard_store::{Candidate, Claim, Holder, Office, Standing, Store, StoreError};

use crate::support::*;

const TTL: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(300);

fn office(store: &Store, identity: &str) -> Office {
    store.office(Candidate { identity: identity.into(), address: format!("http://{identity}") })
}

async fn claim(office: &Office, claim: Claim, ttl: Duration) -> Standing {
    office.claim(claim, ttl).await.unwrap()
}

fn held(standing: &Standing) -> Epoch {
    match standing {
        Standing::Held { epoch, .. } => *epoch,
        Standing::Standby(holder) => panic!("{holder:?} is in office"),
    }
}

fn holder(standing: Standing) -> Holder {
    match standing {
        Standing::Standby(holder) => holder,
        Standing::Held { epoch, .. } => panic!("it is held, by epoch {epoch}"),
    }
}

async fn store() -> (Store, modelyard_test_support::TestDatabase) {
    let database = modelyard_test_support::TestDatabase::create().await;
    let store = Store::connect(database.url()).unwrap();
    store.migrate().await.unwrap();
    (store, database)
}

/// Claims until it is granted, and answers how long that took.
async fn take_over(office: &Office) -> (Epoch, Duration) {
    let began = std::time::Instant::now();
    loop {
        if let Standing::Held { epoch, .. } = claim(office, Claim::Vacant, TTL).await {
            return (epoch, began.elapsed());
        }
        assert!(began.elapsed() < TTL, "it is never granted");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn one_is_in_office_and_the_other_is_told_where() {
    let (store, _database) = store().await;
    let (a, b) = (office(&store, "a"), office(&store, "b"));
    let (one, two) = tokio::join!(claim(&a, Claim::Inherited, TTL), claim(&b, Claim::Inherited, TTL));
    assert_eq!([&one, &two].iter().filter(|s| matches!(s, Standing::Held { .. })).count(), 1, "{one:?} {two:?}");
    let (winner, loser, told) = if matches!(one, Standing::Held { .. }) { (a, b, two) } else { (b, a, one) };
    let told = holder(told);
    let candidate = winner.candidate();
    assert_eq!((&told.identity, &told.address, told.epoch), (&candidate.identity, &candidate.address, Epoch(1)));
    assert!(told.expires_in > TTL / 2 && told.expires_in <= TTL, "{told:?}");
    assert_eq!(holder(loser.renew(Epoch(1), TTL).await.unwrap()).epoch, Epoch(1), "nobody renews another's lease");
    assert_eq!(held(&winner.renew(Epoch(1), TTL).await.unwrap()), Epoch(1));
}

#[tokio::test]
async fn a_lease_that_runs_out_is_taken_over_and_what_it_gave_is_over() {
    let fixture = Fixture::with_deployment().await;
    let (a, b) = (office(&fixture.store, "a"), office(&fixture.store, "b"));
    let first = held(&claim(&a, Claim::Inherited, SHORT).await);
    let old = fixture.store.in_term(first);
    let (second, after) = take_over(&b).await;
    assert_eq!(second, first.next());
    assert!(after >= SHORT / 2, "not before it has run out: {after:?}");
    assert_eq!(holder(a.renew(first, TTL).await.unwrap()).identity, "b");
    let refused = old.delete_deployment(&name("m"), None, &ann(), now()).await;
    assert!(
        matches!(refused, Err(StoreError::Fenced { given, seen }) if (given, seen) == (first, second)),
        "{refused:?}"
    );
    fixture.store.in_term(second).delete_deployment(&name("m"), None, &ann(), now()).await.unwrap();
}

#[tokio::test]
async fn a_lease_that_ran_out_is_renewed_if_nobody_has_taken_office_since() {
    let (store, _database) = store().await;
    let a = office(&store, "a");
    let epoch = held(&claim(&a, Claim::Inherited, Duration::ZERO).await);
    assert_eq!(held(&a.renew(epoch, TTL).await.unwrap()), epoch);
    assert_eq!(holder(claim(&office(&store, "b"), Claim::Inherited, TTL).await).epoch, epoch);
}

#[tokio::test]
async fn an_office_given_back_is_taken_at_once() {
    let (store, _database) = store().await;
    let (a, b) = (office(&store, "a"), office(&store, "b"));
    let first = held(&claim(&a, Claim::Inherited, TTL).await);
    b.release(first).await.unwrap();
    holder(claim(&b, Claim::Vacant, TTL).await);
    a.release(first).await.unwrap();
    assert_eq!(held(&claim(&b, Claim::Vacant, TTL).await), first.next());
    a.release(first).await.unwrap();
    assert_eq!(held(&b.renew(first.next(), TTL).await.unwrap()), first.next(), "what is over is not given back again");
}

#[tokio::test]
async fn a_restart_need_not_wait_for_its_own_lease() {
    let (store, _database) = store().await;
    let before = office(&store, "a");
    let first = held(&claim(&before, Claim::Inherited, TTL).await);
    let after = office(&store, "a");
    assert_eq!(holder(claim(&after, Claim::Vacant, TTL).await).identity, "a");
    assert_eq!(held(&claim(&after, Claim::Inherited, TTL).await), first.next());
    holder(before.renew(first, TTL).await.unwrap());
}

#[tokio::test]
async fn renewals_tell_of_what_others_wrote() {
    let fixture = Fixture::with_deployment().await;
    let a = office(&fixture.store, "a");
    let epoch = held(&claim(&a, Claim::Inherited, TTL).await);
    let latest = async || match a.renew(epoch, TTL).await.unwrap() {
        Standing::Held { last_event, .. } => last_event,
        Standing::Standby(holder) => panic!("{holder:?}"),
    };
    let before = latest().await;
    assert_eq!(latest().await, before);
    fixture.deploy("2").await;
    assert!(latest().await > before);
}
