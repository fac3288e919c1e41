//! Who may do what: tokens are verified here, and held against the one table of [`rules`].
//!
//! A token that is known is verified from memory, so that no request waits for Postgres because of it, and a database
//! that is away locks nobody out who was let in before. What is known is read anew every [`REFRESH`]: that is how long
//! a revoked token may still do something.

mod bootstrap;
pub mod command;
mod known;
pub mod rules;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use modelyard_core::{Actor, Digest, Role, Timestamp, TokenName};
use modelyard_store::{Store, StoreError};
use tokio::sync::Semaphore;

use crate::app::now;
use bootstrap::Bootstrap;
pub use bootstrap::BootstrapError;
use known::Known;

/// How old what is known of a token may be while Postgres answers.
pub const REFRESH: Duration = Duration::from_secs(2);
/// For Postgres to say what it knows of a token.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// Tokens never seen before are looked up by so many at once: guessing must not take all connections.
const LOOK_UPS: usize = 4;

/// Who a valid token belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub name: TokenName,
    pub role: Role,
}

impl Caller {
    pub fn actor(&self) -> Actor {
        self.name.clone().into()
    }
}

/// Why a request is not carried out.
#[derive(Debug, thiserror::Error)]
pub enum Denied {
    #[error("this needs a token: send `authorization: Bearer TOKEN` (the commands send MODELYARD_TOKEN)")]
    NoToken,
    #[error("this token is not known: it never was one, or was revoked")]
    Unknown,
    #[error("the token of {name} expired at {at}")]
    Expired { name: TokenName, at: Timestamp },
    #[error("the token of {} has the role {}, which may not {what}; {}", caller.name, caller.role, takes(allowed))]
    Forbidden { caller: Caller, what: String, allowed: &'static [Role] },
    /// Whether it is a token cannot be told now.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn takes(roles: &[Role]) -> String {
    let names: Vec<_> = roles.iter().map(|role| role.as_str()).collect();
    if names.is_empty() { "nobody may".into() } else { format!("it takes the role {}", names.join(" or ")) }
}

/// Why the control plane does not start.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    #[error(
        "refusing to listen on {0}: beyond loopback the admin API answers to tokens alone, and there is none yet. Make \
         one with `modelyard-control-plane token create --role admin --name NAME` (or `cargo xtask token create …`) \
         against the same DATABASE_URL, or give --bootstrap-tokens DIR"
    )]
    NoTokens(std::net::SocketAddr),
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

pub struct Access {
    store: Store,
    /// Otherwise requests without a token may do everything: on loopback, where whoever asks owns the machine.
    required: bool,
    directory: Option<PathBuf>,
    bootstrap: ArcSwap<Bootstrap>,
    known: Known,
    look_ups: Semaphore,
}

impl Access {
    /// For a daemon that listens on `listen`.
    ///
    /// # Errors
    /// Bootstrap tokens that cannot be used, and an address beyond loopback while nobody has a token.
    pub async fn open(
        store: Store,
        listen: std::net::SocketAddr,
        config: &crate::config::Access,
        now: Timestamp,
    ) -> Result<Self, AccessError> {
        let is_public = !listen.ip().is_loopback();
        let directory = config.bootstrap_tokens.clone();
        let bootstrap = directory.as_deref().map(bootstrap::read).transpose()?.unwrap_or_default();
        bootstrap.fault()?;
        let required = is_public || config.require_tokens;
        let somebody = bootstrap.is_for_people() || (required && store.has_token_for_people(now).await?);
        if is_public && bootstrap.is_empty() && !somebody {
            return Err(AccessError::NoTokens(listen));
        }
        if required && !somebody {
            tracing::warn!("no person has a token: `modelyard-control-plane token create` makes one");
        }
        Ok(Self {
            store,
            required,
            directory,
            bootstrap: ArcSwap::from_pointee(bootstrap),
            known: Known::default(),
            look_ups: Semaphore::new(LOOK_UPS),
        })
    }

    /// Whether requests need a token here.
    pub fn asks_for_tokens(&self) -> bool {
        self.required
    }

    /// Whether the holder of `token` may `method` the route `path` (its template; `None` where there is no such route).
    /// `None` is somebody without a token, where none is needed.
    ///
    /// # Errors
    /// Why not.
    pub async fn admit(
        &self,
        token: Option<&str>,
        method: &str,
        path: Option<&str>,
        now: Timestamp,
    ) -> Result<Option<Caller>, Denied> {
        let Some(token) = token else {
            return if self.required { Err(Denied::NoToken) } else { Ok(None) };
        };
        let caller = self.caller(Digest::of(token.as_bytes()), now).await?;
        // What is not there is told to whoever has a token at all.
        let Some(path) = path else { return Ok(Some(caller)) };
        let allowed = rules::allowed(method, path);
        if allowed.contains(&caller.role) {
            return Ok(Some(caller));
        }
        Err(Denied::Forbidden { caller, what: format!("{method} {path}"), allowed })
    }

    async fn caller(&self, hash: Digest, now: Timestamp) -> Result<Caller, Denied> {
        if let Some(caller) = self.bootstrap.load().get(&hash) {
            return Ok(caller.clone());
        }
        let token = match self.known.get(&hash) {
            Some(token) => token,
            None => self.look_up(hash).await?.ok_or(Denied::Unknown)?,
        };
        if token.expires_at <= now {
            return Err(Denied::Expired { name: token.name, at: token.expires_at });
        }
        Ok(Caller { name: token.name, role: token.role })
    }

    /// Ends when the token of this hash, once admitted, is one no longer: for answers that go on and on.
    pub async fn lapsed(&self, hash: Digest) {
        loop {
            tokio::time::sleep(REFRESH).await;
            if let Err(Denied::Unknown | Denied::Expired { .. }) = self.caller(hash, now()).await {
                return;
            }
        }
    }

    async fn look_up(&self, hash: Digest) -> Result<Option<modelyard_store::TokenRow>, StoreError> {
        let _permit = self.look_ups.acquire().await;
        let token = self.read(&[hash]).await?.pop();
        if let Some(token) = &token {
            self.known.put(token.clone());
        }
        Ok(token)
    }

    async fn read(&self, hashes: &[Digest]) -> Result<Vec<modelyard_store::TokenRow>, StoreError> {
        let late = |_| StoreError::Unavailable(format!("no answer within {} s", ANSWER_WITHIN.as_secs()));
        tokio::time::timeout(ANSWER_WITHIN, self.store.tokens_with(hashes)).await.map_err(late)?
    }

    /// A token that was revoked here. Other control planes see it within [`REFRESH`].
    pub fn forget(&self, hash: &Digest) {
        self.known.forget(hash);
    }

    /// Reads anew what is known, for ever: tokens of the database, and bootstrap tokens where their files change.
    pub async fn keep_current(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(REFRESH);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.read_bootstrap();
            let hashes = self.known.in_use();
            if hashes.is_empty() {
                continue;
            }
            match self.read(&hashes).await {
                Ok(tokens) => self.known.update(&hashes, tokens),
                Err(error) => tracing::debug!(%error, "tokens cannot be read; those that are known stay valid"),
            }
        }
    }

    fn read_bootstrap(&self) {
        let Some(directory) = &self.directory else { return };
        match bootstrap::read(directory) {
            Ok(new) if new != **self.bootstrap.load() => {
                if let Err(error) = new.fault() {
                    tracing::error!(%error, "a bootstrap token is left out");
                }
                tracing::info!(tokens = new.len(), "bootstrap tokens have changed");
                self.bootstrap.store(Arc::new(new));
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "bootstrap tokens stay as they were"),
        }
    }
}
