//! The store: everything that lasts, in Postgres. The only place with SQL.
//!
//! It keeps promises that only a transaction can (all documents or none, compare-and-set, one writer at a time) and
//! decides nothing else.
//!
//! Every writing transaction begins with one advisory lock ([`Store::write`]). Writes are few and short; in return they
//! cannot deadlock, creation needs no retry, and the ids of events become visible in their order, so that an id is a
//! safe place to go on reading from.

mod aliases;
mod apply;
mod chain;
mod commit;
mod control;
mod deployments;
mod desired;
mod error;
mod events;
mod experiments;
mod models;
mod office;
mod revisions;
mod rollback;
mod schema;
mod tokens;

use std::str::FromStr;
use std::time::Duration;

use modelyard_core::Epoch;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{PgConnection, Postgres, Transaction};

pub use aliases::AliasMoved;
pub use apply::{AppliedDocument, ApplyBatch, ApplyOutcome, Change, DocumentWarning};
pub use control::ControlVerb;
pub use deployments::DeploymentRow;
pub use error::{DocumentProblem, ProblemStatus, StoreError};
pub use events::EventFilter;
pub use experiments::{ExperimentRow, ExposureRow, OutcomeRow};
pub use models::{AliasMoveRow, AliasRow, ModelRow, VersionRow};
pub use office::{Candidate, Claim, Holder, Office, Standing};
pub use revisions::RevisionRow;
pub use tokens::{IssuedToken, NewToken, TokenRow};

/// Taken by every writer, and by the trigger that chains events (migration 0005). Any number does, as long as nothing
/// else in the database uses it.
const WRITE_LOCK: i64 = 0x6d6f_6465_6c79;

type Tx = Transaction<'static, Postgres>;
type Result<T> = std::result::Result<T, StoreError>;

/// A writer that is stopped in mid-transaction, or cut off, holds all others up for no longer (in milliseconds): well
/// within the time of a lease, whose successor is a writer too.
const LONGEST_PAUSE_MS: &str = "3000";

#[derive(Debug, Clone)]
pub struct Store {
    pool: PgPool,
    /// Whose writes these are; `None` where no term of office is asked for.
    term: Option<Epoch>,
}

impl Store {
    /// For a database at `postgres://USER@HOST:PORT/NAME`. Connects when first needed, and again when connections
    /// break; a database that does not answer within 2 s is [`StoreError::Unavailable`].
    ///
    /// # Errors
    /// If the URL cannot be read.
    pub fn connect(url: &str) -> Result<Self> {
        let options = PgConnectOptions::from_str(url)
            .map_err(|error| StoreError::Invalid { message: format!("DATABASE_URL: {error}") })?;
        let name = options.get_application_name().unwrap_or("modelyard").to_owned();
        let options = options.application_name(&name);
        let pool = PgPoolOptions::new()
            .max_connections(16)
            .acquire_timeout(Duration::from_secs(2))
            .idle_timeout(Duration::from_secs(300))
            .connect_lazy_with(options);
        Ok(Self { pool, term: None })
    }

    /// Brings the schema up to date. Safe when several do so at once.
    ///
    /// # Errors
    /// A database that fails, or one with a newer schema.
    pub async fn migrate(&self) -> Result<()> {
        sqlx::migrate!("../../migrations").run(&self.pool).await.map_err(|error| match error {
            sqlx::migrate::MigrateError::Execute(error) => error.into(),
            other => StoreError::Internal(other.to_string()),
        })
    }

    pub async fn ping(&self) -> Result<()> {
        sqlx::query("select 1").execute(&self.pool).await?;
        Ok(())
    }

    /// A transaction that writes: the only one, until it ends.
    async fn write(&self) -> Result<Tx> {
        self.write_in(self.term).await
    }

    /// # Errors
    /// [`StoreError::Fenced`] if `term` is over.
    async fn write_in(&self, term: Option<Epoch>) -> Result<Tx> {
        let mut tx = self.pool.begin().await?;
        lock_writes(&mut tx).await?;
        if let Some(term) = term {
            // In a statement of its own, which sees what was written before the lock was had.
            office::check_term(&mut tx, term).await?;
        }
        Ok(tx)
    }

    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// Waits until the transaction is the only one that writes.
async fn lock_writes(tx: &mut PgConnection) -> Result<()> {
    sqlx::query("select set_config('idle_in_transaction_session_timeout', $2, true), pg_advisory_xact_lock($1)")
        .bind(WRITE_LOCK)
        .bind(LONGEST_PAUSE_MS)
        .execute(tx)
        .await?;
    Ok(())
}

/// Numbers are unsigned here and signed in Postgres. None comes near the difference.
fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn unsigned(n: i64) -> u64 {
    u64::try_from(n).unwrap_or_default()
}

/// A name that was checked before it was stored.
fn parse<T: FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T> {
    text.parse().map_err(|error: T::Err| StoreError::Internal(format!("the database holds a bad value: {error}")))
}
