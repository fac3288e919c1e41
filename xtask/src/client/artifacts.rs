//! Artifacts beside the manifests: found, hashed, and uploaded where the server lacks them.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use modelyard_api::Client;
use modelyard_api::types::{Bundle, BundleFile};
use modelyard_core::Digest;
use modelyard_core::manifest::{ArtifactUri, Problem, Resource};
use sha2::Digest as _;

use super::manifests::Manifest;
use super::output;

/// A file that a manifest names by a relative path.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Local {
    path: PathBuf,
    digest: Digest,
    /// In bytes.
    size: u64,
}

/// By the manifest's place among the files, and the `artifact.uri` in it.
#[derive(Debug, Default)]
pub(super) struct Artifacts(BTreeMap<(usize, String), Local>);

/// Hashes every local artifact. What is missing, or has another digest than the manifest pins, becomes a problem.
pub(super) async fn hash(manifests: &[Manifest], problems: &mut Vec<Problem>) -> Artifacts {
    let mut artifacts = Artifacts::default();
    let mut hashed = BTreeMap::<PathBuf, Result<Local, String>>::new();
    for (place, manifest) in manifests.iter().enumerate() {
        for document in &manifest.documents {
            let Resource::ModelVersion(version) = &document.resource else { continue };
            let ArtifactUri::Relative(uri) = &version.artifact.uri else { continue };
            let path = manifest.source.directory.join(uri);
            if !hashed.contains_key(&path) {
                let found = hash_file(path.clone()).await;
                hashed.insert(path.clone(), found);
            }
            match &hashed[&path] {
                Ok(local) => {
                    if let Some(pinned) = version.artifact.sha256.filter(|pinned| *pinned != local.digest) {
                        let message =
                            format!("{uri} has sha256 {}, not the {pinned} that is pinned here", local.digest);
                        problems.push(manifest.problem(document, "spec.artifact.sha256", message));
                    }
                    artifacts.0.insert((place, uri.clone()), local.clone());
                }
                Err(message) => {
                    problems.push(manifest.problem(document, "spec.artifact.uri", message.clone()));
                }
            }
        }
    }
    artifacts
}

async fn hash_file(path: PathBuf) -> Result<Local, String> {
    let shown = path.display().to_string();
    let hashing = tokio::task::spawn_blocking(move || hash_blocking(&path));
    match hashing.await {
        Ok(Ok(local)) => Ok(local),
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => Err(format!("there is no file {shown}")),
        Ok(Err(error)) => Err(format!("cannot read {shown}: {error}")),
        Err(error) => Err(format!("cannot hash {shown}: {error}")),
    }
}

fn hash_blocking(path: &Path) -> io::Result<Local> {
    // Asked before it is opened: opening a pipe would wait for a writer.
    let metadata = std::fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut file = std::fs::File::open(path)?;
    let bar = bar(metadata.len(), format!("hashing {}", path.display()));
    let mut hasher = sha2::Sha256::new();
    let mut buffer = vec![0; 256 * 1024];
    let mut size = 0;
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            break;
        }
        hasher.update(&buffer[..n]);
        size += n as u64;
        bar.set_position(size);
    }
    bar.finish_and_clear();
    Ok(Local { path: path.to_owned(), digest: Digest::from_bytes(hasher.finalize().into()), size })
}

/// Below this size no person waits long enough to want a bar.
const LARGE: u64 = 16 << 20;

/// A bar on a terminal, for a large file; else nothing.
fn bar(size: u64, what: String) -> ProgressBar {
    if size < LARGE || !output::is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}");
    let bar = ProgressBar::new(size).with_message(what);
    match style {
        Ok(style) => bar.with_style(style.progress_chars("=> ")),
        Err(_) => bar,
    }
}

impl Artifacts {
    /// Uploads what the server does not have, each content once.
    pub(super) async fn upload_missing(&self, client: &Client) -> anyhow::Result<()> {
        let by_digest: BTreeMap<Digest, &Local> = self.0.values().map(|local| (local.digest, local)).collect();
        for (digest, local) in by_digest {
            if client.has_artifact(&digest).await? {
                continue;
            }
            let shown = local.path.display();
            let bar = bar(local.size, format!("uploading {shown}"));
            let told = bar.clone();
            client
                .upload(&local.path, &digest, move |sent| told.set_position(sent))
                .await
                .with_context(|| format!("cannot upload {shown}"))?;
            bar.finish_and_clear();
            output::note(format_args!("uploaded {shown} ({} bytes, sha256 {})", local.size, digest.short()));
        }
        Ok(())
    }

    /// What `POST /apply` takes.
    pub(super) fn bundle(&self, manifests: &[Manifest]) -> Bundle {
        let file = |(place, manifest): (usize, &Manifest)| BundleFile {
            name: manifest.source.name.clone(),
            text: manifest.source.text.clone(),
            artifacts: self.of(place).map(|(uri, local)| (uri.clone(), local.digest)).collect(),
        };
        Bundle { files: manifests.iter().enumerate().map(file).collect() }
    }

    fn of(&self, place: usize) -> impl Iterator<Item = (&String, &Local)> {
        self.0.iter().filter(move |((at, _), _)| *at == place).map(|((_, uri), local)| (uri, local))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::manifests::{self, Source};

    fn version(name: &str, uri: &str, pin: &str) -> String {
        format!(
            "---\napiVersion: modelyard.dev/v1\nkind: ModelVersion\nmetadata: {{name: {name}}}\nspec:\n  model: linear\n  \
             version: \"{name}\"\n  format: onnx\n  artifact:\n    uri: {uri}\n{pin}"
        )
    }

    #[tokio::test]
    async fn artifacts_are_found_beside_their_manifest_and_checked() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        std::fs::write(dir.path().join("a.onnx"), b"abc").unwrap();
        let wrong = format!("    sha256: {}\n", "0".repeat(64));
        let right = format!("    sha256: {}\n", Digest::of(b"abc"));
        let text = [
            version("v1", "../a.onnx", &right),
            version("v2", "missing.onnx", ""),
            version("v3", ".", ""),
            version("v4", "./../a.onnx", &wrong),
            version("v5", "s3://bucket/key", ""),
            // A fault elsewhere in the file hides none of the above.
            "---\nkind: Model\napiVersion: modelyard.dev/v1\nmetadata: {name: Linear}\n".into(),
        ];
        let source = Source { name: "m.yaml".into(), directory: dir.path().join("sub"), text: text.concat() };
        let (manifests, mut problems) = manifests::parse(vec![source]);
        let artifacts = hash(&manifests, &mut problems).await;
        let shown: String = problems.iter().map(|p| format!("{p}\n")).collect();
        insta::assert_snapshot!(shown.replace(&dir.path().display().to_string(), "DIR"));
        let bundle = artifacts.bundle(&manifests);
        assert_eq!(bundle.files.len(), 1);
        assert_eq!(bundle.files[0].artifacts.get("../a.onnx"), Some(&Digest::of(b"abc")));
        assert!(!bundle.files[0].artifacts.contains_key("missing.onnx"));
        assert!(!bundle.files[0].artifacts.contains_key("s3://bucket/key"), "the server fetches that one");
    }
}
