//! The corpora of the fuzz targets, run without a fuzzer: what was found once stays mended.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use modelyard_fuzz_targets::{TARGETS, run};

fn corpora() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus")
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("a directory that can be read").path()).collect();
    files.sort();
    files
}

#[test]
fn every_target_keeps_its_promises_on_its_corpus() {
    let mut broken = Vec::new();
    for (name, target) in TARGETS {
        let files = files(&corpora().join(name));
        assert!(!files.is_empty(), "{name} has no corpus");
        for file in files {
            let bytes = std::fs::read(&file).expect("a file of the corpus");
            if catch_unwind(AssertUnwindSafe(|| target(&bytes))).is_err() {
                broken.push(file);
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn there_is_no_corpus_without_a_target() {
    for dir in files(&corpora()) {
        let name = dir.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        assert!(TARGETS.iter().any(|(target, _)| *target == name), "{}", dir.display());
    }
}

/// Shorter than any seed, and none at all.
#[test]
fn the_shortest_inputs_are_inputs() {
    for (name, _) in TARGETS {
        run(name, &[]);
        (0..=u8::MAX).for_each(|byte| run(name, &[byte]));
    }
}
