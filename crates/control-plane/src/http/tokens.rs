//! `GET`, `POST /tokens`, `DELETE /tokens/{id}`

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use bytes::Bytes;
use modelyard_api::ProblemDetails;
use modelyard_api::tokens::{CreateToken, CreatedToken, Token};
use modelyard_api::types::Page;
use modelyard_core::TokenId;
use modelyard_store::{NewToken, TokenRow};

use super::extract::{At, By, Paging, Query, json};
use crate::app::{App, now};
use crate::refusal::ApiResult;

/// The tokens, oldest first, without their secrets. Expired ones stay for a day. Bootstrap tokens are not among them.
#[utoipa::path(get, path = "/tokens", tag = "tokens", params(Paging), responses((status = 200, body = Page<Token>)))]
pub(super) async fn list_tokens(
    State(app): State<Arc<App>>,
    Query(paging): Query<Paging>,
) -> ApiResult<Json<Page<Token>>> {
    let rows = app.store.tokens(paging.limit(), paging.after()?).await?;
    let tokens = rows.into_iter().map(resource).collect();
    Ok(Json(paging.page(tokens, |token: &Token| token.id.to_string())))
}

/// Make a token for a person. The answer holds it: this is the only time that it can be had.
#[utoipa::path(post, path = "/tokens", tag = "tokens", request_body = CreateToken,
    responses((status = 201, body = CreatedToken), (status = 422, body = ProblemDetails)))]
pub(super) async fn create_token(
    State(app): State<Arc<App>>,
    By(actor): By,
    body: Bytes,
) -> ApiResult<(StatusCode, [(HeaderName, &'static str); 1], Json<CreatedToken>)> {
    let CreateToken { name, role, expires_in } = json(&body)?;
    let issued = app.store.create_token(NewToken { name, role, lifetime: expires_in }, &actor, now()).await?;
    app.wake.written();
    let created = CreatedToken { token: resource(issued.row), secret: issued.secret.expose().to_owned() };
    Ok((StatusCode::CREATED, [(header::CACHE_CONTROL, "no-store")], Json(created)))
}

/// Revoke a token. It is refused at once by this control plane, and within two seconds by others.
#[utoipa::path(delete, path = "/tokens/{id}", tag = "tokens", params(("id" = i64, Path)),
    responses((status = 204), (status = 404, body = ProblemDetails)))]
pub(super) async fn revoke_token(
    State(app): State<Arc<App>>,
    At(id): At<TokenId>,
    By(actor): By,
) -> ApiResult<StatusCode> {
    let revoked = app.store.revoke_token(id, &actor, now()).await?;
    app.access.forget(&revoked.digest);
    app.wake.written();
    Ok(StatusCode::NO_CONTENT)
}

fn resource(row: TokenRow) -> Token {
    let TokenRow { id, name, role, created_at, expires_at, created_by, digest: _ } = row;
    Token { id, name, role, created_at, expires_at, created_by }
}
