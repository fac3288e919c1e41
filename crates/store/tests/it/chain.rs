//! The chain of events: every writer makes links, none can be changed unseen, and what was there before has links too.

use modelyard_core::chain::{Broken, Verifier};
use modelyard_core::event::{EventDraft, EventKind};
use modelyard_core::plan::Commit;
use modelyard_core::{Actor, ChainHead};
use modelyard_store::{ApplyBatch, Store};
use modelyard_test_support::TestDatabase;
use serde_json::json;
use sqlx::PgPool;

use crate::support::*;

async fn verify(store: &Store, mut verifier: Verifier) -> Result<(ChainHead, u64), Broken> {
    let mut after = verifier.read_after();
    loop {
        // Pages are small, so that there are seams.
        let events = store.chained_events(after, 7).await.unwrap();
        let Some(last) = events.last() else { return verifier.finish() };
        after = Some(last.position);
        events.iter().try_for_each(|event| verifier.next(event))?;
    }
}

async fn verify_all(store: &Store, expected: Option<ChainHead>) -> Result<(ChainHead, u64), Broken> {
    verify(store, Verifier::new(ChainHead::BEGIN, expected)).await
}

/// Does what the triggers refuse, as whoever owns the table can.
async fn tamper(fixture: &Fixture, statement: &'static str) {
    let pool = PgPool::connect(fixture.database.url()).await.unwrap();
    for statement in ["alter table events disable trigger all", statement, "alter table events enable trigger all"] {
        sqlx::query(statement).execute(&pool).await.unwrap();
    }
}

/// A log with some events, and more than one page of them.
async fn filled() -> Fixture {
    let fixture = Fixture::with_deployment().await;
    for _ in 0..5 {
        for version in ["2", "1"] {
            fixture.deploy(version).await;
        }
    }
    fixture
}

#[tokio::test]
async fn every_event_is_a_link_whatever_its_fields_hold() {
    let fixture = Fixture::with_deployment().await;
    let data = json!({
        "text": "Zoë \u{1F600}\n\t\"\\", "long": 1e16, "tiny": 5e-324, "third": 0.1 + 0.2, "none": null, "minus": -0.0,
        "b": {"z": [1, 2.50, -3], "a": {}}, "": [], "huge": u64::MAX, "hundred": 1e2,
    });
    let event = |kind| EventDraft {
        kind,
        actor: Actor::system(),
        model: Some("m".parse().unwrap()),
        deployment: None,
        message: String::new(),
        data: data.clone(),
    };
    let events = vec![event(EventKind::WeightsChanged), event(EventKind::AnalysisDecided)];
    let commit = Commit { events, ..fixture.completion().await };
    fixture.commit(&commit).await.unwrap();
    let (head, events) = verify_all(&fixture.store, None).await.unwrap();
    assert_eq!(head, fixture.store.chain_head().await.unwrap());
    assert_eq!((events, head.position), (6, 6));
}

