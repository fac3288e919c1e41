//! Pins the artifact of each version to a digest, and learns its signature by loading it once.

use std::collections::{BTreeMap, HashMap};

use http::StatusCode;
use modelyard_core::manifest::{ArtifactUri, Problem, Resource, VersionManifest};
use modelyard_core::{Digest, Format, ModelVersion, Signature};

use super::documents::{Documents, Located};
use crate::app::App;
use crate::artifacts::ArtifactError;
use crate::inspect::InspectError;
use crate::refusal::{ApiError, ApiResult};

/// What became of the artifacts of a bundle, so that nothing is left behind when it is refused.
#[derive(Default)]
pub(super) struct Pins {
    /// Stored by this apply.
    stored: Vec<Digest>,
    /// By document: found or stored, whoever uploaded it.
    of_document: BTreeMap<usize, Digest>,
    refused: Vec<Digest>,
    /// What inspection has told in this apply: one artifact may be many versions.
    inspected: HashMap<(Digest, Format), Signature>,
}

/// An artifact as a document names it.
struct Pinned {
    digest: Digest,
    size: u64,
    /// Not so for one that a dry run only heard of.
    is_stored: bool,
}

/// Why an artifact cannot be pinned: a problem of its document, or of ours.
enum Failure {
    Document(Problem),
    Ours(ApiError),
}

impl Pins {
    /// The version of each document, by the document's index.
    ///
    /// # Errors
    /// The problems of all documents together.
    pub(super) async fn pin(
        &mut self,
        app: &App,
        documents: &Documents<'_>,
        dry_run: bool,
    ) -> ApiResult<BTreeMap<usize, ModelVersion>> {
        let mut versions = BTreeMap::new();
        let mut problems = Vec::new();
        for (index, located) in documents.all.iter().enumerate() {
            let Resource::ModelVersion(manifest) = &located.resource else { continue };
            match self.version(app, index, located, manifest, dry_run).await {
                Ok(version) => {
                    versions.insert(index, version);
                }
                Err(Failure::Document(problem)) => {
                    self.refuse(index);
                    problems.push(problem);
                }
                Err(Failure::Ours(error)) => return Err(error),
            }
        }
        if problems.is_empty() {
            Ok(versions)
        } else {
            Err(ApiError::refused(StatusCode::UNPROCESSABLE_ENTITY, problems))
        }
    }

    /// Notes that the document's artifact is not to be kept for it.
    pub(super) fn refuse(&mut self, document: usize) {
        self.refused.extend(self.of_document.get(&document));
    }

    /// Those to delete if nothing else uses them.
    pub(super) fn stored_or_refused(self) -> Vec<Digest> {
        let mut digests = [self.stored, self.refused].concat();
        digests.sort_unstable();
        digests.dedup();
        digests
    }

    async fn version(
        &mut self,
        app: &App,
        index: usize,
        located: &Located<'_>,
        manifest: &VersionManifest,
        dry_run: bool,
    ) -> Result<ModelVersion, Failure> {
        let pinned = self.artifact(app, located, manifest, dry_run).await?;
        self.of_document.insert(index, pinned.digest);
        Ok(ModelVersion {
            model: manifest.model.clone(),
            version: manifest.version.clone(),
            format: manifest.format,
            digest: pinned.digest,
            size: pinned.size,
            signature: self.signature(app, located, manifest, &pinned).await?,
            labels: manifest.labels.clone(),
            metadata: manifest.metadata.clone(),
        })
    }

    /// Known already if this version is registered or its artifact was just looked at, else learned by loading it.
    async fn signature(
        &mut self,
        app: &App,
        located: &Located<'_>,
        manifest: &VersionManifest,
        pinned: &Pinned,
    ) -> Result<Signature, Failure> {
        let key = (pinned.digest, manifest.format);
        if let Some(known) = self.inspected.get(&key) {
            return Ok(known.clone());
        }
        let signature = signature(app, located, manifest, pinned).await?;
        if pinned.is_stored {
            self.inspected.insert(key, signature.clone());
        }
        Ok(signature)
    }

