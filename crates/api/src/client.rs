//! A typed client of the admin REST API.

use std::path::Path;
use std::time::Duration;

use futures::{Stream, StreamExt};
use modelyard_core::event::Event;
use modelyard_core::outcomes::{ExperimentReport, NewOutcome};
use modelyard_core::{AliasName, ChainHead, DeploymentName, Digest, ModelName, RevisionNumber, Timestamp, VersionName};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::problem::ProblemDetails;
use crate::types::{
    AliasMoved, Applied, Artifact, Bundle, ChainedEvents, Conclude, Deployment, EventsHead, Model, MoveAlias, Outcomes,
    OutcomesTaken, Page, Revision, Rollback, Rollout, Served, Version,
};

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error(
        "cannot reach {server}: {message}. Is it running there? MODELYARD_SERVER says where; `cargo xtask up` starts one on this machine; a port-forward ends with the pod that it leads to"
    )]
    Unreachable { server: String, message: String },
    /// The server refused, and says why.
    #[error("{}", .0.detail)]
    Refused(Box<ProblemDetails>),
    #[error("{server} answered {status} with something that is not the API: {message}")]
    Unexpected { server: String, status: StatusCode, message: String },
    #[error("cannot read {path}: {message}")]
    File { path: String, message: String },
}

impl ClientError {
    /// The HTTP status of a refusal.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused(problem) => Some(problem.status),
            _ => None,
        }
    }
}

pub(crate) type Result<T> = std::result::Result<T, ClientError>;

#[derive(Debug, Clone)]
pub struct Client {
    server: String,
    token: Option<String>,
    actor: Option<String>,
    http: reqwest::Client,
}

impl Client {
    /// `server`: `http://127.0.0.1:8080`. `actor`: who the events should name where no token does.
    pub fn new(server: &str, token: Option<String>, actor: Option<String>) -> Self {
        let http = http(None).unwrap_or_default();
        Self { server: server.trim_end_matches('/').to_owned(), token, actor, http }
    }

    /// Asks by `http` instead, such as one from [`http`] that trusts a private CA.
    #[must_use]
    pub fn with_http(self, http: reqwest::Client) -> Self {
        Self { http, ..self }
    }

    pub fn server(&self) -> &str {
        &self.server
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let mut request = self.http.request(method, format!("{}/api/v1{path}", self.server));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(actor) = &self.actor {
            request = request.header("x-modelyard-actor", actor);
        }
        request
    }

    pub(crate) async fn send(&self, request: RequestBuilder) -> Result<Response> {
        let response = request
            .send()
            .await
            .map_err(|e| ClientError::Unreachable { server: self.server.clone(), message: root_cause(&e) })?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let text = response.text().await.unwrap_or_default();
        match serde_json::from_str::<ProblemDetails>(&text) {
            Ok(problem) => Err(ClientError::Refused(Box::new(problem))),
            Err(_) => Err(self.unexpected(status, text.chars().take(200).collect())),
        }
    }

    fn unexpected(&self, status: StatusCode, message: String) -> ClientError {
        ClientError::Unexpected { server: self.server.clone(), status, message }
    }

    async fn json<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T> {
        let response = self.send(request).await?;
        let status = response.status();
        response.json().await.map_err(|e| self.unexpected(status, root_cause(&e)))
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.json(self.request(Method::GET, path)).await
    }

