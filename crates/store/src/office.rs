//! The office: which control plane decides. A lease by Postgres' own clock, and an epoch that fences every write.
//!
//! Renewals have a connection of their own: they never wait behind requests for one of the pool, and one that hangs is
//! given up at once instead of going back to where others would find it.

use std::time::Duration;

use modelyard_core::Epoch;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};
use tokio::sync::Mutex;

use crate::{Result, Store, StoreError, lock_writes, signed, unsigned};

/// An answer that takes longer is none: the lease must be renewed, or known to be lost, well within its time.
const ANSWER_WITHIN: Duration = Duration::from_millis(1500);

/// A control plane as the others know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Unique among the control planes that run at one time.
    pub identity: String,
    /// Where its API is reached: `http://10.0.0.7:8080`.
    pub address: String,
}

/// What may be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// An office whose lease has run out, or was given back.
    Vacant,
    /// Also one that an earlier life of the candidate holds: for the first claim of a process, and no other, since two
    /// that believe to be the same would depose each other for ever.
    Inherited,
}

/// Who is in office, as Postgres just said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// The candidate. `last_event` is the id of the latest event: another's writes show in it.
    Held { epoch: Epoch, last_event: i64 },
    /// Somebody else, or nobody (then `expires_in` is zero).
    Standby(Holder),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    pub identity: String,
    pub address: String,
    pub epoch: Epoch,
    /// Zero once the lease has run out.
    pub expires_in: Duration,
}

/// A candidate's way to the office.
#[derive(Debug)]
pub struct Office {
    candidate: Candidate,
    options: PgConnectOptions,
    connection: Mutex<Option<PgConnection>>,
}

impl Store {
    pub fn office(&self, candidate: Candidate) -> Office {
        let options = self.pool.connect_options();
        Office { candidate, options: options.as_ref().clone(), connection: Mutex::default() }
    }

    /// The store of one term of office: once another control plane has taken office, all writes are refused.
    #[must_use]
    pub fn in_term(&self, epoch: Epoch) -> Self {
        Self { term: Some(epoch), ..self.clone() }
    }
}

impl Office {
    pub fn candidate(&self) -> &Candidate {
        &self.candidate
    }

    /// Takes office if it may be taken: for `ttl`, with the next epoch. From then on writes of earlier terms are
    /// refused.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: it may or may not have been taken.
    pub async fn claim(&self, claim: Claim, ttl: Duration) -> Result<Standing> {
        self.within(async {
            let mut connection = self.connect().await?;
            let holder = look(&mut connection).await?;
            let inherited = claim == Claim::Inherited && holder.identity == self.candidate.identity;
            let standing = if holder.expires_in.is_zero() || inherited {
                self.take(&mut connection, claim, ttl).await?
            } else {
                Standing::Standby(holder)
            };
            *self.connection.lock().await = Some(connection);
            Ok(standing)
        })
        .await
    }

    /// Under the lock of all writers: no commit of the earlier term is under way, and none comes after.
    async fn take(&self, connection: &mut PgConnection, claim: Claim, ttl: Duration) -> Result<Standing> {
        let mut tx = connection.begin().await?;
        lock_writes(&mut tx).await?;
        let taken = sqlx::query!(
            r#"update office set epoch = epoch + 1, holder = $1, address = $2,
                      expires = clock_timestamp() + make_interval(secs => $3)
               where expires <= clock_timestamp() or ($4 and holder = $1)
               returning epoch, (select coalesce(max(id), 0) from events) as "last_event!""#,
            self.candidate.identity,
            self.candidate.address,
            ttl.as_secs_f64(),
            claim == Claim::Inherited,
        );
        let taken = taken.fetch_optional(&mut *tx).await?;
        let standing = match taken {
            Some(row) => Standing::Held { epoch: Epoch(unsigned(row.epoch)), last_event: row.last_event },
            None => Standing::Standby(look(&mut tx).await?),
        };
        tx.commit().await?;
        Ok(standing)
    }

