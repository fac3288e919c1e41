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
    pub async fn served_at(&self, deployment: &DeploymentName, at: Timestamp) -> Result<Option<Event>> {
        let row = sqlx::query_as!(
            Row,
            "select id, at_ms, kind, actor, model, deployment, message, data from events
             where deployment = $1 and kind in ('WeightsChanged', 'DeploymentDeleted') and at_ms <= $2
             order by at_ms desc, id desc limit 1",
            deployment.as_str(),
            at.as_millis(),
        );
        row.fetch_optional(&self.pool).await?.map(Row::event).transpose()
    }
}

/// Appends an event within a writing transaction.
pub(crate) async fn append(tx: &mut Tx, event: &EventDraft, now: Timestamp) -> Result<()> {
    sqlx::query!(
        "insert into events (at_ms, kind, actor, model, deployment, message, data) values ($1, $2, $3, $4, $5, $6, $7)",
        now.as_millis(),
        event.kind.as_str(),
        event.actor.as_str(),
        event.model.as_ref().map(ModelName::as_str),
        event.deployment.as_ref().map(DeploymentName::as_str),
        event.message,
        event.data,
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}
