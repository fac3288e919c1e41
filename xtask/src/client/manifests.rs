//! Reads manifest files and parses them, and collects the problems of all of them. Opens no artifacts, calls no server.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Context;
use modelyard_core::manifest::{self, Document, Problem, Resource};

use super::output::count;

/// `-f`, for the commands that need it.
#[derive(Debug, clap::Args)]
pub(super) struct Files {
    /// A manifest, a directory of them (*.yaml, *.yml, *.json), or - for standard input; may be repeated
    #[arg(short = 'f', long = "filename", required = true, value_name = "FILE|DIR|-")]
    pub(super) files: Vec<PathBuf>,
    /// Also read the directories below a directory
    #[arg(short = 'R', long)]
    pub(super) recursive: bool,
}

impl Files {
    pub(super) fn read(&self) -> anyhow::Result<Vec<Source>> {
        read(&self.files, self.recursive)
    }
}

/// The text of a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Source {
    /// As given on the command line; what messages say.
    pub(super) name: String,
    /// What relative artifacts are relative to.
    pub(super) directory: PathBuf,
    pub(super) text: String,
}

/// A manifest and those of its documents that can be read.
#[derive(Debug)]
pub(super) struct Manifest {
    pub(super) source: Source,
    pub(super) documents: Vec<Document>,
}

impl Manifest {
    /// A problem at a path of one of its documents.
    pub(super) fn problem(&self, document: &Document, path: &str, message: String) -> Problem {
        Problem {
            file: Some(self.source.name.clone()),
            line: manifest::line_of(&self.source.text, document.index, path),
            path: path.to_owned(),
            message,
        }
    }
}

/// Manifests with problems.
#[derive(Debug)]
pub(super) struct Faulty(Vec<Problem>);

impl Faulty {
    pub(super) fn problems(&self) -> &[Problem] {
        &self.0
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; nothing was done", count(self.0.len(), "problem"))
    }
}

impl std::error::Error for Faulty {}

/// # Errors
/// The problems, if there are any, in the order of the files and their lines.
pub(super) fn refuse(mut problems: Vec<Problem>, manifests: &[Manifest]) -> Result<(), Faulty> {
    if problems.is_empty() {
        return Ok(());
    }
    let place = |problem: &Problem| {
        let file = manifests.iter().position(|m| Some(&m.source.name) == problem.file.as_ref());
        (file, problem.line)
    };
    problems.sort_by_key(place);
    Err(Faulty(problems))
}

/// Reads all files that the arguments name.
pub(super) fn read(arguments: &[PathBuf], recursive: bool) -> anyhow::Result<Vec<Source>> {
    let mut sources = Vec::new();
    for argument in arguments {
        if argument.as_os_str() == "-" {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
            sources.push(Source { name: "stdin".into(), directory: PathBuf::from("."), text });
        } else if argument.is_dir() {
            let files = manifests_in(argument, recursive)?;
            anyhow::ensure!(!files.is_empty(), "no *.yaml, *.yml or *.json in {}", argument.display());
            for file in files {
                let source = read_one(&file)?;
                if is_manifest(&file, &source.text) {
                    sources.push(source);
                }
            }
        } else {
            sources.push(read_one(argument)?);
        }
    }
    Ok(sources)
}

fn read_one(path: &Path) -> anyhow::Result<Source> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
    let directory = path.parent().map(Path::to_path_buf).unwrap_or_default();
    Ok(Source { name, directory, text })
}

/// Whether a file found in a directory is meant as a manifest. JSON may be anything, an artifact beside its manifest
/// among others; what has neither of a manifest's first two fields is not taken for one.
fn is_manifest(path: &Path, text: &str) -> bool {
    let is_json = path.extension().is_some_and(|e| e == "json");
    let says_so = |value: serde_json::Value| value.get("apiVersion").is_some() || value.get("kind").is_some();
    !is_json || serde_json::from_str(text).map_or(true, says_so)
}

/// The manifests of a directory, sorted; with `recursive`, those of the directories in it after its own.
fn manifests_in(directory: &Path, recursive: bool) -> anyhow::Result<Vec<PathBuf>> {
    let reading = || format!("cannot read the directory {}", directory.display());
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(directory).with_context(reading)? {
        entries.push(entry.with_context(reading)?);
    }
    entries.sort_by_key(std::fs::DirEntry::file_name);
    let (mut files, mut below) = (Vec::new(), Vec::new());
    for entry in entries {
        let path = entry.path();
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        // A link to a directory is not followed: it could lead back up.
        if entry.file_type().with_context(reading)?.is_dir() {
            if recursive && !hidden {
                below.extend(manifests_in(&path, recursive)?);
            }
        } else if !hidden && path.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json") {
            files.push(path);
        }
    }
    files.extend(below);
    Ok(files)
}

