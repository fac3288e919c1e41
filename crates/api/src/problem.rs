//! Errors on the wire: RFC 9457 problem details.

use modelyard_core::manifest::Problem;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `application/problem+json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProblemDetails {
    /// A URI reference that names the kind of problem: `/problems/conflict`.
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    /// The HTTP status, again.
    pub status: u16,
    pub detail: String,
    /// Where documents are at fault: each place and what is wrong with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Problem>,
}

impl ProblemDetails {
    pub const MEDIA_TYPE: &str = "application/problem+json";
}
