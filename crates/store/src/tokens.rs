//! Tokens of the admin API. Made here, from the operating system's random numbers; only their hashes are kept.

use modelyard_core::event::{EventDraft, EventKind};
use modelyard_core::{Actor, Digest, Role, Span, Timestamp, TokenId, TokenName, TokenSecret};
use serde_json::json;

use crate::{Result, Store, StoreError, Tx, events, parse};

/// A token that lasts longer is one that nobody will remember.
const LONGEST: Span = Span::from_secs(366 * 24 * 3600);
/// An expired token is still known for so long, so that its holder is told that it has expired.
const KEPT_AFTER_EXPIRY: Span = Span::from_secs(24 * 3600);
/// "mdl1st" in ASCII: no other lock of this database has it.
const FIRST_TOKEN_LOCK: i64 = 0x6d64_6c31_7374;

/// What is known of a token: all but the token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRow {
    pub id: TokenId,
    pub name: TokenName,
    pub role: Role,
    pub digest: Digest,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    pub created_by: Actor,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewToken {
    pub name: TokenName,
    pub role: Role,
    pub lifetime: Span,
}

/// A new token. This is the only time that its secret is there to be had.
#[derive(Debug, Clone)]
pub struct IssuedToken {
    pub row: TokenRow,
    pub secret: TokenSecret,
}

struct Row {
    id: i64,
    name: String,
    digest: String,
    role: String,
    created_ms: i64,
    expires_ms: i64,
    created_by: String,
}

impl Row {
    fn token(self) -> Result<TokenRow> {
        Ok(TokenRow {
            id: TokenId(self.id),
            name: parse(&self.name)?,
            role: parse(&self.role)?,
            digest: parse(&self.digest)?,
            created_at: Timestamp::from_millis(self.created_ms),
            expires_at: Timestamp::from_millis(self.expires_ms),
            created_by: parse(&self.created_by)?,
        })
    }
}

impl Store {
    /// 256 bits from the operating system. Not stored: for a token that is kept elsewhere, as a Secret.
    ///
    /// # Errors
    /// An operating system without random numbers.
    pub fn random_token() -> Result<TokenSecret> {
        let mut bits = [0; 32];
        getrandom::fill(&mut bits).map_err(|error| StoreError::Internal(format!("no random numbers: {error}")))?;
        Ok(TokenSecret::from_random(bits))
    }

    /// Makes a token for a person, and an event that says so.
    ///
    /// # Errors
    /// [`StoreError::Invalid`]: a role that is not for people, or a lifetime that is none or too long.
    pub async fn create_token(&self, new: NewToken, actor: &Actor, now: Timestamp) -> Result<IssuedToken> {
        if !new.role.is_for_people() {
            let message = format!("the role {} is for programs; use viewer, operator or admin", new.role);
            return Err(StoreError::Invalid { message });
        }
        self.register(new, Self::random_token()?, actor, now).await
    }

    /// Makes the first token of a person, unless there is one. It is handed over before it is good for anything, so that
    /// it cannot be lost: what fails, or is cut off, is done anew by the next call. One call does so at a time. Answers
    /// whether there was none.
    ///
    /// # Errors
    /// Of handing it over; [`StoreError::Invalid`] as for [`Store::create_token`].
    pub async fn make_first_token<E: From<StoreError>>(
        &self,
        new: NewToken,
        now: Timestamp,
        hand_over: impl AsyncFnOnce(&TokenSecret, Timestamp) -> std::result::Result<(), E>,
    ) -> std::result::Result<bool, E> {
        // Held for as long as the transaction, beside the lock of those that write.
        let mut alone = self.pool.begin().await.map_err(StoreError::from)?;
        let lock = sqlx::query("select pg_advisory_xact_lock($1)").bind(FIRST_TOKEN_LOCK);
        lock.execute(&mut *alone).await.map_err(StoreError::from)?;
        if self.has_token_for_people(now).await? {
            return Ok(false);
        }
        let secret = Self::random_token()?;
        hand_over(&secret, now + new.lifetime).await?;
        self.register(new, secret, &Actor::system(), now).await?;
        alone.commit().await.map_err(StoreError::from)?;
        Ok(true)
    }

    async fn register(&self, new: NewToken, secret: TokenSecret, actor: &Actor, now: Timestamp) -> Result<IssuedToken> {
        let mut tx = self.write().await?;
        let issued = insert(&mut tx, new, secret, actor, now).await?;
        let TokenRow { id, name, role, expires_at, .. } = &issued.row;
        let message = format!("token {id} of {name} was made: {role}, until {expires_at}");
        let data = json!({"id": id, "name": name, "role": role, "expiresAt": expires_at});
        append(&mut tx, EventKind::TokenCreated, message, data, actor, now).await?;
        tx.commit().await?;
        Ok(issued)
    }

