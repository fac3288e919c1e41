//! The files of an image, as one layer. What it is made of decides every byte: no clocks, no owners, sorted names.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use tar::{Builder, EntryType, Header};

use super::libraries;

/// Files and directories by their path, without a leading slash. A directory sorts before what it holds.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    mode: u32,
    /// `None` is a directory.
    content: Option<Vec<u8>>,
}

impl Tree {
    /// A directory, and those above it.
    pub(crate) fn directory(&mut self, path: &str, mode: u32) {
        self.parents(path);
        self.entries.insert(plain(path), Entry { mode, content: None });
    }

    /// A file, and the directories above it.
    pub(crate) fn file(&mut self, path: &str, mode: u32, content: impl Into<Vec<u8>>) {
        self.parents(path);
        self.entries.insert(plain(path), Entry { mode, content: Some(content.into()) });
    }

    /// A program or shared library at `path`, and the libraries that it is linked with, where the loader looks for them.
    pub(crate) fn program(&mut self, path: &str, source: &Path) -> Result<()> {
        self.file(path, 0o755, read(source)?);
        for library in libraries::of(source)? {
            let name = library.to_str().with_context(|| format!("{} is not UTF-8", library.display()))?;
            self.file(name, 0o755, read(&library)?);
        }
        Ok(())
    }

    fn parents(&mut self, path: &str) {
        let path = plain(path);
        for (end, _) in path.match_indices('/') {
            self.entries.entry(path[..end].to_owned()).or_insert(Entry { mode: 0o755, content: None });
        }
    }

    /// The layer: an uncompressed tar.
    pub(super) fn layer(&self) -> Result<Vec<u8>> {
        let mut tar = Builder::new(Vec::new());
        for (path, entry) in &self.entries {
            append(&mut tar, path, entry.mode, entry.content.as_deref())?;
        }
        tar.into_inner().context("cannot finish a layer")
    }
}

/// Appends a file, or a directory if there is no content: owned by root, from the year 1970.
pub(super) fn append(tar: &mut Builder<Vec<u8>>, path: &str, mode: u32, content: Option<&[u8]>) -> Result<()> {
    let mut header = Header::new_gnu();
    header.set_entry_type(if content.is_some() { EntryType::Regular } else { EntryType::Directory });
    header.set_mode(mode);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    let content = content.unwrap_or_default();
    header.set_size(content.len() as u64);
    tar.append_data(&mut header, path, content).with_context(|| format!("cannot pack {path}"))
}

fn plain(path: &str) -> String {
    path.trim_matches('/').to_owned()
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let content = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    ensure!(!content.is_empty(), "{} is empty", path.display());
    Ok(content)
}
