//! The admin REST API: one verb per file. Handlers translate; they decide nothing. A control plane that is not in
//! office passes requests on (`dispatch`).

mod aliases;
mod answer;
mod apply;
mod artifacts;
mod chain;
mod delete;
mod deployments;
mod dispatch;
mod drive;
mod events;
mod experiment;
mod extract;
mod guard;
mod health;
mod internal;
mod listen;
mod models;
mod outcomes;
mod revisions;
mod rollback;
mod rollout;
mod served;
mod tokens;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::Uri;
use axum::routing::{get, post};
use axum::serve::ListenerExt;
use modelyard_tls::ServerTls;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::{Modify, OpenApi};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::node::Node;
use crate::refusal::ApiError;

/// Of requests other than artifacts and reports: manifests are small.
const MAX_BODY_BYTES: usize = 16 * 1024 * 1024;
/// A gateway reports all that it counts at once: up to 30 KiB for each variant of an experiment, for its sample of units,
/// and a megabyte for one that is mirrored to and has dozens of outputs.
const MAX_REPORT_BYTES: usize = 256 * 1024 * 1024;

#[derive(OpenApi)]
#[openapi(info(
    title = "Modelyard admin API",
    description = "Models, versions, deployments and their rollouts. Errors are RFC 9457 problem details."
), security(("token" = [])), modifiers(&TokenScheme))]
struct Document;

/// Every operation takes a bearer token; which roles may do what is in `access/rules.rs`.
struct TokenScheme;

impl Modify for TokenScheme {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = Http::builder().scheme(HttpAuthScheme::Bearer);
        let scheme = scheme.description(Some("Not needed on loopback, unless the daemon runs with --require-tokens"));
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(scheme.build()));
    }
}

fn documented() -> OpenApiRouter<Arc<App>> {
    let api = OpenApiRouter::new()
        .routes(routes!(apply::apply))
        .routes(routes!(artifacts::put_artifact))
        .routes(routes!(artifacts::get_artifact, artifacts::head_artifact))
        .routes(routes!(models::list_models))
        .routes(routes!(models::get_model, delete::delete_model))
        .routes(routes!(models::list_versions))
        .routes(routes!(models::get_version, delete::delete_version))
        .routes(routes!(aliases::move_alias, aliases::drop_alias))
        .routes(routes!(deployments::list_deployments))
        .routes(routes!(deployments::get_deployment, delete::delete_deployment))
        .routes(routes!(revisions::list_revisions))
        .routes(routes!(revisions::get_revision))
        .routes(routes!(rollback::rollback))
        .routes(routes!(drive::pause))
        .routes(routes!(drive::resume))
        .routes(routes!(drive::promote))
        .routes(routes!(drive::abort))
        .routes(routes!(rollout::get_rollout))
        .routes(routes!(served::get_served))
        .routes(routes!(outcomes::post_outcomes))
        .routes(routes!(experiment::get_experiment))
        .routes(routes!(experiment::conclude))
        .routes(routes!(events::list_events))
        .routes(routes!(chain::list_chain))
        .routes(routes!(chain::get_head))
        .routes(routes!(tokens::list_tokens, tokens::create_token))
        .routes(routes!(tokens::revoke_token));
    OpenApiRouter::with_openapi(Document::openapi()).nest("/api/v1", api)
}

/// The OpenAPI document of the API, made from the handlers.
pub fn openapi() -> utoipa::openapi::OpenApi {
    documented().split_for_parts().1
}

/// How long requests that are under way when the control plane stops may take to end.
const LAST_ANSWERS_WITHIN: Duration = Duration::from_secs(5);

/// The API as a control plane in office answers it, for one term.
pub struct Api {
    app: Arc<App>,
    router: Router,
}

impl Api {
    pub fn new(app: Arc<App>) -> Self {
        Self { router: router(app.clone()), app }
    }

    pub fn app(&self) -> &App {
        &self.app
    }

    fn router(&self) -> Router {
        self.router.clone()
    }
}

/// Serves until cancelled, and then to the end of what is under way. Streams of this term have ended with it.
///
/// # Errors
/// A listener that fails.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<ServerTls>>,
    node: Arc<Node>,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .fallback(dispatch::dispatch)
        .with_state(node);
    let late = async {
        stop.cancelled().await;
        tokio::time::sleep(LAST_ANSWERS_WITHIN).await;
    };
    let stopped = stop.clone().cancelled_owned();
    let serving = async {
        let Some(tls) = tls else {
            let listener = listener.tap_io(|connection| {
                connection.set_nodelay(true).ok();
            });
            return axum::serve(listener, router).with_graceful_shutdown(stopped).await;
        };
        axum::serve(listen::TlsListener::new(listener, tls), router).with_graceful_shutdown(stopped).await
    };
    tokio::select! {
        served = serving => served,
        () = late => Ok(()),
    }
}

fn router(app: Arc<App>) -> Router {
    let (router, document) = documented().split_for_parts();
    router
        .route("/api/v1/openapi.json", get(async move || axum::Json(document)))
        .route("/internal/v1/routes", get(internal::routes))
        .route("/internal/v1/evidence", post(internal::evidence).layer(DefaultBodyLimit::max(MAX_REPORT_BYTES)))
        .fallback(async |uri: Uri| ApiError::not_found(format!("there is no {}; see /api/v1/openapi.json", uri.path())))
        .method_not_allowed_fallback(async |uri: Uri| {
            let detail = format!("{} does not take this method; see /api/v1/openapi.json", uri.path());
            ApiError::new(axum::http::StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", detail)
        })
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(axum::middleware::from_fn_with_state(app.clone(), guard::guard))
        .with_state(app)
}
