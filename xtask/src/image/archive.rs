//! An image as one tar that both worlds read: an OCI layout (containerd, podman, skopeo) that also carries the
//! `manifest.json` of `docker save` (`docker load`, `kind load image-archive`). Needs no Docker to write.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::Builder;

use super::tree::{self, Tree};

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// What an image is made of.
#[derive(Debug)]
pub(crate) struct Image {
    /// Without a tag: `modelyard.dev/modelyard`.
    pub(crate) name: String,
    pub(crate) tag: String,
    pub(crate) files: Tree,
    pub(crate) entrypoint: Vec<String>,
    /// `NAME=value`.
    pub(crate) env: Vec<String>,
    /// `UID:GID`; empty is root.
    pub(crate) user: String,
}

/// A finished image.
#[derive(Debug)]
pub(crate) struct Archive {
    pub(crate) tar: Vec<u8>,
    /// All names that it goes by: with its tag, and with one that its content decides.
    pub(crate) references: Vec<String>,
}

/// Something named by its SHA-256, and its media type.
struct Blob {
    media_type: &'static str,
    hex: String,
    content: Vec<u8>,
}

impl Blob {
    fn new(media_type: &'static str, content: Vec<u8>) -> Self {
        let hex = Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
        Self { media_type, hex, content }
    }

    fn json(media_type: &'static str, value: &Value) -> Self {
        Self::new(media_type, value.to_string().into_bytes())
    }

    fn digest(&self) -> String {
        format!("sha256:{}", self.hex)
    }

    fn path(&self) -> String {
        format!("blobs/sha256/{}", self.hex)
    }

    fn descriptor(&self) -> Value {
        json!({"mediaType": self.media_type, "digest": self.digest(), "size": self.content.len()})
    }
}

impl Image {
    /// The archive. The same content gives the same bytes, on any day.
    pub(crate) fn archive(&self) -> Result<Archive> {
        let layer = Blob::new(LAYER, self.files.layer()?);
        let config = Blob::json(CONFIG, &self.config(&layer));
        let manifest = Blob::json(
            MANIFEST,
            &json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config.descriptor(), "layers": [layer.descriptor()]}),
        );
        let by_content = format!("sha-{}", &config.hex[..12]);
        let references: Vec<String> = [&self.tag, &by_content].map(|tag| format!("{}:{tag}", self.name)).into();

        let named = references.iter().zip([&self.tag, &by_content]).map(|(reference, tag)| {
            let mut descriptor = manifest.descriptor();
            descriptor["annotations"] =
                json!({"io.containerd.image.name": reference, "org.opencontainers.image.ref.name": tag});
            descriptor
        });
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": named.collect::<Vec<_>>()});
        let docker = json!([{"Config": config.path(), "RepoTags": references, "Layers": [layer.path()]}]);

        let mut tar = Builder::new(Vec::with_capacity(layer.content.len() + 64 * 1024));
        tree::append(&mut tar, "blobs", 0o755, None)?;
        tree::append(&mut tar, "blobs/sha256", 0o755, None)?;
        for blob in [&config, &layer, &manifest] {
            tree::append(&mut tar, &blob.path(), 0o644, Some(&blob.content))?;
        }
        for (name, value) in
            [("index.json", index), ("manifest.json", docker), ("oci-layout", json!({"imageLayoutVersion": "1.0.0"}))]
        {
            tree::append(&mut tar, name, 0o644, Some(value.to_string().as_bytes()))?;
        }
        Ok(Archive { tar: tar.into_inner().context("cannot finish an image archive")?, references })
    }

    fn config(&self, layer: &Blob) -> Value {
        json!({
            "architecture": architecture(),
            "os": "linux",
            "config": {"User": self.user, "Env": self.env, "Entrypoint": self.entrypoint, "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": [layer.digest()]},
            "history": [{"created_by": "cargo xtask image"}],
        })
    }
}

/// This machine's, in the words that images use.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn image(content: &str) -> Image {
        let mut files = Tree::default();
        files.file("/usr/local/bin/hello", 0o755, content);
        files.directory("tmp", 0o1777);
        Image {
            name: "modelyard.dev/test".into(),
            tag: "1".into(),
            files,
            entrypoint: vec!["/usr/local/bin/hello".into()],
            env: vec!["PATH=/usr/local/bin".into()],
            user: "65532:65532".into(),
        }
    }

    fn members(tar: &[u8]) -> Vec<(String, Vec<u8>)> {
        let mut archive = tar::Archive::new(tar);
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            assert_eq!((entry.header().mtime().unwrap(), entry.header().uid().unwrap()), (0, 0));
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            (entry.path().unwrap().display().to_string(), content)
        });
        entries.collect()
    }

    #[test]
    fn the_same_content_gives_the_same_archive_and_other_content_another_name() {
        let (once, again, other) =
            (image("a").archive().unwrap(), image("a").archive().unwrap(), image("b").archive().unwrap());
        assert_eq!(once.tar, again.tar);
        assert_eq!(once.references, again.references);
        assert_eq!(once.references[0], other.references[0]);
        assert_ne!(once.references[1], other.references[1]);
    }

    #[test]
    fn every_blob_is_named_by_its_digest_and_both_manifests_lead_to_the_layer() {
        let archive = image("a").archive().unwrap();
        let members = members(&archive.tar);
        let find = |name: &str| &members.iter().find(|(path, _)| path == name).unwrap().1;
        for (path, content) in members.iter().filter(|(_, content)| !content.is_empty()) {
            if let Some(hex) = path.strip_prefix("blobs/sha256/") {
                assert_eq!(Blob::new("", content.clone()).hex, hex);
            }
        }
        let index: Value = serde_json::from_slice(find("index.json")).unwrap();
        let digest = index["manifests"][0]["digest"].as_str().unwrap().replace("sha256:", "blobs/sha256/");
        let manifest: Value = serde_json::from_slice(find(&digest)).unwrap();
        let docker: Value = serde_json::from_slice(find("manifest.json")).unwrap();
        let layer = docker[0]["Layers"][0].as_str().unwrap();
        assert_eq!(manifest["layers"][0]["digest"].as_str().unwrap().replace("sha256:", "blobs/sha256/"), layer);
        let paths: Vec<String> = self::members(find(layer)).into_iter().map(|(path, _)| path).collect();
        assert_eq!(paths, ["tmp", "usr", "usr/local", "usr/local/bin", "usr/local/bin/hello"]);
    }
}
