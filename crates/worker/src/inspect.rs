//! `inspect`: loads an artifact once and says, as one line of JSON, what it takes and gives, or why it is refused.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use modelyard_core::Signature;
use modelyard_engine::{examine, load};
use rustix::process::{Resource, Rlimit, setrlimit};
use serde::Serialize;

use crate::REFUSED;
use crate::artifact::verify;
use crate::cli::InspectArgs;

#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum Report {
    Ok { signature: Signature, engine: &'static str, details: BTreeMap<&'static str, String> },
    Refused { code: &'static str, message: String },
}

/// Prints a [`Report`].
///
/// # Errors
/// If the report cannot be given, or memory cannot be limited. An artifact that is refused is no error.
pub(crate) fn inspect(args: &InspectArgs) -> anyhow::Result<ExitCode> {
    limit_memory(args.max_memory)?;
    let report = look(args);
    let mut line = serde_json::to_vec(&report)?;
    line.push(b'\n');
    std::io::stdout().lock().write_all(&line).context("the report could not be written")?;
    Ok(match report {
        Report::Ok { .. } => ExitCode::SUCCESS,
        Report::Refused { .. } => ExitCode::from(REFUSED),
    })
}

/// Beyond it, this process aborts.
///
/// # Errors
/// If memory cannot be limited.
pub(crate) fn limit_memory(bytes: Option<u64>) -> anyhow::Result<()> {
    if let Some(bytes) = bytes {
        let limit = Rlimit { current: Some(bytes), maximum: Some(bytes) };
        // Of what is written to: an allocator's reservations and a mapped file take none.
        setrlimit(Resource::Data, limit).context("memory could not be limited")?;
    }
    Ok(())
}

fn look(args: &InspectArgs) -> Report {
    let (model, artifact) = (&args.model, &args.artifact);
    // What is no model at all is refused before gigabytes of it are hashed; nothing is loaded unverified.
    if let Err(error) = examine(model.format, artifact) {
        return Report::Refused { code: error.code(), message: error.to_string() };
    }
    if let Err(error) = verify(artifact, model.sha256) {
        return Report::Refused { code: error.code(), message: error.to_string() };
    }
    match load(model.format, artifact, &model.engine.options(1)) {
        Ok(engine) => Report::Ok {
            signature: engine.signature().clone(),
            engine: engine.name(),
            details: engine.details().into_iter().collect(),
        },
        Err(error) => Report::Refused { code: error.code(), message: error.to_string() },
    }
}
