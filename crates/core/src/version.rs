//! Model versions: immutable, named by their model and version, pinned by digest.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::names::{ModelName, NameError, VersionName};
use crate::signature::Signature;

/// How an artifact is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// An ONNX `ModelProto`.
    Onnx,
    /// A frozen TensorFlow `GraphDef`.
    Tensorflow,
    /// JSON layers: weights, bias, activation.
    Dense,
}

impl Format {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Onnx => "onnx",
            Self::Tensorflow => "tensorflow",
            Self::Dense => "dense",
        }
    }
}

impl FromStr for Format {
    type Err = NameError;
    fn from_str(s: &str) -> Result<Self, NameError> {
        [Self::Onnx, Self::Tensorflow, Self::Dense]
            .into_iter()
            .find(|f| f.as_str() == s)
            .ok_or_else(|| NameError::new("format", s, "use onnx, tensorflow or dense"))
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A registered version: what a workload needs to know of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ModelVersion {
    pub model: ModelName,
    pub version: VersionName,
    pub format: Format,
    pub digest: Digest,
    /// Of the artifact, in bytes.
    pub size: u64,
    pub signature: Signature,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
}