    async fn artifact(
        &mut self,
        app: &App,
        located: &Located<'_>,
        manifest: &VersionManifest,
        dry_run: bool,
    ) -> Result<Pinned, Failure> {
        let wanted = manifest.artifact.sha256;
        if let ArtifactUri::Relative(uri) = &manifest.artifact.uri {
            return uploaded(app, located, uri, wanted, dry_run).await;
        }
        if let Some(digest) = wanted
            && let Some(size) = app.artifacts.size(&digest).await.map_err(ours)?
        {
            return Ok(Pinned { digest, size, is_stored: true });
        }
        let content = app.sources.open(&manifest.artifact.uri).await;
        let content = content.map_err(|message| Failure::Document(located.problem("spec.artifact.uri", message)))?;
        match app.artifacts.put(content, wanted).await {
            Ok(stored) => {
                if stored.new {
                    self.stored.push(stored.digest);
                }
                Ok(Pinned { digest: stored.digest, size: stored.size, is_stored: true })
            }
            Err(error @ ArtifactError::WrongDigest { .. }) => {
                Err(Failure::Document(located.problem("spec.artifact.sha256", error.to_string())))
            }
            Err(error @ ArtifactError::Interrupted(_)) => {
                Err(Failure::Document(located.problem("spec.artifact.uri", error.to_string())))
            }
            Err(error) => Err(ours(error)),
        }
    }
}

fn ours(error: impl Into<ApiError>) -> Failure {
    Failure::Ours(error.into())
}

/// A relative artifact: its content came before the manifest, by upload.
async fn uploaded(
    app: &App,
    located: &Located<'_>,
    uri: &str,
    wanted: Option<Digest>,
    dry_run: bool,
) -> Result<Pinned, Failure> {
    let problem = |path: &str, message: String| Err(Failure::Document(located.problem(path, message)));
    let sent = located.artifacts.get(uri).copied();
    let digest = match (sent, wanted) {
        (Some(sent), Some(wanted)) if sent != wanted => {
            let error = ArtifactError::WrongDigest { wanted, actual: sent };
            return problem("spec.artifact.sha256", error.to_string());
        }
        (Some(digest), _) | (None, Some(digest)) => digest,
        (None, None) => {
            let message = format!(
                "`{uri}` is relative, and its content did not come with the manifest: use `cargo xtask apply`, or PUT \
                 it to /api/v1/artifacts and give its sha256 here"
            );
            return problem("spec.artifact.uri", message);
        }
    };
    match app.artifacts.size(&digest).await.map_err(ours)? {
        Some(size) => Ok(Pinned { digest, size, is_stored: true }),
        None if dry_run => Ok(Pinned { digest, size: 0, is_stored: false }),
        None => problem(
            "spec.artifact.uri",
            format!("no artifact with sha256 {digest} was uploaded: PUT it to /api/v1/artifacts"),
        ),
    }
}

async fn signature(
    app: &App,
    located: &Located<'_>,
    manifest: &VersionManifest,
    pinned: &Pinned,
) -> Result<Signature, Failure> {
    let registered = app.store.find_version(&manifest.model, &manifest.version).await.map_err(ours)?;
    if let Some(registered) = registered.filter(|r| r.digest == pinned.digest && r.format == manifest.format) {
        return Ok(registered.signature);
    }
    if !pinned.is_stored {
        return Ok(Signature::default());
    }
    let file = app.artifacts.copy(&pinned.digest).await.map_err(ours)?;
    app.inspector.inspect(file.path(), manifest.format, &pinned.digest).await.map_err(|error| match error {
        InspectError::NotRun(_) => {
            tracing::error!(%error, "an artifact cannot be inspected");
            let detail = "artifacts cannot be loaded for inspection here; the control plane's log says why";
            Failure::Ours(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail))
        }
        error => {
            let message = format!("this artifact cannot be served as {}: {error}", manifest.format);
            Failure::Document(located.problem("spec.artifact.uri", message))
        }
    })
}
