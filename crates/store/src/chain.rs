//! The chain of events, as the database has it. Links are made by a trigger (migration 0005), and verified by
//! `modelyard_core::chain`, best where this database has no say.

use modelyard_core::{ChainHead, ChainedEvent};

use crate::{Result, Store, parse};

impl Store {
    /// Where the chain is now.
    pub async fn chain_head(&self) -> Result<ChainHead> {
        let last = sqlx::query!(
            r#"select position, encode(hash, 'hex') as "hash!" from events order by position desc limit 1"#
        );
        let Some(last) = last.fetch_optional(&self.pool).await? else { return Ok(ChainHead::BEGIN) };
        Ok(ChainHead { position: last.position, hash: parse(&last.hash)? })
    }

    /// Events in order of their position, those after one, at most `limit`.
    pub async fn chained_events(&self, after: Option<i64>, limit: i64) -> Result<Vec<ChainedEvent>> {
        let events = sqlx::query_as!(
            ChainedEvent,
            r#"select position, encode(hash, 'hex') as "hash!", id, at_ms, kind, actor, model, deployment, message,
                      data::text as "data!"
               from events where position > $1 order by position limit $2"#,
            after.unwrap_or(i64::MIN),
            limit,
        );
        Ok(events.fetch_all(&self.pool).await?)
    }
}
