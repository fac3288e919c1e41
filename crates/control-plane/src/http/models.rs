//! `GET /models`, `/models/{m}`, `/models/{m}/versions`, `/models/{m}/versions/{v}`

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use modelyard_api::ProblemDetails;
use modelyard_api::types::{Alias, AliasMove, Model, Page, Version};
use modelyard_core::{ModelName, VersionName};
use modelyard_store::{AliasRow, ModelRow, VersionRow};

use super::extract::{At, Paging, Query};
use crate::app::App;
use crate::refusal::ApiResult;

/// The models, by name.
#[utoipa::path(get, path = "/models", tag = "models", params(Paging), responses((status = 200, body = Page<Model>)))]
pub(super) async fn list_models(
    State(app): State<Arc<App>>,
    Query(paging): Query<Paging>,
) -> ApiResult<Json<Page<Model>>> {
    let rows = app.store.models(paging.limit(), paging.after()?.as_ref()).await?;
    let models = rows.into_iter().map(model).collect();
    Ok(Json(paging.page(models, |model: &Model| model.name.to_string())))
}

/// A model, with its aliases and where they pointed before.
#[utoipa::path(get, path = "/models/{m}", tag = "models", params(("m" = String, Path)),
    responses((status = 200, body = Model), (status = 404, body = ProblemDetails)))]
pub(super) async fn get_model(State(app): State<Arc<App>>, At(name): At<ModelName>) -> ApiResult<Json<Model>> {
    Ok(Json(model(app.store.model(&name).await?)))
}

/// The versions of a model, by version.
#[utoipa::path(get, path = "/models/{m}/versions", tag = "models", params(("m" = String, Path), Paging),
    responses((status = 200, body = Page<Version>), (status = 404, body = ProblemDetails)))]
pub(super) async fn list_versions(
    State(app): State<Arc<App>>,
    At(model): At<ModelName>,
    Query(paging): Query<Paging>,
) -> ApiResult<Json<Page<Version>>> {
    let rows = app.store.versions(&model, paging.limit(), paging.after()?.as_ref()).await?;
    let versions = rows.into_iter().map(version).collect();
    Ok(Json(paging.page(versions, |version: &Version| version.version.to_string())))
}

/// A version: its artifact's digest, its format, its inputs and outputs.
#[utoipa::path(get, path = "/models/{m}/versions/{v}", tag = "models", params(("m" = String, Path), ("v" = String, Path)),
    responses((status = 200, body = Version), (status = 404, body = ProblemDetails)))]
pub(super) async fn get_version(
    State(app): State<Arc<App>>,
    At((model, name)): At<(ModelName, VersionName)>,
) -> ApiResult<Json<Version>> {
    Ok(Json(version(app.store.version(&model, &name).await?)))
}

fn model(row: ModelRow) -> Model {
    Model {
        name: row.name,
        generation: row.generation,
        labels: row.labels,
        description: row.description,
        owner: row.owner,
        aliases: row.aliases.into_iter().map(alias).collect(),
        created_at: row.created_at,
    }
}

fn alias(row: AliasRow) -> Alias {
    let moves = row.moves.into_iter().map(|m| AliasMove { version: m.version, at: m.at, actor: m.actor });
    Alias { alias: row.alias, version: row.version, updated_at: row.updated_at, history: moves.collect() }
}

fn version(row: VersionRow) -> Version {
    let VersionRow { version, created_at } = row;
    Version {
        model: version.model,
        version: version.version,
        format: version.format,
        sha256: version.digest,
        size: version.size,
        signature: version.signature,
        labels: version.labels,
        metadata: version.metadata,
        created_at,
    }
}
