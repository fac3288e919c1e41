//! `modelyard-control-plane token …`: tokens made against the database itself. This is how the first one comes to be.

use anyhow::Context;
use clap::Subcommand;
use modelyard_core::{Actor, Role, Span, TokenId, TokenName, TokenSecret};
use modelyard_store::{NewToken, Store, TokenRow};

use crate::app::now;

#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token and print it, once, alone on standard output.
    Create(Create),
    /// List tokens, without their secrets.
    List(Database),
    /// End a token. Running control planes notice within seconds.
    Revoke {
        /// Its number in the list.
        id: TokenId,
        #[command(flatten)]
        database: Database,
    },
}

#[derive(Debug, clap::Args)]
pub struct Create {
    /// Whom the events will name. By default, with --secret, the role.
    #[arg(long, required_unless_present = "secret")]
    name: Option<TokenName>,
    /// viewer, operator or admin; with --secret also gateway.
    #[arg(long)]
    role: Role,
    /// How long it is valid: 12h, 30d.
    #[arg(long, default_value = "30d", conflicts_with = "secret")]
    expires: Span,
    /// Print the manifest of a Kubernetes Secret of this name instead, to be mounted for --bootstrap-tokens. Such a
    /// token is valid as long as the Secret is there. No database is needed.
    #[arg(long, value_name = "NAME")]
    secret: Option<String>,
    /// Of the Secret.
    #[arg(long, requires = "secret")]
    namespace: Option<String>,
    #[command(flatten)]
    database: Database,
}

#[derive(Debug, clap::Args)]
pub struct Database {
    /// postgres://USER:PASSWORD@HOST:PORT/NAME
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    database_url: Option<String>,
    /// Who asks, for the events.
    #[arg(long, default_value = "database")]
    actor: Actor,
}

impl Database {
    async fn store(&self) -> anyhow::Result<Store> {
        let url = self.database_url.as_ref().context("give --database-url, or set DATABASE_URL")?;
        let store = Store::connect(url)?;
        store.migrate().await.context("the schema cannot be brought up to date")?;
        Ok(store)
    }
}

/// # Errors
/// A database that does not answer, and what the store refuses.
pub async fn run(command: TokenCommand) -> anyhow::Result<()> {
    match command {
        TokenCommand::Create(Create { secret: Some(secret), name, role, namespace, .. }) => {
            let key = secret_key(role, name.as_ref())?;
            print(&manifest(&secret, namespace.as_deref(), &key, &Store::random_token()?)?);
            tracing::info!("the token is in the Secret under the key {key}; it is not stored anywhere else");
        }
        TokenCommand::Create(Create { name, role, expires, database, .. }) => {
            let name = name.context("give --name")?;
            let new = NewToken { name, role, lifetime: expires };
            let issued = database.store().await?.create_token(new, &database.actor, now()).await?;
            let TokenRow { id, name, role, expires_at, .. } = issued.row;
            tracing::info!("token {id} of {name}: {role}, until {expires_at}. It is printed this once");
            print(issued.secret.expose());
        }
        TokenCommand::List(database) => {
            let store = database.store().await?;
            let mut after = None;
            loop {
                let page = store.tokens(500, after).await?;
                let Some(last) = page.last() else { return Ok(()) };
                after = Some(last.id);
                for TokenRow { id, name, role, expires_at, created_by, .. } in &page {
                    print(&format!("{id}\t{name}\t{role}\tuntil {expires_at}\tmade by {created_by}"));
                }
            }
        }
        TokenCommand::Revoke { id, database } => {
            let row = database.store().await?.revoke_token(id, &database.actor, now()).await?;
            tracing::info!("token {id} of {} is revoked", row.name);
        }
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "it is what the command was asked for")]
fn print(text: &str) {
    println!("{text}");
}

/// The name of the file that the token will be in.
fn secret_key(role: Role, name: Option<&TokenName>) -> anyhow::Result<String> {
    anyhow::ensure!(role != Role::Worker, "tokens of workers are made by the control plane, each for a short time");
    Ok(name.map_or_else(|| role.to_string(), |name| format!("{role}.{name}")))
}

fn manifest(secret: &str, namespace: Option<&str>, key: &str, token: &TokenSecret) -> anyhow::Result<String> {
    for name in [Some(secret), namespace].into_iter().flatten() {
        let ok = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
        let is_name = (1..=253).contains(&name.len()) && name.chars().all(ok);
        anyhow::ensure!(is_name, "`{name}` is not a name of Kubernetes: use lower-case letters, digits, `-` and `.`");
    }
    let namespace = namespace.map_or_else(String::new, |namespace| format!("\n  namespace: \"{namespace}\""));
    let token = token.expose();
    Ok(format!(
        "apiVersion: v1\nkind: Secret\nmetadata:\n  name: \"{secret}\"{namespace}\n  labels:\n    \
         app.kubernetes.io/part-of: modelyard\ntype: Opaque\nstringData:\n  {key}: {token}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_holds_the_token_under_the_name_that_the_mount_needs() {
        let token = TokenSecret::from_random([0; 32]);
        let key = secret_key(Role::Admin, Some(&"alice".parse().unwrap())).unwrap();
        insta::assert_snapshot!(manifest("first-token", Some("modelyard"), &key, &token).unwrap(), @r#"
        apiVersion: v1
        kind: Secret
        metadata:
          name: "first-token"
          namespace: "modelyard"
          labels:
            app.kubernetes.io/part-of: modelyard
        type: Opaque
        stringData:
          admin.alice: my_0000000000000000000000000000000000000000000000000000000000000000
        "#);
        assert_eq!(secret_key(Role::Gateway, None).unwrap(), "gateway");
        assert!(secret_key(Role::Worker, None).is_err());
        assert!(manifest("x\ny: z", None, &key, &token).is_err());
    }
}
