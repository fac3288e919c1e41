//! Bodies other than inference: health, metadata, errors.
//!
//! The two versions of the specification disagree on health bodies: the status code decides, and these say the same
//! in words.

use modelyard_core::TensorSpec;
use serde::{Deserialize, Serialize};

use crate::infer::Parameters;

/// `GET /v2/health/live`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Live {
    pub live: bool,
}

/// `GET /v2/health/ready`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    pub ready: bool,
}

/// `GET /v2/models/{name}/ready`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelReady {
    pub name: String,
    pub ready: bool,
}

/// `GET /v2`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerMetadata {
    pub name: String,
    pub version: String,
    pub extensions: Vec<String>,
}

/// `GET /v2/models/{name}`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelMetadata {
    pub name: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<String>,
    pub platform: String,
    pub inputs: Vec<TensorSpec>,
    pub outputs: Vec<TensorSpec>,
    /// Beyond the specification, as other servers have it.
    #[serde(default, skip_serializing_if = "Parameters::is_empty")]
    pub parameters: Parameters,
}

/// `POST /v2/repository/index`: what is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexRequest {
    /// Only what is ready.
    #[serde(default)]
    pub ready: bool,
}

/// `POST /v2/repository/models/{name}/load` or `/unload`: how (Triton's model repository extension).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LoadRequest {
    /// `config`, `file:...`; `unload_dependents`.
    #[serde(default)]
    pub parameters: Parameters,
}

/// An item of the answer, which is a list (Triton's model repository extension).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexItem {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// `READY` or `UNAVAILABLE`.
    pub state: String,
    /// Why it is not ready.
    pub reason: String,
}

impl IndexItem {
    pub fn new(name: &str, version: &str, unready: Option<&str>) -> Self {
        let state = if unready.is_none() { "READY" } else { "UNAVAILABLE" };
        Self {
            name: name.to_owned(),
            version: Some(version.to_owned()),
            state: state.to_owned(),
            reason: unready.unwrap_or_default().to_owned(),
        }
    }

    pub fn is_ready(&self) -> bool {
        self.reason.is_empty()
    }
}

/// The body of every answer with a status of 400 and above.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    pub error: String,
}
