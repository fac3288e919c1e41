//! Requests and answers, by noun.

use std::collections::BTreeMap;

use modelyard_core::chain::{ChainHead, ChainedEvent};
use modelyard_core::event::Event;
use modelyard_core::manifest::Problem;
use modelyard_core::outcomes::NewOutcome;
use modelyard_core::plan::DeploymentReport;
use modelyard_core::state::{Cause, Outcome, Phase};
use modelyard_core::verdict::Verdict;
use modelyard_core::{
    Actor, AliasName, DeploymentName, DeploymentSpec, Digest, Format, ModelName, RevisionNumber, Signature, Strategy,
    Timestamp, VariantName, VersionName, Weight,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One page of a list, in order of name (events: of id).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// Give this as `cursor` for the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

// ---- apply ---------------------------------------------------------------------------------------------------------

/// Manifest files with the digests of the artifacts that were uploaded for them. The media type of this body is
/// [`Bundle::MEDIA_TYPE`]; any other body is one manifest, as YAML or JSON text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Bundle {
    pub files: Vec<BundleFile>,
}

impl Bundle {
    pub const MEDIA_TYPE: &str = "application/vnd.modelyard.bundle+json";
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BundleFile {
    /// For messages; never opened.
    pub name: String,
    /// The manifest, YAML or JSON.
    pub text: String,
    /// For each relative `artifact.uri` of the text: the digest it was uploaded under.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, String>)]
    pub artifacts: BTreeMap<String, Digest>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Applied {
    pub dry_run: bool,
    pub documents: Vec<AppliedDocument>,
    /// What happens next, in words: versions to start, weights to move, what stays warm.
    pub plan: Vec<String>,
    /// The first plan that the reconciler makes of it, as data.
    pub data: serde_json::Value,
    /// Fields that were accepted and have no effect here, and why.
    pub warnings: Vec<Problem>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AppliedDocument {
    /// `Model`, `ModelVersion` or `ModelDeployment`.
    pub kind: String,
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    pub action: Action,
    /// Of a deployment: its latest revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<RevisionNumber>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum Action {
    Created,
    Updated,
    Unchanged,
    Refused,
}

impl Action {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Unchanged => "unchanged",
            Self::Refused => "refused",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Artifact {
    #[schema(value_type = String)]
    pub sha256: Digest,
    /// In bytes.
    pub size: u64,
}

// ---- registry ------------------------------------------------------------------------------------------------------

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Model {
    pub name: ModelName,
    pub generation: u64,
    pub labels: BTreeMap<String, String>,
    pub description: Option<String>,
    pub owner: Option<String>,
    pub aliases: Vec<Alias>,
    pub created_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Alias {
    pub alias: AliasName,
    pub version: VersionName,
    pub updated_at: Timestamp,
    /// Where it pointed, newest first; the first is where it points now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<AliasMove>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AliasMove {
    /// `None`: the alias was dropped.
    pub version: Option<VersionName>,
    pub at: Timestamp,
    pub actor: Actor,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Version {
    pub model: ModelName,
    pub version: VersionName,
    pub format: Format,
    #[schema(value_type = String)]
    pub sha256: Digest,
    /// Of the artifact, in bytes.
    pub size: u64,
    pub signature: Signature,
    pub labels: BTreeMap<String, String>,
    pub metadata: BTreeMap<String, String>,
    pub created_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MoveAlias {
    pub version: VersionName,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AliasMoved {
    pub model: ModelName,
    pub alias: AliasName,
    pub version: VersionName,
    pub previous: Option<VersionName>,
    /// The deployments that follow the alias, each with the revision it now rolls to.
    pub rolled: Vec<RolledDeployment>,
    /// What was accepted, and should be known of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RolledDeployment {
    pub deployment: DeploymentName,
    pub revision: RevisionNumber,
}

// ---- deployments ---------------------------------------------------------------------------------------------------

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Deployment {
    pub name: DeploymentName,
    pub labels: BTreeMap<String, String>,
    /// The latest revision; what `If-Match` names.
    pub generation: RevisionNumber,
    pub spec: DeploymentSpec,
    /// What `spec.version` means in the latest revision.
    pub version: VersionName,
    /// The revision that serves, or last served, all traffic.
    pub stable: Option<RevisionNumber>,
    pub created_at: Timestamp,
    /// `None` until the reconciler has looked at it.
    pub status: Option<DeploymentReport>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Revision {
    pub number: RevisionNumber,
    pub version: VersionName,
    pub spec: DeploymentSpec,
    pub cause: Cause,
    pub actor: Actor,
    pub created_at: Timestamp,
    pub outcome: Outcome,
    /// When it came to serve all traffic, if it did.
    pub served_at: Option<Timestamp>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Rollback {
    /// Default: the last revision that served all traffic.
    pub to_revision: Option<RevisionNumber>,
    pub reason: Option<String>,
}

/// The walk to a revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    pub deployment: DeploymentName,
    pub revision: RevisionNumber,
    pub version: VersionName,
    pub cause: Cause,
    /// `None` until the reconciler has begun it.
    pub phase: Option<Phase>,
    pub outcome: Outcome,
    pub status: Option<DeploymentReport>,
    /// The verdicts so far, oldest first, with their numbers.
    pub verdicts: Vec<RecordedVerdict>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RecordedVerdict {
    pub at: Timestamp,
    /// The canary step, from 0.
    pub step: u32,
    pub verdict: Verdict,
}

/// Which versions served at a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Served {
    pub deployment: DeploymentName,
    pub at: Timestamp,
    /// When that split began.
    pub since: Option<Timestamp>,
    /// Empty: the deployment served nothing then.
    pub weights: Vec<ServedWeight>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServedWeight {
    pub variant: VariantName,
    pub revision: RevisionNumber,
    pub version: VersionName,
    /// Of a variant of an A/B test.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelName>,
    /// Per cent.
    pub weight: Weight,
}

// ---- experiments ---------------------------------------------------------------------------------------------------

/// One outcome, or `{"outcomes": […]}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum PostOutcomes {
    Many(Outcomes),
    One(NewOutcome),
}

/// At most [`Outcomes::MOST`] of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Outcomes {
    pub outcomes: Vec<NewOutcome>,
}

impl Outcomes {
    pub const MOST: usize = 10_000;
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OutcomesTaken {
    /// Taken now.
    pub accepted: u64,
    /// Taken before: the same request or unit, and the same metric.
    pub known: u64,
    /// Those that belong to nothing, at most 100 of them, and why. The others were taken.
    pub refused: Vec<RefusedOutcome>,
    pub refused_count: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RefusedOutcome {
    /// Its place among those posted, from 0.
    pub index: usize,
    pub message: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Conclude {
    /// The variant that is to get all traffic.
    pub winner: VariantName,
    /// How it gets it. By default at once (`rolling`): its workers run already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Strategy>)]
    pub strategy: Option<serde_json::Value>,
}

/// Events, oldest first.
pub type Events = Page<Event>;

/// Events as the chain has them, in order of position.
pub type ChainedEvents = Page<ChainedEvent>;

/// How far the chain of events has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EventsHead {
    /// `POSITION:HASH`
    #[schema(value_type = String)]
    pub head: ChainHead,
}
