//! The directory of a repository, laid out as Triton has it: `NAME/VERSION/model.onnx`, or `model.json` (dense), or
//! `model.pb` (TensorFlow).

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use modelyard_core::Format;

const FILES: [(&str, Format); 3] =
    [("model.onnx", Format::Onnx), ("model.json", Format::Dense), ("model.pb", Format::Tensorflow)];

/// A version's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Artifact {
    pub(super) path: PathBuf,
    pub(super) format: Format,
    /// Of the file.
    pub(super) bytes: u64,
    /// A file that was written anew is another one.
    pub(super) modified: Option<SystemTime>,
}

/// Versions in ascending order: numbers by their value, and other names, which come before them, by their letters.
pub(super) type Versions = Vec<(String, Artifact)>;

/// All models that have a version. Whatever else is there is passed over.
///
/// # Errors
/// If the directory cannot be read.
pub(super) fn scan(dir: &Path) -> io::Result<BTreeMap<String, Versions>> {
    let mut models = BTreeMap::new();
    for name in directories(dir)? {
        let versions = scan_model(dir, &name)?;
        if versions.is_empty() {
            tracing::warn!(model = name, "it has no version with a model.onnx, model.json or model.pb");
        } else {
            models.insert(name, versions);
        }
    }
    Ok(models)
}

/// The versions of one model; none if there is no such directory. `name` is a name as [`is_plain`] has it.
///
/// # Errors
/// If a directory cannot be read.
pub(super) fn scan_model(dir: &Path, name: &str) -> io::Result<Versions> {
    let dir = dir.join(name);
    let mut versions = Versions::new();
    let names = match directories(&dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(versions),
        names => names?,
    };
    for version in names {
        if let Some(artifact) = artifact(&dir.join(&version)) {
            versions.push((version, artifact));
        }
    }
    versions.sort_by_key(|(version, _)| (version.parse::<u64>().ok(), version.clone()));
    Ok(versions)
}

/// Whether it may name a model or a version: what needs no escape in a path, and leads nowhere else.
pub(super) fn is_plain(name: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    !name.is_empty() && !name.starts_with('.') && name.len() <= 200 && name.bytes().all(is_letter)
}

fn directories(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        // Links to directories count: volumes of Kubernetes are made of such.
        if is_plain(&name) && fs::metadata(entry.path()).is_ok_and(|found| found.is_dir()) {
            names.push(name);
        }
    }
    Ok(names)
}

fn artifact(dir: &Path) -> Option<Artifact> {
    FILES.into_iter().find_map(|(name, format)| {
        let path = dir.join(name);
        let found = fs::metadata(&path).ok().filter(fs::Metadata::is_file)?;
        Some(Artifact { path, format, bytes: found.len(), modified: found.modified().ok() })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_in_the_order_of_their_numbers_and_what_is_no_model_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["a/9/model.onnx", "a/10/model.json", "a/beta/model.pb", "a/11/readme.md", ".git/1/model.onnx"] {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"12").unwrap();
        }
        fs::create_dir(dir.path().join("empty")).unwrap();
        fs::write(dir.path().join("file"), b"").unwrap();
        let found = scan(dir.path()).unwrap();
        assert_eq!(found.keys().collect::<Vec<_>>(), ["a"]);
        let versions: Vec<_> = found["a"].iter().map(|(version, file)| (version.as_str(), file.format)).collect();
        assert_eq!(versions, [("beta", Format::Tensorflow), ("9", Format::Onnx), ("10", Format::Dense)]);
        assert_eq!(found["a"][0].1.bytes, 2);
        assert_eq!(scan_model(dir.path(), "none").unwrap(), []);
    }

    #[test]
    fn no_name_leads_out_of_the_repository() {
        assert!(is_plain("resnet-50_v1.5"));
        for name in ["", ".", "..", ".hidden", "a/b", "a%2fb", "a b", "é"] {
            assert!(!is_plain(name), "{name}");
        }
    }
}
