//! What served when: from the events, by an index, at every boundary.

use modelyard_core::event::{EventDraft, EventKind};
use modelyard_core::plan::Commit;
use modelyard_core::{Actor, Timestamp};
use modelyard_store::ApplyBatch;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::*;

fn at(ms: i64) -> Timestamp {
    Timestamp::from_millis(ms)
}

impl Fixture {
    /// Commits at these times, each of which moves the weights of `m`, once or several times.
    async fn weights(&self, ms: i64, revisions: &[u64]) {
        let event = |revision: &u64| EventDraft {
            kind: EventKind::WeightsChanged,
            actor: Actor::system(),
            model: None,
            deployment: Some(name("m")),
            message: format!("revision {revision}"),
            data: json!({"weights": [{"revision": revision}]}),
        };
        let Commit { parent, state, .. } = self.completion().await;
        let events = revisions.iter().map(event).collect();
        let commit = Commit { parent, state, rollback: None, outcomes: [].into(), events };
        self.store.commit(&name("m"), &commit, self.epoch, at(ms)).await.unwrap();
    }

    /// The revision that served, 0 for nothing; `None` where nothing is known yet.
    async fn served(&self, ms: i64) -> Option<u64> {
        let event = self.store.served_at(&name("m"), at(ms)).await.unwrap()?;
        let weights = event.what.data["weights"].as_array().cloned().unwrap_or_default();
        Some(weights.first().map_or(0, |weight| weight["revision"].as_u64().unwrap()))
    }
}

#[tokio::test]
async fn what_served_changes_at_the_very_time_of_an_event() {
    let fixture = Fixture::with_deployment().await;
    fixture.weights(1_000, &[1]).await;
    fixture.weights(5_000, &[2]).await;
    let mut told = Vec::new();
    for ms in [0, 999, 1_000, 1_001, 4_999, 5_000, 5_001, i64::MAX] {
        told.push(fixture.served(ms).await);
    }
    assert_eq!(told, [None, None, Some(1), Some(1), Some(1), Some(2), Some(2), Some(2)]);
    assert_eq!(fixture.store.served_at(&name("other"), at(i64::MAX)).await.unwrap(), None);
}

#[tokio::test]
async fn of_events_of_one_millisecond_the_last_counts() {
    let fixture = Fixture::with_deployment().await;
    fixture.weights(1_000, &[1, 2]).await;
    fixture.weights(1_000, &[3]).await;
    assert_eq!((fixture.served(999).await, fixture.served(1_000).await), (None, Some(3)));
}

#[tokio::test]
async fn a_deleted_deployment_serves_nothing_until_one_of_its_name_does() {
    let fixture = Fixture::with_deployment().await;
    fixture.weights(1_000, &[1]).await;
    fixture.store.delete_deployment(&name("m"), None, &ann(), at(5_000)).await.unwrap();
    let mut batch = ApplyBatch::default();
    batch.add_deployment(0, deployment("m", "2"), None);
    fixture.store.apply(batch, false, &ann(), at(7_000)).await.unwrap();
    fixture.weights(9_000, &[2]).await;
    let mut told = Vec::new();
    for ms in [4_999, 5_000, 7_000, 8_999, 9_000] {
        told.push(fixture.served(ms).await);
    }
    assert_eq!(told, [Some(1), Some(0), Some(0), Some(0), Some(2)]);
}

#[tokio::test]
async fn a_successor_whose_clock_is_a_little_behind_is_believed() {
    let fixture = Fixture::with_deployment().await;
    fixture.weights(1_000, &[1]).await;
    fixture.weights(10_000, &[2]).await;
    fixture.weights(9_000, &[3]).await;
    assert_eq!(fixture.served(10_000).await, Some(3), "it was written last");
    assert_eq!(fixture.served(8_999).await, Some(1));
}

#[tokio::test]
async fn what_served_is_found_by_the_index_among_many_events() {
    let fixture = Fixture::with_deployment().await;
    let pool = PgPool::connect(fixture.database.url()).await.unwrap();
    // One deployment that was busy once and is quiet now: the worst that a walk back through all events could meet.
    sqlx::query(
        "insert into events (at_ms, kind, actor, deployment, message, data)
         select n, case when n % 3 = 0 then 'WeightsChanged' else 'AnalysisDecided' end, 'system',
                case when n < 30000 and n % 4 > 0 then 'm' else 'd' || n % 100 end, 'moved', '{\"weights\": []}'
         from generate_series(1, 60000) n",
    )
    .execute(&pool)
    .await
    .unwrap();
    sqlx::query("analyze events").execute(&pool).await.unwrap();
    let recorded = include_str!("../../src/events.rs");
    let query = recorded.split("r#\"with latest").nth(1).and_then(|rest| rest.split("\"#").next()).unwrap();
    let query = format!("with latest{query}");
    for (deployment, at_ms) in [("m", 20_000), ("m", 60_000), ("m", 1), ("d1", 40_000), ("nobody", 60_000)] {
        // As the store asks: a prepared statement. Sixth time around Postgres may plan it for all values alike.
        let explain = format!("explain (analyze, buffers, format json) {query}");
        for plan_for in ["force_custom_plan", "force_generic_plan"] {
            let mut connection = pool.acquire().await.unwrap();
            let set = format!("set plan_cache_mode = {plan_for}");
            sqlx::query(sqlx::AssertSqlSafe(set)).execute(&mut *connection).await.unwrap();
            let plan: Value = sqlx::query_scalar(sqlx::AssertSqlSafe(explain.clone()))
                .bind(deployment)
                .bind(at_ms as i64)
                .bind(2_000i64)
                .fetch_one(&mut *connection)
                .await
                .unwrap();
            let text = plan.to_string();
            assert!(text.contains("events_served"), "{plan:#}");
            assert!(!text.contains("Seq Scan"), "{plan:#}");
            let root = &plan[0]["Plan"];
            let pages = root["Shared Hit Blocks"].as_u64().unwrap() + root["Shared Read Blocks"].as_u64().unwrap();
            assert!(pages < 40, "{pages} pages for {deployment} at {at_ms}: {plan:#}");
        }
    }
}
