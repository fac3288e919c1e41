//! Tokens: who may use the API.

use std::fmt;

use modelyard_core::{Actor, Role, Span, Timestamp, TokenId, TokenName};
use reqwest::Method;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::client::{Client, Result};

/// What is known of a token: all but the token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Token {
    pub id: TokenId,
    /// Whom the events name. Several tokens may have the same.
    pub name: TokenName,
    pub role: Role,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    pub created_by: Actor,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateToken {
    pub name: TokenName,
    /// `viewer`, `operator` or `admin`.
    pub role: Role,
    /// How long it is valid: `12h`, `30d`; at most 366 days.
    #[serde(default = "thirty_days")]
    pub expires_in: Span,
}

fn thirty_days() -> Span {
    Span::from_secs(30 * 24 * 3600)
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CreatedToken {
    #[serde(flatten)]
    pub token: Token,
    /// The token itself, to be sent as `authorization: Bearer SECRET`. It is told this once.
    pub secret: String,
}

impl fmt::Debug for CreatedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CreatedToken").field("token", &self.token).finish_non_exhaustive()
    }
}

impl Client {
    /// Oldest first.
    pub async fn tokens(&self) -> Result<Vec<Token>> {
        self.all("/tokens").await
    }

    pub async fn create_token(&self, token: &CreateToken) -> Result<CreatedToken> {
        self.post("/tokens", token, None).await
    }

    pub async fn revoke_token(&self, id: TokenId) -> Result<()> {
        self.send(self.request(Method::DELETE, &format!("/tokens/{id}"))).await.map(drop)
    }
}
