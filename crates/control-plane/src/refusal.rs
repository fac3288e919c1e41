//! What is answered instead of what was asked for: one table from errors to HTTP statuses. A 500 says nothing of its
//! cause to the caller; the log does.

use http::StatusCode;
use modelyard_api::ProblemDetails;
use modelyard_core::manifest::Problem;
use modelyard_runtime::RuntimeError;
use modelyard_store::StoreError;

use crate::access::Denied;
use crate::artifacts::ArtifactError;

/// An answer that is not the one asked for.
#[derive(Debug)]
pub struct ApiError(pub(crate) Box<ProblemDetails>);

pub type ApiResult<T> = Result<T, ApiError>;

impl ApiError {
    pub fn new(status: StatusCode, kind: &str, detail: impl Into<String>) -> Self {
        Self(Box::new(ProblemDetails {
            kind: format!("/problems/{kind}"),
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            status: status.as_u16(),
            detail: detail.into(),
            errors: Vec::new(),
        }))
    }

    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", detail)
    }

    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", detail)
    }

    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", detail)
    }

    /// Documents that are at fault, each place named.
    pub fn refused(status: StatusCode, errors: Vec<Problem>) -> Self {
        let count = errors.len();
        let detail = format!("{count} problem{}; nothing was applied", if count == 1 { "" } else { "s" });
        let kind = match status {
            StatusCode::CONFLICT => "conflict",
            StatusCode::PRECONDITION_FAILED => "stale",
            _ => "invalid-manifest",
        };
        let mut error = Self::new(status, kind, detail);
        error.0.errors = errors;
        error
    }

    /// Something of ours failed: logged here, once, and not told.
    pub(crate) fn internal(error: &dyn std::fmt::Display) -> Self {
        tracing::error!(%error, "a request failed");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "something failed in the control plane; its log says what",
        )
    }

    fn unavailable(what: &str) -> Self {
        let detail = format!("{what} does not answer right now; nothing was changed. Try again");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail)
    }
}

impl From<Denied> for ApiError {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::NoToken | Denied::Unknown | Denied::Expired { .. } => {
                Self::new(StatusCode::UNAUTHORIZED, "unauthorized", denied.to_string())
            }
            Denied::Forbidden { .. } => Self::new(StatusCode::FORBIDDEN, "forbidden", denied.to_string()),
            Denied::Store(error) => error.into(),
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match &error {
            StoreError::NotFound { .. } => Self::not_found(error.to_string()),
            StoreError::Conflict { .. } => Self::conflict(error.to_string()),
            StoreError::InUse { .. } => Self::new(StatusCode::CONFLICT, "in-use", error.to_string()),
            StoreError::Stale { .. } => Self::new(StatusCode::PRECONDITION_FAILED, "stale", error.to_string()),
            StoreError::Invalid { .. } | StoreError::Refused { .. } => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", error.to_string())
            }
            StoreError::Unavailable { .. } => Self::unavailable("the database"),
            StoreError::Fenced { .. } => Self::unavailable("this control plane has been replaced by another, which"),
            StoreError::Internal { .. } => Self::internal(&error),
        }
    }
}

impl From<ArtifactError> for ApiError {
    fn from(error: ArtifactError) -> Self {
        match &error {
            ArtifactError::NotFound(_) => Self::not_found(error.to_string()),
            ArtifactError::WrongDigest { .. } => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "wrong-digest", error.to_string())
            }
            ArtifactError::Interrupted(_) => Self::bad_request(error.to_string()),
            ArtifactError::NoSpace => Self::new(StatusCode::INSUFFICIENT_STORAGE, "no-space", error.to_string()),
            ArtifactError::Store(_) => Self::internal(&error),
        }
    }
}

impl From<RuntimeError> for ApiError {
    fn from(error: RuntimeError) -> Self {
        match &error {
            RuntimeError::NotFound(_) => Self::not_found(error.to_string()),
            RuntimeError::Fenced { .. } | RuntimeError::Unavailable(_) => Self::unavailable("the runtime"),
            RuntimeError::Refused(_) => Self::new(StatusCode::CONFLICT, "refused", error.to_string()),
        }
    }
}
