//! Models, versions, aliases: lists, deletes, and who is in the way.

use modelyard_core::state::Cause;
use modelyard_core::{Digest, ModelName};
use modelyard_store::{ApplyBatch, StoreError};

use crate::support::*;

fn m() -> ModelName {
    "m".parse().unwrap()
}

#[tokio::test]
async fn deployments_roll_with_the_alias_they_follow() {
    let fixture = Fixture::with_deployment().await;
    let (alias, actor) = ("stable".parse().unwrap(), ann());
    let move_to = async |v: &str| fixture.store.move_alias(&m(), &alias, &v.parse().unwrap(), &actor, now()).await;
    assert!(matches!(move_to("9").await, Err(StoreError::NotFound { .. })));
    assert!(move_to("1").await.unwrap().rolled.is_empty(), "nobody follows it yet");
    assert_eq!(fixture.deploy("alias:stable").await, revision(2));
    let moved = move_to("2").await.unwrap();
    assert_eq!((moved.previous.unwrap().as_str(), moved.rolled), ("1", vec![(name("m"), revision(3))]));
    let rolled = fixture.store.revision(&name("m"), revision(3)).await.unwrap().revision;
    assert_eq!((rolled.version.version.as_str(), rolled.cause), ("2", Cause::AliasMoved { alias: alias.clone() }));
    assert!(move_to("2").await.unwrap().rolled.is_empty(), "it is there already");

    let followed = fixture.store.drop_alias(&m(), &alias, &actor, now()).await.unwrap_err();
    assert!(matches!(&followed, StoreError::InUse { by, .. } if by == &["deployment m"]), "{followed}");
    fixture.deploy("2").await;
    fixture.store.drop_alias(&m(), &alias, &actor, now()).await.unwrap();
    assert!(fixture.store.model(&m()).await.unwrap().aliases.is_empty());
}

#[tokio::test]
async fn what_is_in_use_is_not_deleted_and_the_answer_says_by_whom() {
    let fixture = Fixture::with_deployment().await;
    let actor = ann();
    let (one, two) = ("1".parse().unwrap(), "2".parse().unwrap());
    fixture.store.move_alias(&m(), &"next".parse().unwrap(), &two, &actor, now()).await.unwrap();
    let error = fixture.store.delete_version(&m(), &one, &actor, now()).await.unwrap_err();
    assert_eq!(error.to_string(), "version 1 of model m is in use by deployment m (revision 1)");
    let error = fixture.store.delete_version(&m(), &two, &actor, now()).await.unwrap_err();
    assert_eq!(error.to_string(), "version 2 of model m is in use by alias next");
    let error = fixture.store.delete_model(&m(), &actor, now()).await.unwrap_err();
    assert!(matches!(&error, StoreError::InUse { by, .. } if by.len() == 2), "{error}");

    fixture.store.delete_deployment(&name("m"), None, &actor, now()).await.unwrap();
    fixture.store.drop_alias(&m(), &"next".parse().unwrap(), &actor, now()).await.unwrap();
    assert!(fixture.store.digest_in_use(&Digest::of(b"one")).await.unwrap());
    for version in [&one, &two] {
        fixture.store.delete_version(&m(), version, &actor, now()).await.unwrap();
    }
    assert!(!fixture.store.digest_in_use(&Digest::of(b"one")).await.unwrap());
    fixture.store.delete_model(&m(), &actor, now()).await.unwrap();
    assert!(matches!(fixture.store.delete_model(&m(), &actor, now()).await, Err(StoreError::NotFound { .. })));
}

#[tokio::test]
async fn lists_go_on_from_where_a_page_ended() {
    let fixture = Fixture::new().await;
    let mut batch = ApplyBatch::default();
    for (index, text) in ["a", "b", "c", "d", "e"].into_iter().enumerate() {
        batch.add_model(index, model(text));
    }
    fixture.apply(batch).await.unwrap();
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let page = fixture.store.models(2, after.as_ref()).await.unwrap();
        after = page.last().map(|m| m.name.clone());
        seen.extend(page.iter().map(|m| m.name.to_string()));
        if page.len() < 2 {
            break;
        }
    }
    assert_eq!(seen, ["a", "b", "c", "d", "e"]);
}

#[tokio::test]
async fn a_database_that_is_not_there_is_unavailable_soon() {
    let store = modelyard_store::Store::connect("postgres://nobody@127.0.0.1:1/none").unwrap();
    assert!(matches!(store.ping().await, Err(StoreError::Unavailable(_))));
    assert!(modelyard_store::Store::connect("not a url").is_err());
}