    /// Keeps the office for another `ttl`. A lease that ran out is renewed too, unless another has taken office since.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: it may or may not have been renewed.
    pub async fn renew(&self, epoch: Epoch, ttl: Duration) -> Result<Standing> {
        self.within(async {
            let mut connection = self.connect().await?;
            let renewed = sqlx::query_scalar!(
                r#"update office set expires = clock_timestamp() + make_interval(secs => $3)
                   where holder = $1 and epoch = $2
                   returning (select coalesce(max(id), 0) from events) as "last_event!""#,
                self.candidate.identity,
                signed(epoch.0),
                ttl.as_secs_f64(),
            );
            let standing = match renewed.fetch_optional(&mut connection).await? {
                Some(last_event) => Standing::Held { epoch, last_event },
                None => Standing::Standby(look(&mut connection).await?),
            };
            *self.connection.lock().await = Some(connection);
            Ok(standing)
        })
        .await
    }

    /// Gives the office back, so that the next need not wait for the lease to run out. No write may follow.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]
    pub async fn release(&self, epoch: Epoch) -> Result<()> {
        self.within(async {
            let mut connection = self.connect().await?;
            sqlx::query!(
                "update office set expires = 'epoch' where holder = $1 and epoch = $2",
                self.candidate.identity,
                signed(epoch.0),
            )
            .execute(&mut connection)
            .await?;
            Ok(())
        })
        .await
    }

    /// The connection of last time, or a new one. Who is done puts it back; one that failed or hangs is dropped.
    async fn connect(&self) -> Result<PgConnection> {
        match self.connection.lock().await.take() {
            Some(connection) => Ok(connection),
            None => Ok(PgConnection::connect_with(&self.options).await?),
        }
    }

    async fn within<T>(&self, asking: impl Future<Output = Result<T>>) -> Result<T> {
        let late = |_| StoreError::Unavailable(format!("no answer within {} ms", ANSWER_WITHIN.as_millis()));
        tokio::time::timeout(ANSWER_WITHIN, asking).await.map_err(late)?
    }
}

async fn look(connection: &mut PgConnection) -> Result<Holder> {
    let row = sqlx::query!(
        r#"select epoch, holder, address,
                  extract(epoch from greatest(expires - clock_timestamp(), interval '0'))::float8 as "remaining!"
           from office"#
    );
    let row = row.fetch_one(connection).await?;
    let (epoch, expires_in) = (Epoch(unsigned(row.epoch)), Duration::from_secs_f64(row.remaining));
    Ok(Holder { identity: row.holder, address: row.address, epoch, expires_in })
}

/// # Errors
/// [`StoreError::Fenced`] if another control plane has taken office since `term`. What holds under the lock of all
/// writers holds until the transaction ends.
pub(crate) async fn check_term(connection: &mut PgConnection, term: Epoch) -> Result<()> {
    let seen = sqlx::query_scalar!("select epoch from office").fetch_one(connection).await?;
    let seen = Epoch(unsigned(seen));
    if seen > term { Err(StoreError::Fenced { given: term, seen }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use modelyard_test_support::TestDatabase;

    use super::*;

    /// As when its process is stopped in the middle, or its connection cut.
    #[tokio::test]
    async fn a_writer_that_pauses_does_not_keep_the_next_from_taking_office() {
        let database = TestDatabase::create().await;
        let store = Store::connect(database.url()).unwrap();
        store.migrate().await.unwrap();
        let paused = store.write().await.unwrap();
        let office = store.office(Candidate { identity: "a".into(), address: String::new() });
        let began = Instant::now();
        let took = loop {
            match office.claim(Claim::Vacant, Duration::from_secs(5)).await {
                Ok(Standing::Held { .. }) => break began.elapsed(),
                other => assert!(began.elapsed() < Duration::from_secs(10), "{other:?}"),
            }
        };
        assert!(took < Duration::from_secs(5), "{took:?}");
        let lost = paused.commit().await.map_err(StoreError::from);
        assert!(matches!(lost, Err(StoreError::Unavailable(_))), "{lost:?}");
    }
}
