//! A graph as ONNX Runtime has rewritten it, kept in a file: the first session pays for it, and those beside it, or of
//! the same worker when it starts again, read what it made.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};

/// Larger models are not kept twice, in bytes.
const LARGEST: u64 = 256 << 20;

/// The file, which may or may not be there.
#[derive(Debug, Clone)]
pub(super) struct Optimized {
    file: PathBuf,
}

impl Optimized {
    /// `prefix`: what the file is named by, up to what the engine knows. `None` for models that are too large.
    pub(super) fn of(model: &Path, prefix: &Path) -> Option<Self> {
        let size = std::fs::metadata(model).ok()?.len();
        // Another build of the library rewrites otherwise.
        let mut hasher = DefaultHasher::new();
        ort::info().hash(&mut hasher);
        let mut file = prefix.as_os_str().to_owned();
        file.push(format!("-{:016x}.onnx", hasher.finish()));
        (size <= LARGEST).then_some(Self { file: file.into() })
    }

    /// The file, if it is there.
    pub(super) fn found(&self) -> Option<&Path> {
        self.file.is_file().then_some(&*self.file)
    }

    /// Where it is written, to be [kept](Self::keep) when it is whole.
    pub(super) fn part(&self) -> PathBuf {
        self.file.with_extension(format!("{}.part", std::process::id()))
    }

    pub(super) fn keep(&self, part: &Path) {
        if std::fs::rename(part, &self.file).is_err() {
            std::fs::remove_file(part).ok();
        }
    }

    /// Takes away one that cannot be read.
    pub(super) fn discard(&self) {
        std::fs::remove_file(&self.file).ok();
    }
}