/// Parses all files. The problems are those of all of them, documents that are there twice among them.
pub(super) fn parse(sources: Vec<Source>) -> (Vec<Manifest>, Vec<Problem>) {
    let (mut manifests, mut problems) = (Vec::new(), Vec::new());
    for source in sources {
        let (documents, found) = manifest::examine(&source.text);
        problems.extend(found.into_iter().map(|p| Problem { file: Some(source.name.clone()), ..p }));
        manifests.push(Manifest { source, documents });
    }
    problems.extend(duplicates(&manifests));
    (manifests, problems)
}

fn duplicates(manifests: &[Manifest]) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut first = BTreeMap::<String, String>::new();
    for (manifest, document) in manifests.iter().flat_map(|m| m.documents.iter().map(move |d| (m, d))) {
        let named = format!("{} {}", document.resource.kind(), document.resource.name());
        let mut keys = vec![("metadata.name", named)];
        if let Resource::ModelVersion(v) = &document.resource {
            keys.push(("spec.version", format!("version {} of model {}", v.version, v.model)));
        }
        for (path, what) in keys {
            let problem = manifest.problem(document, path, String::new());
            let place = format!("{}:{}", manifest.source.name, problem.line.unwrap_or_default());
            match first.get(&what) {
                Some(first) => {
                    problems.push(Problem { message: format!("{what} is already defined at {first}"), ..problem });
                    // The same document twice is one mistake, not two.
                    break;
                }
                None => {
                    first.insert(what, place);
                }
            }
        }
    }
    problems
}

/// Reads and parses; for commands to which a faulty manifest is of no use.
pub(super) fn load(sources: Vec<Source>) -> Result<Vec<Manifest>, Faulty> {
    let (manifests, problems) = parse(sources);
    refuse(problems, &manifests)?;
    Ok(manifests)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(name: &str, text: &str) -> Source {
        Source { name: name.into(), directory: PathBuf::from("."), text: text.into() }
    }

    const MODEL: &str = "apiVersion: modelyard.dev/v1\nkind: Model\nmetadata:\n  name: linear\n";

    fn version(document: &str, version: &str) -> String {
        format!(
            "apiVersion: modelyard.dev/v1\nkind: ModelVersion\nmetadata: {{name: {document}}}\nspec:\n  model: linear\n  \
             version: \"{version}\"\n  format: onnx\n  artifact: {{uri: a.onnx}}\n"
        )
    }

    #[test]
    fn the_problems_of_all_files_come_together_and_in_order() {
        let text = format!("{}---\n{}", version("a", "1"), version("b", "1"));
        let (manifests, problems) = parse(vec![
            source("z.yaml", MODEL),
            source("bad.yaml", "kind: Model\n"),
            source("a.yaml", &format!("{MODEL}---\nkind: x\n")),
            source("b.yaml", MODEL),
            source("c.yaml", &text),
        ]);
        let faulty = refuse(problems, &manifests).unwrap_err();
        let shown: String = faulty.problems().iter().map(|p| format!("{p}\n")).collect();
        insta::assert_snapshot!(format!("{shown}{faulty}"));
    }

    #[test]
    fn a_directory_is_read_in_order_and_not_below_unless_asked() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("a/below")).unwrap();
        for file in ["b.yml", "a.yaml", "c.json", "notes.txt", ".hidden.yaml", "a/d.yaml", "a/below/e.yaml"] {
            std::fs::write(dir.path().join(file), MODEL).unwrap();
        }
        let names = |recursive| -> Vec<String> {
            let sources = read(&[dir.path().to_path_buf()], recursive).unwrap();
            let short = |s: &Source| Path::new(&s.name).strip_prefix(dir.path()).unwrap().display().to_string();
            sources.iter().map(short).collect()
        };
        assert_eq!(names(false), ["a.yaml", "b.yml", "c.json"]);
        assert_eq!(names(true), ["a.yaml", "b.yml", "c.json", "a/d.yaml", "a/below/e.yaml"]);
    }

    #[test]
    fn an_empty_directory_and_a_missing_file_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read(&[dir.path().to_path_buf()], false).unwrap_err().to_string().starts_with("no *.yaml"));
        assert!(read(&[dir.path().join("x.yaml")], false).unwrap_err().to_string().starts_with("cannot read"));
    }
}
