//! The last word of a worker that cannot serve: in its log, and where its pod's status is read from.

use std::path::PathBuf;
use std::process::ExitCode;

/// Names another file than Kubernetes' default, as `terminationMessagePath` does.
const VARIABLE: &str = "MODELYARD_TERMINATION_LOG";
const DEFAULT: &str = "/dev/termination-log";

/// Tells why the worker ends, as the log's last line and as the container's termination message where there is one
/// (the container runtime makes the file; it is never made here).
pub(crate) fn end(code: u8, why: &str) -> ExitCode {
    tracing::error!("{why}");
    let path = std::env::var_os(VARIABLE).map_or_else(|| PathBuf::from(DEFAULT), PathBuf::from);
    if path.exists()
        && let Err(error) = std::fs::write(&path, why)
    {
        // The line above must stay the last one that says something.
        tracing::debug!(%error, "no termination message could be left");
    }
    ExitCode::from(code)
}
