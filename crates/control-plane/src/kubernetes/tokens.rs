//! Tokens that others in a cluster need before anybody could make them by hand: left in Secrets.

use std::convert::Infallible;
use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use modelyard_core::{Role, Span, Timestamp, TokenSecret};
use modelyard_runtime_kube::{Cluster, TokenIssuer};
use modelyard_store::{NewToken, Store};

use super::{Options, RuntimeKind, cluster};
use crate::app::now;

const ADMIN_SECRET: &str = "modelyard-admin-token";
const GATEWAY_SECRET: &str = "modelyard-gateway-token";
/// The first token is for making others.
const ADMIN_LIFETIME: Span = Span::from_secs(30 * 24 * 3600);
const GATEWAY_LIFETIME: Span = Span::from_secs(30 * 24 * 3600);
const GATEWAY_RENEWED_BEFORE: Span = Span::from_secs(15 * 24 * 3600);
const LOOK_EVERY: Duration = Duration::from_secs(3600);
const RETRY: Duration = Duration::from_secs(5);

/// Workers' tokens: good for artifacts and nothing else, and not for long.
pub(super) struct Issuer {
    pub(super) store: Store,
}

#[async_trait]
impl TokenIssuer for Issuer {
    async fn issue(&self, lifetime: Duration) -> Result<TokenSecret, String> {
        issue(&self.store, Role::Worker, Span::from_secs(lifetime.as_secs())).await.map_err(|error| error.to_string())
    }
}

async fn issue(store: &Store, role: Role, lifetime: Span) -> anyhow::Result<TokenSecret> {
    let name = format!("{role}s").parse()?;
    let issued = store.issue_token(NewToken { name, role, lifetime }, now()).await?;
    Ok(issued.secret)
}

/// Before the first person has a token: makes one for them, and one for the gateways, and leaves both in Secrets. An
/// installation is then complete by `kubectl apply` alone.
///
/// # Errors
/// If the cluster or Postgres refuses. Once a person has a token, the cluster is not asked.
pub(crate) async fn make_first(options: &Options, store: &Store) -> anyhow::Result<()> {
    if options.runtime == RuntimeKind::Local || store.has_token_for_people(now()).await? {
        return Ok(());
    }
    let cluster = cluster(options).await?;
    let new = NewToken { name: "first-admin".parse()?, role: Role::Admin, lifetime: ADMIN_LIFETIME };
    let hand_over = async |token: &TokenSecret, until: Timestamp| {
        cluster.put_token(ADMIN_SECRET, token, until.as_millis()).await.context(ADMIN_SECRET)?;
        tracing::info!("the first administrator's token is in the Secret {ADMIN_SECRET}, until {until}");
        // Whatever token gateways had, this database does not know it.
        renew_gateways(&cluster, store).await
    };
    store.make_first_token(new, now(), hand_over).await?;
    Ok(())
}

/// Keeps the gateways' token good for as long as a term lasts.
pub(crate) async fn look_after(options: &Options, store: &Store) -> Infallible {
    if options.runtime == RuntimeKind::Local {
        return std::future::pending().await;
    }
    loop {
        let fresh = async { freshen_gateways(&cluster(options).await?, store).await };
        let next = match fresh.await {
            Ok(()) => LOOK_EVERY,
            Err(error) => {
                tracing::warn!("the gateways' token could not be looked after: {error:#}");
                RETRY
            }
        };
        tokio::time::sleep(next).await;
    }
}

async fn freshen_gateways(cluster: &Cluster, store: &Store) -> anyhow::Result<()> {
    let until = cluster.token_good_until(GATEWAY_SECRET).await?.map(Timestamp::from_millis);
    if until.is_some_and(|until| until > now() + GATEWAY_RENEWED_BEFORE) {
        return Ok(());
    }
    renew_gateways(cluster, store).await
}

async fn renew_gateways(cluster: &Cluster, store: &Store) -> anyhow::Result<()> {
    let until = now() + GATEWAY_LIFETIME;
    let token = issue(store, Role::Gateway, GATEWAY_LIFETIME).await?;
    cluster.put_token(GATEWAY_SECRET, &token, until.as_millis()).await.context(GATEWAY_SECRET)
}
