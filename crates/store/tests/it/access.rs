//! Tokens: what is kept of them, and for how long.

use modelyard_core::{Role, Span};
use modelyard_store::{EventFilter, NewToken, StoreError};

use crate::support::*;

fn token(role: Role, lifetime: &str) -> NewToken {
    NewToken { name: "alice".parse().unwrap(), role, lifetime: lifetime.parse().unwrap() }
}

#[tokio::test]
async fn a_token_is_found_by_its_hash_until_it_is_revoked_and_events_tell_of_both() {
    let fixture = Fixture::new().await;
    let issued = fixture.store.create_token(token(Role::Operator, "30d"), &ann(), now()).await.unwrap();
    assert_eq!(
        (issued.row.digest, issued.row.expires_at),
        (issued.secret.hash(), now() + Span::from_secs(30 * 86_400))
    );
    let found = fixture.store.tokens_with(&[issued.secret.hash()]).await.unwrap();
    assert_eq!(found, std::slice::from_ref(&issued.row));
    assert!(fixture.store.has_token_for_people(now()).await.unwrap());

    assert_eq!(fixture.store.revoke_token(issued.row.id, &ann(), now()).await.unwrap(), issued.row);
    assert!(fixture.store.tokens_with(&[issued.secret.hash()]).await.unwrap().is_empty());
    let again = fixture.store.revoke_token(issued.row.id, &ann(), now()).await;
    assert!(matches!(again, Err(StoreError::NotFound { .. })), "{again:?}");

    let events = fixture.store.events(&EventFilter::default(), 10).await.unwrap();
    let told: Vec<_> = events.iter().map(|e| (e.what.kind.as_str(), e.what.actor.as_str())).collect();
    assert_eq!(told, [("TokenCreated", "ann"), ("TokenRevoked", "ann")]);
    assert!(!serde_json::to_string(&events).unwrap().contains(issued.secret.expose()));
}

#[tokio::test]
async fn the_first_token_is_handed_over_before_it_counts_and_made_once() {
    let fixture = Fixture::new().await;
    let lost: Result<bool, StoreError> = fixture
        .store
        .make_first_token(token(Role::Admin, "30d"), now(), async |_, _| {
            Err(StoreError::Internal("the cluster does not answer".into()))
        })
        .await;
    assert!(lost.is_err());
    assert!(!fixture.store.has_token_for_people(now()).await.unwrap(), "what nobody has counts for nothing");

    // Control planes that start together, and leave it in one place.
    let place = std::sync::Mutex::new(Vec::new());
    let hand_over = || {
        fixture.store.make_first_token(token(Role::Admin, "30d"), now(), async |secret, until| {
            place.lock().unwrap().push((secret.hash(), until));
            Ok::<_, StoreError>(())
        })
    };
    let made = tokio::join!(hand_over(), hand_over(), hand_over());
    let made = [made.0.unwrap(), made.1.unwrap(), made.2.unwrap()];
    assert_eq!(made.iter().filter(|made| **made).count(), 1);
    let place = place.into_inner().unwrap();
    let [(hash, until)] = place.as_slice() else { panic!("{place:?}") };
    assert_eq!(*until, now() + Span::from_secs(30 * 86_400));
    assert_eq!(fixture.store.tokens_with(&[*hash]).await.unwrap().len(), 1, "the one that is there is good");
}

#[tokio::test]
async fn people_get_no_roles_of_machines_and_machines_none_of_people() {
    let fixture = Fixture::new().await;
    for role in [Role::Gateway, Role::Worker] {
        let refused = fixture.store.create_token(token(role, "1h"), &ann(), now()).await;
        assert!(matches!(refused, Err(StoreError::Invalid { .. })), "{refused:?}");
    }
    let refused = fixture.store.issue_token(token(Role::Admin, "1h"), now()).await;
    assert!(matches!(refused, Err(StoreError::Invalid { .. })), "{refused:?}");
    let issued = fixture.store.issue_token(token(Role::Worker, "1h"), now()).await.unwrap();
    assert_eq!(fixture.store.tokens(10, None).await.unwrap(), [issued.row]);
    assert!(!fixture.store.has_token_for_people(now()).await.unwrap());
    assert!(
        fixture.store.events(&EventFilter::default(), 10).await.unwrap().is_empty(),
        "they are many and short-lived"
    );
}

#[tokio::test]
async fn every_token_ends_and_is_forgotten_a_day_later() {
    let fixture = Fixture::new().await;
    for lifetime in ["0s", "367d"] {
        let refused = fixture.store.create_token(token(Role::Viewer, lifetime), &ann(), now()).await;
        assert!(matches!(refused, Err(StoreError::Invalid { .. })), "{lifetime}: {refused:?}");
    }
    fixture.store.create_token(token(Role::Viewer, "1h"), &ann(), now()).await.unwrap();
    let expired = now() + Span::from_secs(3601);
    assert!(!fixture.store.has_token_for_people(expired).await.unwrap());
    assert_eq!(fixture.store.sweep_tokens(expired).await.unwrap(), 0, "its holder is to be told that it has expired");
    assert_eq!(fixture.store.sweep_tokens(expired + Span::from_secs(86_400)).await.unwrap(), 1);
}
