//! Why the store did not do what was asked.

use modelyard_core::{Epoch, RevisionNumber};

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("there is no {what}")]
    NotFound { what: String },
    #[error("{message}")]
    Conflict { message: String },
    /// `If-Match`, or the parent of a commit, is not what is there.
    #[error("{what} has changed: it is at generation {actual}, not {expected}. Look at it again, then decide")]
    Stale { what: String, expected: u64, actual: u64 },
    #[error("{what} is in use by {}", by.join(", "))]
    InUse { what: String, by: Vec<String> },
    #[error("{message}")]
    Invalid { message: String },
    /// Documents of a batch that cannot be applied. Nothing of the batch was.
    #[error("{} documents are refused", .0.len())]
    Refused(Vec<DocumentProblem>),
    #[error("epoch {given} is over: {seen} has taken office")]
    Fenced { given: Epoch, seen: Epoch },
    /// Nothing is known to have been written, or not to have been.
    #[error("the database does not answer: {0}")]
    Unavailable(String),
    #[error("the database failed: {0}")]
    Internal(String),
}

impl StoreError {
    pub(crate) fn not_found(kind: &str, name: impl std::fmt::Display) -> Self {
        Self::NotFound { what: format!("{kind} {name}") }
    }

    pub(crate) fn stale(deployment: &str, expected: RevisionNumber, actual: RevisionNumber) -> Self {
        Self::Stale { what: format!("deployment {deployment}"), expected: expected.0, actual: actual.0 }
    }
}

/// What is wrong with one document of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentProblem {
    /// Its index, as the batch's maker counted.
    pub document: usize,
    /// Within the document: `spec.version`.
    pub path: String,
    pub message: String,
    pub status: ProblemStatus,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProblemStatus {
    Invalid,
    Conflict,
    Stale,
}

impl ProblemStatus {
    /// As HTTP says it.
    pub fn code(self) -> u16 {
        match self {
            Self::Invalid => 422,
            Self::Conflict => 409,
            Self::Stale => 412,
        }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        use sqlx::Error as E;
        match &error {
            E::PoolTimedOut | E::PoolClosed | E::WorkerCrashed | E::Io(_) | E::Tls(_) => {
                Self::Unavailable(error.to_string())
            }
            // A transaction that paused for too long was ended by the server: nothing of it was written.
            E::Database(db) if db.code().as_deref() == Some("25P03") => Self::Unavailable(error.to_string()),
            E::Database(db) => match db.code().as_deref().map(|code| code.get(..2).unwrap_or_default()) {
                // Connection lost, resources short, shutting down or starting up.
                Some("08" | "53" | "57") => Self::Unavailable(error.to_string()),
                _ => Self::Internal(error.to_string()),
            },
            _ => Self::Internal(error.to_string()),
        }
    }
}
