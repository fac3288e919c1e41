//! Manifests: YAML or JSON text to checked values, once. All problems are collected, each with its line and path.

mod ab_test;
mod analysis;
mod engine;
mod fields;
mod locate;
mod placement;
mod resources;
mod strategy;
#[cfg(test)]
mod tests;

use std::cell::LazyCell;
use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

pub use locate::{Place, line_of, places};

use crate::deployment::{DeploymentSpec, Labels};
use crate::digest::Digest;
use crate::names::{DeploymentName, ModelName, VersionName};
use crate::strategy::Strategy;
use crate::version::Format;

pub const API_VERSION: &str = "modelyard.dev/v1";

/// How many problems of a file are told with their line: finding it is a walk through the document, and a document may be
/// full of problems.
const MOST_LOCATED: usize = 100;

/// Something wrong with a manifest, and where.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// From 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// Within the document: `spec.strategy.canary.steps[0].weight`. Empty for the document itself.
    pub path: String,
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{file}:")?;
        }
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        if self.file.is_some() || self.line.is_some() {
            f.write_str(" ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

/// One document of a manifest file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Its place among the file's documents, from 0; with a path, [`line_of`] turns it into a line.
    pub index: usize,
    pub resource: Resource,
}

#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "a file has few documents, and each is read once")]
pub enum Resource {
    Model(ModelManifest),
    ModelVersion(VersionManifest),
    ModelDeployment(DeploymentManifest),
}

impl Resource {
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Model(_) => "Model",
            Self::ModelVersion(_) => "ModelVersion",
            Self::ModelDeployment(_) => "ModelDeployment",
        }
    }

    /// `metadata.name`.
    pub fn name(&self) -> &str {
        match self {
            Self::Model(m) => m.name.as_str(),
            Self::ModelVersion(v) => &v.name,
            Self::ModelDeployment(d) => d.name.as_str(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelManifest {
    pub name: ModelName,
    pub labels: Labels,
    pub description: Option<String>,
    pub owner: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionManifest {
    /// The document's name. The version itself is known by `model` and `version`.
    pub name: String,
    pub labels: Labels,
    pub model: ModelName,
    pub version: VersionName,
    pub format: Format,
    pub artifact: ArtifactRef,
    pub metadata: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactRef {
    pub uri: ArtifactUri,
    pub sha256: Option<Digest>,
}

/// Where an artifact is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ArtifactUri {
    /// Relative to the manifest; the client uploads it.
    Relative(String),
    /// An absolute path, from a `file://` URI. On the machine of the control plane.
    File(String),
    /// `http://` or `https://`.
    Http(String),
    /// `s3://bucket/key` or `gs://bucket/key`.
    Bucket(String),
}

impl fmt::Display for ArtifactUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Relative(s) | Self::Http(s) | Self::Bucket(s) => f.write_str(s),
            Self::File(path) => write!(f, "file://{path}"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentManifest {
    pub name: DeploymentName,
    pub labels: Labels,
    pub spec: DeploymentSpec,
}

/// Parses a file of one or more documents.
///
/// # Errors
/// All problems of all documents. After a syntax error the rest of the file cannot be read.
pub fn parse(text: &str) -> Result<Vec<Document>, Vec<Problem>> {
    let (documents, problems) = examine(text);
    if problems.is_empty() { Ok(documents) } else { Err(problems) }
}

/// A strategy by itself, as `spec.strategy` has it.
///
/// # Errors
/// All its problems.
pub fn parse_strategy(text: &str) -> Result<Strategy, Vec<Problem>> {
    let problem = |path: String, message: String| Problem { file: None, line: None, path, message };
    let value = serde_yaml::from_str::<serde_yaml::Value>(text);
    let value = value.map_err(|error| vec![problem("strategy".into(), format!("not valid YAML: {error}"))])?;
    let problems = fields::Problems::default();
    let strategy = fields::Fields::of(&value, fields::Path::default().key("strategy"), &problems);
    let strategy = strategy.and_then(strategy::strategy);
    let problems = problems.into_vec();
    match strategy.filter(|_| problems.is_empty()) {
        Some(strategy) => Ok(strategy),
        None => Err(problems.into_iter().map(|(path, message)| problem(path.to_string(), message)).collect()),
    }
}

/// The documents of a file that can be read, and the problems of all: for who has more to check in those documents
/// before refusing the file.
pub fn examine(text: &str) -> (Vec<Document>, Vec<Problem>) {
    let mut documents = Vec::new();
    let mut problems = Vec::new();
    let places = LazyCell::new(|| places(text));
    for (index, de) in serde_yaml::Deserializer::from_str(text).enumerate() {
        match serde_yaml::Value::deserialize(de) {
            Ok(serde_yaml::Value::Null) => {}
            Ok(value) => {
                let (resource, found) = resources::read(&value);
                for (path, message) in found {
                    let path = path.to_string();
                    let place = places.get(index).filter(|_| problems.len() < MOST_LOCATED);
                    let line = place.and_then(|place| place.line_of(&path));
                    problems.push(Problem { file: None, line, path, message });
                }
                documents.extend(resource.map(|resource| Document { index, resource }));
            }
            Err(error) => {
                problems.push(Problem {
                    file: None,
                    // What is missing at the end is said to be missing after it.
                    line: error.location().map(|l| l.line().min(locate::last_line(text))),
                    path: String::new(),
                    message: format!("not valid YAML: {error}"),
                });
                break;
            }
        }
    }
    (documents, problems)
}
