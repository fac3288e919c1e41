//! The documents of a bundle, and where each stands.

use std::collections::{BTreeMap, HashMap};

use http::StatusCode;
use modelyard_api::types::BundleFile;
use modelyard_core::Digest;
use modelyard_core::manifest::{self, Place, Problem, Resource};

use crate::refusal::{ApiError, ApiResult};

pub(super) struct Documents<'b> {
    pub(super) all: Vec<Located<'b>>,
}

/// A document with its place.
pub(super) struct Located<'b> {
    pub(super) resource: Resource,
    /// `None` for a body without a name.
    pub(super) file: Option<String>,
    /// Digests of the file's relative artifacts, as far as they were uploaded.
    pub(super) artifacts: &'b BTreeMap<String, Digest>,
    place: Option<Place<'b>>,
}

impl Located<'_> {
    /// A problem at a path of this document.
    pub(super) fn problem(&self, path: &str, message: impl Into<String>) -> Problem {
        let line = self.place.and_then(|place| place.line_of(path));
        Problem { file: self.file.clone(), line, path: path.to_owned(), message: message.into() }
    }
}

/// # Errors
/// All problems of all files.
pub(super) fn read(files: &[BundleFile]) -> ApiResult<Documents<'_>> {
    let mut all = Vec::new();
    let mut problems = Vec::new();
    for file in files {
        let name = Some(file.name.clone()).filter(|name| !name.is_empty());
        match manifest::parse(&file.text) {
            Ok(documents) => {
                let places = manifest::places(&file.text);
                all.extend(documents.into_iter().map(|document| Located {
                    resource: document.resource,
                    file: name.clone(),
                    artifacts: &file.artifacts,
                    place: places.get(document.index).copied(),
                }));
            }
            Err(found) => problems.extend(found.into_iter().map(|p| Problem { file: name.clone(), ..p })),
        }
    }
    problems.extend(duplicates(&all));
    if !problems.is_empty() {
        return Err(ApiError::refused(StatusCode::UNPROCESSABLE_ENTITY, problems));
    }
    if all.is_empty() {
        return Err(ApiError::bad_request("there is no document in it"));
    }
    Ok(Documents { all })
}

/// The same thing said twice in one bundle has no one meaning.
fn duplicates(all: &[Located<'_>]) -> Vec<Problem> {
    let mut seen = HashMap::new();
    let mut problems = Vec::new();
    for located in all {
        let identity = match &located.resource {
            Resource::ModelVersion(v) => format!("version {} of model {}", v.version, v.model),
            other => format!("{} {}", other.kind(), other.name()),
        };
        if let Some(first) = seen.insert(identity.clone(), located) {
            let place = first.problem("", "");
            let place = format!("{}line {}", place.file.map(|f| f + " ").unwrap_or_default(), place.line.unwrap_or(1));
            problems.push(located.problem("metadata.name", format!("{identity} is already in {place}")));
        }
    }
    problems
}
