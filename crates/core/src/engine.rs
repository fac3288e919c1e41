//! What runs a version, and how: `spec.engine` of a deployment. Whatever is left out is the worker's choice.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::names::NameError;
use crate::version::Format;

/// An engine of the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum EngineName {
    /// ONNX Runtime, by its own library.
    #[serde(rename = "onnxruntime")]
    OnnxRuntime,
    /// ONNX in Rust.
    Rten,
    /// The operators of `ai.onnx.ml`, in Rust.
    OnnxMl,
    Tensorflow,
    Dense,
}

impl EngineName {
    pub const ALL: [Self; 5] = [Self::OnnxRuntime, Self::Rten, Self::OnnxMl, Self::Tensorflow, Self::Dense];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::OnnxRuntime => "onnxruntime",
            Self::Rten => "rten",
            Self::OnnxMl => "onnx-ml",
            Self::Tensorflow => "tensorflow",
            Self::Dense => "dense",
        }
    }

    /// The format that it loads.
    pub fn format(self) -> Format {
        match self {
            Self::OnnxRuntime | Self::Rten | Self::OnnxMl => Format::Onnx,
            Self::Tensorflow => Format::Tensorflow,
            Self::Dense => Format::Dense,
        }
    }

    /// Whether one inference of it can use more than one thread.
    pub fn has_threads(self) -> bool {
        matches!(self, Self::OnnxRuntime | Self::Rten)
    }
}

impl FromStr for EngineName {
    type Err = NameError;
    fn from_str(s: &str) -> Result<Self, NameError> {
        let remedy = "use onnxruntime, rten, onnx-ml, tensorflow or dense";
        Self::ALL.into_iter().find(|e| e.as_str() == s).ok_or_else(|| NameError::new("engine", s, remedy))
    }
}

impl fmt::Display for EngineName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How far ONNX Runtime rewrites a graph when it loads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Optimization {
    /// Not at all: it loads fastest, and runs slowest.
    None,
    /// What needs no knowledge of the machine: constants folded, identities dropped.
    Basic,
    /// Everything, fusions and layouts for this machine too.
    All,
}

impl Optimization {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Basic => "basic",
            Self::All => "all",
        }
    }
}

impl FromStr for Optimization {
    type Err = NameError;
    fn from_str(s: &str) -> Result<Self, NameError> {
        let all = [Self::None, Self::Basic, Self::All];
        let found = all.into_iter().find(|o| o.as_str() == s);
        found.ok_or_else(|| NameError::new("optimization", s, "use none, basic or all"))
    }
}

impl fmt::Display for Optimization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Where ONNX Runtime computes: one of its execution providers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    Cuda,
    Cpu,
}

impl Provider {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cuda => "cuda",
            Self::Cpu => "cpu",
        }
    }
}

impl FromStr for Provider {
    type Err = NameError;
    fn from_str(s: &str) -> Result<Self, NameError> {
        let found = [Self::Cuda, Self::Cpu].into_iter().find(|p| p.as_str() == s);
        found.ok_or_else(|| NameError::new("provider", s, "use cuda or cpu"))
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Threads of one inference.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EngineThreads {
    /// Within an operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intra: Option<u16>,
    /// Of operators that do not depend on each other, at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inter: Option<u16>,
}

impl EngineThreads {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// `spec.engine` of a deployment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EngineSpec {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<EngineName>,
    #[serde(default, skip_serializing_if = "EngineThreads::is_empty")]
    pub threads: EngineThreads,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optimization: Option<Optimization>,
    /// The first that there is computes; a list without `cpu` refuses to do without the others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub providers: Vec<Provider>,
    /// Inferences on zeros before the worker is ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm_up: Option<u32>,
}

impl EngineSpec {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The flags of `modelyard-worker serve` that ask for it, each with its value.
    pub fn flags(&self) -> Vec<(&'static str, String)> {
        let providers: Vec<&str> = self.providers.iter().map(|p| p.as_str()).collect();
        let flags = [
            ("--engine", self.name.map(|name| name.to_string())),
            ("--intra-threads", self.threads.intra.map(|n| n.to_string())),
            ("--inter-threads", self.threads.inter.map(|n| n.to_string())),
            ("--optimization", self.optimization.map(|level| level.to_string())),
            ("--providers", (!providers.is_empty()).then(|| providers.join(","))),
            ("--warm-up", self.warm_up.map(|n| n.to_string())),
        ];
        flags.into_iter().filter_map(|(flag, value)| Some((flag, value?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_they_are_written_by() {
        for name in EngineName::ALL {
            assert_eq!(name.as_str().parse(), Ok(name));
            assert_eq!(serde_json::json!(name), serde_json::json!(name.as_str()));
        }
        assert!("tract".parse::<EngineName>().is_err());
    }

    #[test]
    fn flags_are_there_for_what_is_asked_for_only() {
        assert_eq!(EngineSpec::default().flags(), []);
        let spec = EngineSpec {
            name: Some(EngineName::OnnxRuntime),
            threads: EngineThreads { intra: Some(2), inter: None },
            optimization: Some(Optimization::Basic),
            providers: vec![Provider::Cuda, Provider::Cpu],
            warm_up: Some(0),
        };
        let flags: Vec<String> = spec.flags().into_iter().map(|(flag, value)| format!("{flag} {value}")).collect();
        assert_eq!(
            flags.join(" "),
            "--engine onnxruntime --intra-threads 2 --optimization basic --providers cuda,cpu --warm-up 0"
        );
    }
}
