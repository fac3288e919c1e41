//! Checks that an artifact is the one that was registered. Reads it as a stream, never whole.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use modelyard_core::Digest;
use sha2::{Digest as _, Sha256};

const CHUNK: usize = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ArtifactError {
    #[error("the artifact cannot be read: {0}")]
    Io(#[from] std::io::Error),
    #[error("the artifact has sha256 {found}, not {expected}: it is not what was registered")]
    Digest { expected: Digest, found: Digest },
}

impl ArtifactError {
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Io(_) => "io",
            Self::Digest { .. } => "digest-mismatch",
        }
    }
}

/// # Errors
/// If the file cannot be read, or has another digest.
pub(crate) fn verify(path: &Path, expected: Digest) -> Result<(), ArtifactError> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; CHUNK];
    loop {
        match file.read(&mut chunk) {
            Ok(0) => break,
            Ok(n) => hasher.update(&chunk[..n]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    let found = Digest::from_bytes(hasher.finalize().into());
    if found == expected { Ok(()) } else { Err(ArtifactError::Digest { expected, found }) }
}