    /// Makes a short-lived token for a program: no event tells of it.
    ///
    /// # Errors
    /// [`StoreError::Invalid`]: a role that is for people, or a lifetime that is none or too long.
    pub async fn issue_token(&self, new: NewToken, now: Timestamp) -> Result<IssuedToken> {
        if new.role.is_for_people() {
            return Err(StoreError::Invalid { message: format!("the role {} is for people", new.role) });
        }
        let mut tx = self.pool.begin().await?;
        let issued = insert(&mut tx, new, Self::random_token()?, &Actor::system(), now).await?;
        tx.commit().await?;
        Ok(issued)
    }

    /// Tokens in order of id, at most `limit`; expired ones too, for a day.
    pub async fn tokens(&self, limit: i64, after: Option<TokenId>) -> Result<Vec<TokenRow>> {
        let rows = sqlx::query_as!(
            Row,
            "select id, name, digest, role, created_ms, expires_ms, created_by from tokens
             where id > $1 order by id limit $2",
            after.map_or(0, |id| id.0),
            limit,
        );
        rows.fetch_all(&self.pool).await?.into_iter().map(Row::token).collect()
    }

    /// Those of `hashes` that are hashes of tokens; expired ones too.
    pub async fn tokens_with(&self, hashes: &[Digest]) -> Result<Vec<TokenRow>> {
        let hashes: Vec<String> = hashes.iter().map(Digest::to_string).collect();
        let rows = sqlx::query_as!(
            Row,
            "select id, name, digest, role, created_ms, expires_ms, created_by from tokens where digest = any($1)",
            &hashes,
        );
        rows.fetch_all(&self.pool).await?.into_iter().map(Row::token).collect()
    }

    /// Whether there is a token that a person can use now.
    pub async fn has_token_for_people(&self, now: Timestamp) -> Result<bool> {
        let found = sqlx::query_scalar!(
            r#"select exists (select from tokens where expires_ms > $1
               and role in ('viewer', 'operator', 'admin')) as "found!""#,
            now.as_millis(),
        );
        Ok(found.fetch_one(&self.pool).await?)
    }

    /// Ends a token, and returns its hash.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]
    pub async fn revoke_token(&self, id: TokenId, actor: &Actor, now: Timestamp) -> Result<TokenRow> {
        let mut tx = self.write().await?;
        let row = sqlx::query_as!(
            Row,
            "delete from tokens where id = $1
             returning id, name, digest, role, created_ms, expires_ms, created_by",
            id.0,
        );
        let row = row.fetch_optional(&mut *tx).await?.ok_or_else(|| StoreError::not_found("token", id))?.token()?;
        let message = format!("token {id} of {} was revoked", row.name);
        let data = json!({"id": id, "name": row.name, "role": row.role});
        append(&mut tx, EventKind::TokenRevoked, message, data, actor, now).await?;
        tx.commit().await?;
        Ok(row)
    }

    /// Forgets tokens that expired a day ago. Returns how many.
    pub async fn sweep_tokens(&self, now: Timestamp) -> Result<u64> {
        let before = now.as_millis().saturating_sub_unsigned(KEPT_AFTER_EXPIRY.as_millis());
        let swept = sqlx::query!("delete from tokens where expires_ms < $1", before).execute(&self.pool).await?;
        Ok(swept.rows_affected())
    }
}

async fn insert(tx: &mut Tx, new: NewToken, secret: TokenSecret, actor: &Actor, now: Timestamp) -> Result<IssuedToken> {
    if new.lifetime.as_millis() == 0 || new.lifetime > LONGEST {
        let message = format!("a token lasts longer than 0s, and at most {LONGEST}");
        return Err(StoreError::Invalid { message });
    }
    let (digest, expires_at) = (secret.hash(), now + new.lifetime);
    let id = sqlx::query_scalar!(
        "insert into tokens (name, digest, role, created_ms, expires_ms, created_by)
         values ($1, $2, $3, $4, $5, $6) returning id",
        new.name.as_str(),
        digest.to_string(),
        new.role.as_str(),
        now.as_millis(),
        expires_at.as_millis(),
        actor.as_str(),
    );
    let id = TokenId(id.fetch_one(&mut **tx).await?);
    let NewToken { name, role, .. } = new;
    let row = TokenRow { id, name, role, digest, created_at: now, expires_at, created_by: actor.clone() };
    Ok(IssuedToken { row, secret })
}

async fn append(
    tx: &mut Tx,
    kind: EventKind,
    message: String,
    data: serde_json::Value,
    actor: &Actor,
    now: Timestamp,
) -> Result<()> {
    let event = EventDraft { kind, actor: actor.clone(), model: None, deployment: None, message, data };
    events::append(tx, &event, now).await
}