    pub(crate) async fn post<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
        if_match: Option<RevisionNumber>,
    ) -> Result<T> {
        self.json(if_match_of(self.request(Method::POST, path).json(body), if_match)).await
    }

    /// All items of a paged list.
    pub(crate) async fn all<T: DeserializeOwned>(&self, path: &str) -> Result<Vec<T>> {
        let mut items = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let mut request = self.request(Method::GET, path).query(&[("limit", "500")]);
            if let Some(cursor) = &cursor {
                request = request.query(&[("cursor", cursor)]);
            }
            let page: Page<T> = self.json(request).await?;
            items.extend(page.items);
            cursor = page.next;
            if cursor.is_none() {
                return Ok(items);
            }
        }
    }

    pub async fn ready(&self) -> bool {
        let url = format!("{}/readyz", self.server);
        let answer = self.http.get(url).timeout(Duration::from_secs(2)).send().await;
        answer.is_ok_and(|r| r.status().is_success())
    }

    pub async fn apply(&self, bundle: &Bundle, dry_run: bool, if_match: Option<RevisionNumber>) -> Result<Applied> {
        let body = serde_json::to_vec(bundle).unwrap_or_default();
        let request = self
            .request(Method::POST, "/apply")
            .query(&[("dryRun", dry_run)])
            .header("content-type", Bundle::MEDIA_TYPE)
            .body(body);
        self.json(if_match_of(request, if_match)).await
    }

    /// Whether the server has an artifact.
    pub async fn has_artifact(&self, digest: &Digest) -> Result<bool> {
        match self.send(self.request(Method::HEAD, &format!("/artifacts/{digest}"))).await {
            Ok(_) => Ok(true),
            Err(ClientError::Refused(p)) if p.status == 404 => Ok(false),
            Err(ClientError::Unexpected { status: StatusCode::NOT_FOUND, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Streams a file to the server, which checks that it has the digest. `progress` is told the bytes sent so far.
    pub async fn upload(
        &self,
        path: &Path,
        digest: &Digest,
        progress: impl Fn(u64) + Send + Sync + 'static,
    ) -> Result<Artifact> {
        let file_error =
            |e: std::io::Error| ClientError::File { path: path.display().to_string(), message: e.to_string() };
        let file = tokio::fs::File::open(path).await.map_err(file_error)?;
        let size = file.metadata().await.map_err(file_error)?.len();
        let mut sent = 0;
        let stream = tokio_util::io::ReaderStream::with_capacity(file, 256 * 1024).inspect(move |chunk| {
            if let Ok(chunk) = chunk {
                sent += chunk.len() as u64;
                progress(sent);
            }
        });
        let request = self
            .request(Method::PUT, "/artifacts")
            .query(&[("sha256", digest.to_string())])
            .header("content-length", size)
            .body(reqwest::Body::wrap_stream(stream));
        self.json(request).await
    }

    pub async fn models(&self) -> Result<Vec<Model>> {
        self.all("/models").await
    }

    pub async fn model(&self, model: &ModelName) -> Result<Model> {
        self.get(&format!("/models/{model}")).await
    }

    pub async fn versions(&self, model: &ModelName) -> Result<Vec<Version>> {
        self.all(&format!("/models/{model}/versions")).await
    }

    pub async fn version(&self, model: &ModelName, version: &VersionName) -> Result<Version> {
        self.get(&format!("/models/{model}/versions/{version}")).await
    }

    pub async fn delete_model(&self, model: &ModelName) -> Result<()> {
        self.send(self.request(Method::DELETE, &format!("/models/{model}"))).await.map(drop)
    }

    pub async fn delete_version(&self, model: &ModelName, version: &VersionName) -> Result<()> {
        self.send(self.request(Method::DELETE, &format!("/models/{model}/versions/{version}"))).await.map(drop)
    }

    pub async fn move_alias(&self, model: &ModelName, alias: &AliasName, version: VersionName) -> Result<AliasMoved> {
        let path = format!("/models/{model}/aliases/{alias}");
        self.json(self.request(Method::PUT, &path).json(&MoveAlias { version })).await
    }

    pub async fn drop_alias(&self, model: &ModelName, alias: &AliasName) -> Result<()> {
        self.send(self.request(Method::DELETE, &format!("/models/{model}/aliases/{alias}"))).await.map(drop)
    }

    pub async fn deployments(&self) -> Result<Vec<Deployment>> {
        self.all("/deployments").await
    }

    pub async fn deployment(&self, name: &DeploymentName) -> Result<Deployment> {
        self.get(&format!("/deployments/{name}")).await
    }

    pub async fn delete_deployment(&self, name: &DeploymentName) -> Result<()> {
        self.send(self.request(Method::DELETE, &format!("/deployments/{name}"))).await.map(drop)
    }

    /// Newest first.
    pub async fn revisions(&self, name: &DeploymentName) -> Result<Vec<Revision>> {
        self.all(&format!("/deployments/{name}/revisions")).await
    }

    pub async fn revision(&self, name: &DeploymentName, number: RevisionNumber) -> Result<Revision> {
        self.get(&format!("/deployments/{name}/revisions/{number}")).await
    }

    pub async fn rollback(
        &self,
        name: &DeploymentName,
        rollback: &Rollback,
        if_match: Option<RevisionNumber>,
    ) -> Result<Revision> {
        self.post(&format!("/deployments/{name}/rollback"), rollback, if_match).await
    }

    /// `verb`: `pause`, `resume`, `promote` or `abort`.
    pub async fn drive(&self, name: &DeploymentName, verb: &str, if_match: Option<RevisionNumber>) -> Result<Rollout> {
        self.post(&format!("/deployments/{name}/{verb}"), &serde_json::json!({}), if_match).await
    }

    pub async fn rollout(&self, name: &DeploymentName) -> Result<Rollout> {
        self.get(&format!("/deployments/{name}/rollout")).await
    }

    pub async fn experiment(&self, name: &DeploymentName) -> Result<ExperimentReport> {
        self.get(&format!("/deployments/{name}/experiment")).await
    }

    pub async fn conclude(
        &self,
        name: &DeploymentName,
        conclude: &Conclude,
        if_match: Option<RevisionNumber>,
    ) -> Result<Revision> {
        self.post(&format!("/deployments/{name}/experiment/conclude"), conclude, if_match).await
    }

    /// At most [`Outcomes::MOST`] of them. The same may be posted again: each counts once.
    pub async fn post_outcomes(&self, name: &DeploymentName, outcomes: Vec<NewOutcome>) -> Result<OutcomesTaken> {
        self.post(&format!("/deployments/{name}/outcomes"), &Outcomes { outcomes }, None).await
    }

    pub async fn served(&self, name: &DeploymentName, at: Timestamp) -> Result<Served> {
        let path = format!("/deployments/{name}/served");
        self.json(self.request(Method::GET, &path).query(&[("at", at.to_string())])).await
    }

    /// The events of a deployment, or of all, oldest first.
    pub async fn events(&self, deployment: Option<&DeploymentName>, since: Option<Timestamp>) -> Result<Vec<Event>> {
        let mut path = String::from("/events?");
        if let Some(deployment) = deployment {
            path += &format!("deployment={deployment}&");
        }
        if let Some(since) = since {
            path += &format!("since={since}");
        }
        self.all(&path).await
    }

    /// How far the chain of events has come.
    pub async fn events_head(&self) -> Result<ChainHead> {
        let EventsHead { head } = self.get("/events/head").await?;
        Ok(head)
    }

    /// Events as the chain has them, those after a position, at most `limit`.
    pub async fn chained_events(&self, after: Option<i64>, limit: u32) -> Result<ChainedEvents> {
        let request = self.request(Method::GET, "/events/chain").query(&[("limit", limit)]);
        self.json(if let Some(after) = after { request.query(&[("cursor", after)]) } else { request }).await
    }

    /// Events as they happen, after those since a time (default: from now on).
    pub async fn follow_events(
        &self,
        deployment: Option<&DeploymentName>,
        since: Option<Timestamp>,
    ) -> Result<impl Stream<Item = Result<Event>> + use<>> {
        let mut request = self.request(Method::GET, "/events").header("accept", "text/event-stream");
        if let Some(deployment) = deployment {
            request = request.query(&[("deployment", deployment.as_str())]);
        }
        if let Some(since) = since {
            request = request.query(&[("since", since.to_string())]);
        }
        let bytes = self.send(request).await?.bytes_stream();
        let server = self.server.clone();
        let broken = move |message: String| ClientError::Unreachable { server: server.clone(), message };
        Ok(lines(bytes).filter_map(move |line| {
            let item = match line {
                Ok(line) => line.strip_prefix("data:").and_then(|data| serde_json::from_str(data.trim()).ok()).map(Ok),
                Err(error) => Some(Err(broken(root_cause(&error)))),
            };
            std::future::ready(item)
        }))
    }
}

/// Trusts the certificates of `ca` (PEM) instead of the system's, where given. No total time-out: uploads and followed
/// events are as long as they are.
///
/// # Errors
/// Certificates that cannot be read.
pub fn http(ca: Option<&[u8]>) -> reqwest::Result<reqwest::Client> {
    let builder = reqwest::Client::builder().connect_timeout(Duration::from_secs(5)).no_proxy();
    match ca {
        Some(pem) => builder.tls_certs_only(reqwest::Certificate::from_pem_bundle(pem)?).build(),
        None => builder.build(),
    }
}

/// Cuts a stream of bytes into lines.
fn lines(
    bytes: impl Stream<Item = reqwest::Result<bytes::Bytes>> + Send + 'static,
) -> impl Stream<Item = reqwest::Result<String>> {
    futures::stream::unfold((Box::pin(bytes), Vec::<u8>::new()), |(mut bytes, mut rest)| async move {
        loop {
            if let Some(end) = rest.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = rest.drain(..=end).collect();
                return Some((Ok(String::from_utf8_lossy(&line).trim_end().to_owned()), (bytes, rest)));
            }
            match bytes.next().await? {
                Ok(chunk) => rest.extend_from_slice(&chunk),
                Err(error) => return Some((Err(error), (bytes, rest))),
            }
        }
    })
}

fn if_match_of(request: RequestBuilder, generation: Option<RevisionNumber>) -> RequestBuilder {
    match generation {
        Some(generation) => request.header("if-match", format!("\"{generation}\"")),
        None => request,
    }
}

/// reqwest's own messages name the URL; the cause below them says what happened.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
