//! The append-only log of events.

use modelyard_core::event::{Event, EventDraft, EventKind};
use modelyard_core::{Actor, DeploymentName, ModelName, Timestamp};

use crate::{Result, Store, Tx, parse};

/// Which events; all of them by default.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    pub deployment: Option<DeploymentName>,
    pub kind: Option<EventKind>,
    /// At this time or later.
    pub since: Option<Timestamp>,
    /// Those with a greater id.
    pub after: Option<i64>,
}

struct Row {
    id: i64,
    at_ms: i64,
    kind: String,
    actor: String,
    model: Option<String>,
    deployment: Option<String>,
    message: String,
    data: serde_json::Value,
}

impl Row {
    fn event(self) -> Result<Event> {
        let model: Option<ModelName> = self.model.as_deref().map(parse).transpose()?;
        let deployment: Option<DeploymentName> = self.deployment.as_deref().map(parse).transpose()?;
        let (kind, actor): (EventKind, Actor) = (parse(&self.kind)?, parse(&self.actor)?);
        let what = EventDraft { kind, actor, model, deployment, message: self.message, data: self.data };
        Ok(Event { id: self.id, at: Timestamp::from_millis(self.at_ms), what })
    }
}

impl Store {
    /// Events in order of id, at most `limit`.
    pub async fn events(&self, filter: &EventFilter, limit: i64) -> Result<Vec<Event>> {
        let rows = sqlx::query_as!(
            Row,
            "select id, at_ms, kind, actor, model, deployment, message, data from events
             where id > $1 and at_ms >= $2
               and ($3::text is null or deployment = $3) and ($4::text is null or kind = $4)
             order by id limit $5",
            filter.after.unwrap_or(0),
            filter.since.map_or(i64::MIN, Timestamp::as_millis),
            filter.deployment.as_ref().map(DeploymentName::as_str),
            filter.kind.map(EventKind::as_str),
            limit,
        );
        rows.fetch_all(&self.pool).await?.into_iter().map(Row::event).collect()
    }

    /// The id of the latest event; 0 before the first.
    pub async fn last_event_id(&self) -> Result<i64> {
        Ok(sqlx::query_scalar!(r#"select coalesce(max(id), 0) as "id!" from events"#).fetch_one(&self.pool).await?)
    }

    /// The change of weights that was in force at a time, or the deletion that ended it.
    ///
    /// Of those stamped within [`CLOCKS_DIFFER_MS`] before it the one written last counts: at a change of office the
    /// successor's clock may be behind.
    pub async fn served_at(&self, deployment: &DeploymentName, at: Timestamp) -> Result<Option<Event>> {
        // As many as could fall into that time; without the limit the index would not give the order for nothing.
        let row = sqlx::query_as!(
            Row,
            r#"with latest as (
                   select id, at_ms, kind, actor, model, deployment, message, data from events
                   where deployment = $1 and kind in ('WeightsChanged', 'DeploymentDeleted') and at_ms <= $2
                   order by at_ms desc, id desc limit 16)
               select id as "id!", at_ms as "at_ms!", kind as "kind!", actor as "actor!", model, deployment,
                      message as "message!", data as "data!" from latest
               where at_ms >= (select max(at_ms) from latest) - $3::bigint
               order by id desc limit 1"#,
            deployment.as_str(),
            at.as_millis(),
            CLOCKS_DIFFER_MS,
        );
        row.fetch_optional(&self.pool).await?.map(Row::event).transpose()
    }
}

/// How far apart the clocks of two control planes are taken to be at most, in milliseconds: machines that keep time by
/// NTP are within a second.
const CLOCKS_DIFFER_MS: i64 = 2000;

/// Appends an event within a writing transaction. The database makes it a link of the chain (migration 0005).
pub(crate) async fn append(tx: &mut Tx, event: &EventDraft, now: Timestamp) -> Result<()> {
    append_all(tx, [event], now).await
}

/// Appends events in their order, in one statement.
pub(crate) async fn append_all<'e>(
    tx: &mut Tx,
    events: impl IntoIterator<Item = &'e EventDraft>,
    now: Timestamp,
) -> Result<()> {
    let (mut kinds, mut actors, mut models) = (Vec::new(), Vec::new(), Vec::new());
    let (mut deployments, mut messages, mut data) = (Vec::new(), Vec::new(), Vec::new());
    for event in events {
        kinds.push(event.kind.as_str().to_owned());
        actors.push(event.actor.to_string());
        models.push(event.model.as_ref().map(ToString::to_string));
        deployments.push(event.deployment.as_ref().map(ToString::to_string));
        messages.push(event.message.clone());
        data.push(event.data.clone());
    }
    if kinds.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "insert into events (at_ms, kind, actor, model, deployment, message, data)
         select $1, e.kind, e.actor, e.model, e.deployment, e.message, e.data
         from unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::jsonb[])
              with ordinality as e (kind, actor, model, deployment, message, data, n)
         order by e.n",
        now.as_millis(),
        &kinds,
        &actors,
        &models as &[Option<String>],
        &deployments as &[Option<String>],
        &messages,
        &data,
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}
