//! TorchServe's inference form: paths, requests, answers and errors (pytorch/serve, `docs/inference_api.md`).
//!
//! What a body means is a handler's business there; here it is what the model's signature makes of it (see [`read`]).
//! What is managed (`:8081` there) is the control plane's business.

mod answer;
mod request;

use serde::{Deserialize, Serialize};

pub use answer::{Reply, read_answer};
pub use request::{Asked, Part, read};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TorchPath<'a> {
    /// `GET /ping`
    Ping,
    /// `POST /predictions/{name}[/{version}]`
    Predictions { name: &'a str, version: Option<&'a str> },
}

/// Takes a path (without query) apart. `None` if it is none of the protocol's.
pub fn parse_path(path: &str) -> Option<TorchPath<'_>> {
    if path == "/ping" {
        return Some(TorchPath::Ping);
    }
    let rest = path.strip_prefix("/predictions/")?;
    let (name, version) = match rest.split_once('/') {
        Some((name, version)) => (name, Some(version)),
        None => (rest, None),
    };
    let is_good = !name.is_empty() && version.is_none_or(|v| !v.is_empty() && !v.contains('/'));
    is_good.then_some(TorchPath::Predictions { name, version })
}

/// `GET /ping`: 200, or 500 if it is not healthy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ping {
    pub status: String,
}

impl Ping {
    pub fn new(is_healthy: bool) -> Self {
        Self { status: if is_healthy { "Healthy" } else { "Unhealthy" }.into() }
    }
}

/// The body of every answer with a status of 400 and above (`http/ErrorResponse.java`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TorchError {
    pub code: u16,
    #[serde(rename = "type")]
    pub kind: String,
    pub message: String,
}

impl TorchError {
    pub fn new(status: u16, message: impl Into<String>) -> Self {
        let kind = match status {
            404 => "ModelNotFoundException",
            405 => "MethodNotAllowedException",
            413 => "RequestEntityTooLargeException",
            415 => "UnsupportedMediaTypeException",
            429 => "TooManyRequestsException",
            502 | 503 => "ServiceUnavailableException",
            504 => "GatewayTimeoutException",
            _ if (400..500).contains(&status) => "BadRequestException",
            _ => "InternalServerException",
        };
        Self { code: status, kind: kind.into(), message: message.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_taken_apart() {
        let predictions = |name, version| Some(TorchPath::Predictions { name, version });
        assert_eq!(parse_path("/ping"), Some(TorchPath::Ping));
        assert_eq!(parse_path("/predictions/m"), predictions("m", None));
        assert_eq!(parse_path("/predictions/m/1.0"), predictions("m", Some("1.0")));
        for path in
            ["/predictions", "/predictions/", "/predictions/m/", "/predictions//1", "/predictions/m/1/2", "/pings"]
        {
            assert_eq!(parse_path(path), None, "{path}");
        }
    }
}
