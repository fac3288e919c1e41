//! `token`: who may use the API. The first token is made where there is none to show: in the database itself, or as a
//! Kubernetes Secret; both by the control plane's own program, as nothing here knows the database.

use anyhow::{Context, ensure};
use modelyard_api::Client;
use modelyard_api::tokens::{CreateToken, Token as Row};
use modelyard_core::{Role, Span, Timestamp, TokenId, TokenName};

use super::output::{Output, Table, note, say};
use super::{Usage, actor, when};
use crate::build::{self, Profile};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Token {
    /// Make a token and print it, once, alone on standard output
    #[command(after_help = WHERE)]
    Create(Create),
    /// List tokens, without their secrets
    #[command(after_help = WHERE)]
    List {
        #[command(flatten)]
        output: Output,
    },
    /// End a token
    #[command(after_help = WHERE)]
    Revoke {
        /// Its number in the list
        id: TokenId,
    },
}

const WHERE: &str = "With MODELYARD_TOKEN (an admin's) by the API; else in the database that DATABASE_URL names, if it is \
                     set; else by the API, which asks for no token on loopback.";

#[derive(Debug, clap::Args)]
pub(crate) struct Create {
    /// Whom the events will name
    #[arg(long, required_unless_present = "secret")]
    name: Option<TokenName>,
    /// viewer, operator or admin; with --secret also gateway
    #[arg(long)]
    role: Role,
    /// How long it is valid; at most 366d
    #[arg(long, value_name = "DURATION", default_value = "30d", conflicts_with = "secret")]
    expires: Span,
    /// Print the manifest of a Kubernetes Secret with a new bootstrap token instead, for `kubectl apply -f -`
    #[arg(long, value_name = "NAME")]
    secret: Option<String>,
    /// Of the Secret
    #[arg(long, requires = "secret")]
    namespace: Option<String>,
}

pub(super) async fn run(args: Token, client: &Client) -> anyhow::Result<()> {
    match args {
        Token::Create(create) if !create.role.is_for_people() && create.secret.is_none() => {
            let what = format!("the role {} is for programs; use viewer, operator or admin", create.role);
            Err(Usage(what).into())
        }
        Token::Create(create) if create.secret.is_some() || in_database() => {
            let mut arguments = vec!["create".into(), "--role".into(), create.role.to_string()];
            let mut option =
                |flag: &str, value: Option<String>| arguments.extend([flag.into()].into_iter().chain(value));
            if let Some(name) = create.name {
                option("--name", Some(name.into()));
            }
            match (create.secret, create.namespace) {
                (None, _) => option("--expires", Some(create.expires.to_string())),
                (Some(secret), namespace) => {
                    option("--secret", Some(secret));
                    if let Some(namespace) = namespace {
                        option("--namespace", Some(namespace));
                    }
                }
            }
            directly(arguments).await
        }
        Token::Create(Create { name, role, expires, .. }) => {
            let name = name.context("give --name")?;
            let created = client.create_token(&CreateToken { name, role, expires_in: expires }).await?;
            let Row { id, name, role, expires_at, .. } = created.token;
            note(format_args!("token {id} of {name}: {role}, until {expires_at}. It is printed this once"));
            Ok(say(created.secret)?)
        }
        Token::List { .. } if in_database() => directly(vec!["list".into()]).await,
        Token::List { output } => output.list("tokens", &client.tokens().await?, |rows| table(rows, when::now())),
        Token::Revoke { id } if in_database() => directly(vec!["revoke".into(), id.to_string()]).await,
        Token::Revoke { id } => {
            client.revoke_token(id).await?;
            Ok(say(format_args!("token/{id} revoked"))?)
        }
    }
}

fn in_database() -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    is_set("DATABASE_URL") && !is_set("MODELYARD_TOKEN")
}

/// Has the control plane's program do it, in the database of its environment.
async fn directly(mut arguments: Vec<String>) -> anyhow::Result<()> {
    note("building the control plane, which knows the database");
    let program = build::control_plane(Profile::Dev).await?;
    if !arguments.iter().any(|argument| argument == "--secret") {
        arguments.extend(["--actor".into(), actor().to_string()]);
    }
    let mut command = tokio::process::Command::new(&program);
    let status = command.arg("token").args(arguments).status().await;
    let status = status.with_context(|| format!("cannot run {}", program.display()))?;
    ensure!(status.success(), "{} failed ({status})", program.display());
    Ok(())
}

fn table(tokens: &[Row], now: Timestamp) -> Table {
    let mut table = Table::new(["ID", "NAME", "ROLE", "AGE", "EXPIRES", "MADE BY"]);
    for token in tokens {
        let expired = if token.expires_at <= now { " (expired)" } else { "" };
        table.row([
            token.id.to_string(),
            token.name.to_string(),
            token.role.to_string(),
            when::age(token.created_at, now),
            format!("{}{expired}", when::clock(token.expires_at)),
            token.created_by.to_string(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_rows_and_expired_ones_say_so() {
        let token = |id, expires: &str| Row {
            id: TokenId(id),
            name: "alice".parse().unwrap(),
            role: Role::Operator,
            created_at: "2026-11-24T11:00:00Z".parse().unwrap(),
            expires_at: expires.parse().unwrap(),
            created_by: "root".parse().unwrap(),
        };
        let now = "2026-11-24T12:00:00Z".parse().unwrap();
        let rows = [token(1, "2026-11-24T11:30:00Z"), token(2, "2026-12-24T11:00:00Z")];
        insta::assert_snapshot!(table(&rows, now).to_string(), @r"
        ID   NAME    ROLE       AGE   EXPIRES                          MADE BY
        1    alice   operator   60m   2026-11-24T11:30:00Z (expired)   root
        2    alice   operator   60m   2026-12-24T11:00:00Z             root
        ");
    }
}