#[tokio::test]
async fn a_transaction_that_is_taken_back_leaves_no_gap() {
    let fixture = Fixture::with_deployment().await;
    let mut batch = ApplyBatch::default();
    batch.add_deployment(0, deployment("m", "2"), None);
    fixture.store.apply(batch, true, &ann(), now()).await.unwrap();
    fixture.deploy("2").await;
    let events = fixture.store.chained_events(None, 100).await.unwrap();
    let ids: Vec<_> = events.iter().map(|e| e.id).collect();
    assert_eq!(ids, [1, 2, 3, 4, 6], "the id of the dry run is lost");
    assert_eq!(events.iter().map(|e| e.position).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    assert_eq!(verify_all(&fixture.store, None).await.unwrap().1, 5);
}

#[tokio::test]
async fn writers_at_once_make_one_chain() {
    let fixture = Fixture::with_deployment().await;
    let url = fixture.database.url();
    let by_store = (0..4).map(|n| {
        let store = Store::connect(url).unwrap();
        tokio::spawn(async move {
            for m in 0..10 {
                let mut batch = ApplyBatch::default();
                batch.add_model(0, model(&format!("m-{n}-{m}")));
                store.apply(batch, false, &ann(), now()).await.unwrap();
            }
        })
    });
    // Writers that do not take the store's lock by themselves: the trigger does.
    let pool = PgPool::connect(url).await.unwrap();
    let by_hand = (0..4).map(|_| {
        let pool = pool.clone();
        tokio::spawn(async move {
            for _ in 0..10 {
                let insert = "insert into events (at_ms, kind, actor, message, data) \
                              select 1, 'ModelUpdated', 'ann', 'by hand', '{}' from generate_series(1, 3)";
                sqlx::query(insert).execute(&pool).await.unwrap();
            }
        })
    });
    for writer in by_store.chain(by_hand).collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let (head, events) = verify_all(&fixture.store, None).await.unwrap();
    assert_eq!((events, head.position), (4 + 40 + 120, 164));
}

#[tokio::test]
async fn events_can_only_be_appended() {
    let fixture = filled().await;
    let pool = PgPool::connect(fixture.database.url()).await.unwrap();
    let before = fixture.store.chained_events(None, 100).await.unwrap();
    for statement in
        ["update events set actor = 'x' where id = 1", "delete from events where id = 1", "truncate events"]
    {
        let refused = sqlx::query(statement).execute(&pool).await.unwrap_err();
        assert!(refused.to_string().contains("append-only"), "{refused}");
    }
    assert_eq!(fixture.store.chained_events(None, 100).await.unwrap(), before);
}

#[tokio::test]
async fn the_first_event_that_was_tampered_with_is_named() {
    // Each with the id of the event that is named.
    let cases: [(&'static str, i64); 8] = [
        ("update events set actor = 'nobody' where id = 3", 3),
        ("update events set message = message || ' ' where id = 9", 9),
        ("update events set data = data || '{\"x\": 1}' where id = 1", 1),
        ("update events set at_ms = at_ms + 1 where id = 8", 8),
        ("update events set kind = 'Nonsense', model = null where id = 5", 5),
        ("delete from events where id = 4", 5),
        ("delete from events where id = 1", 2),
        // Two change places: their fields, under the same ids.
        (
            "update events e set message = o.message, data = o.data from events o
             where (e.id, o.id) in ((6, 7), (7, 6))",
            6,
        ),
    ];
    for (statement, named) in cases {
        let fixture = filled().await;
        tamper(&fixture, statement).await;
        let broken = verify_all(&fixture.store, None).await.unwrap_err();
        let id = match broken {
            Broken::Missing { id, .. } | Broken::Misplaced { id, .. } | Broken::Changed { id, .. } => id,
            Broken::Rewritten { .. } | Broken::Truncated { .. } => panic!("{statement}: {broken}"),
        };
        assert_eq!(id, named, "{statement}: {broken}");
    }
}

#[tokio::test]
async fn a_head_that_was_kept_tells_a_log_that_was_cut_off_or_written_anew() {
    let fixture = filled().await;
    let (kept, _) = verify_all(&fixture.store, None).await.unwrap();
    fixture.deploy("2").await;
    let (head, events) = verify_all(&fixture.store, Some(kept)).await.unwrap();
    assert_eq!(u64::try_from(head.position).unwrap(), events);
    assert_eq!(verify(&fixture.store, Verifier::new(kept, None)).await, Ok((head, 1)), "from there on");

    tamper(&fixture, "delete from events where position > 10").await;
    assert!(verify_all(&fixture.store, None).await.is_ok(), "by itself a shorter log is one");
    let cut = verify_all(&fixture.store, Some(kept)).await.unwrap_err();
    assert_eq!(cut, Broken::Truncated { head: kept, last: 10 });
    assert_eq!(
        verify(&fixture.store, Verifier::new(kept, None)).await,
        Err(Broken::Truncated { head: kept, last: kept.position - 1 })
    );
    // What comes then goes on from the end that is left, and is not what was there.
    for _ in 0..4 {
        fixture.deploy("1").await;
        fixture.deploy("2").await;
    }
    assert!(
        matches!(verify_all(&fixture.store, Some(kept)).await, Err(Broken::Rewritten { head, .. }) if head == kept)
    );
}

#[tokio::test]
async fn events_from_before_there_was_a_chain_are_its_first_links() {
    let database = TestDatabase::create().await;
    let pool = PgPool::connect(database.url()).await.unwrap();
    let store = Store::connect(database.url()).unwrap();
    // As the migrations before this one left it.
    let all = sqlx::migrate!("../../migrations");
    let earlier: Vec<_> = all.iter().filter(|m| m.version < 4).cloned().collect();
    sqlx::migrate::Migrator::with_migrations(earlier).run(&pool).await.unwrap();
    // With gaps among the ids, as transactions that were rolled back leave them.
    sqlx::query(
        "insert into events (id, at_ms, kind, actor, deployment, message, data) overriding system value
         select n * 2, n, 'WeightsChanged', 'system', 'm', 'Zoë ' || n, jsonb_build_object('n', n, 'x', 0.5)
         from generate_series(1, 50) n",
    )
    .execute(&pool)
    .await
    .unwrap();
    sqlx::query("select setval(pg_get_serial_sequence('events', 'id'), 100)").execute(&pool).await.unwrap();
    store.migrate().await.unwrap();
    assert_eq!(verify_all(&store, None).await.unwrap().1, 50);

    // A control plane from before the migration goes on until it is replaced, and knows nothing of links.
    sqlx::query(
        "insert into events (at_ms, kind, actor, model, deployment, message, data)
         values (99, 'ModelUpdated', 'ann', 'm', null, 'of the old program', '{}')",
    )
    .execute(&pool)
    .await
    .unwrap();
    let (head, events) = verify_all(&store, None).await.unwrap();
    assert_eq!((head.position, events), (51, 51));
    assert_eq!(store.served_at(&name("m"), modelyard_core::Timestamp::from_millis(25)).await.unwrap().unwrap().id, 50);
}
