//! What the documents say, held against what there is.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use modelyard_core::manifest::{Resource, parse};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn documents() -> Vec<(PathBuf, String)> {
    let docs = std::fs::read_dir(root().join("docs")).unwrap().flatten().map(|e| e.path());
    let pages = docs.filter(|p| p.extension().is_some_and(|e| e == "md")).chain([root().join("README.md")]);
    pages.map(|p| (p.clone(), std::fs::read_to_string(p).unwrap())).collect()
}

#[test]
fn every_manifest_in_the_documents_is_valid() {
    let mut seen = 0;
    for (path, text) in documents() {
        for block in text.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap()) {
            parse(block).unwrap_or_else(|problems| panic!("{}: {problems:#?}\n{block}", path.display()));
            seen += 1;
        }
    }
    assert!(seen >= 3, "{seen} blocks");
}

#[test]
fn every_example_is_valid_and_its_artifacts_are_there() {
    let examples = root().join("manifests/examples");
    let of = |dir: PathBuf| std::fs::read_dir(dir).unwrap().flatten().map(|e| e.path());
    let mut seen = 0;
    for path in of(examples.clone()).chain(of(examples.join("rollouts"))) {
        if path.extension().is_none_or(|e| e != "yaml") {
            continue;
        }
        let parsed = parse(&std::fs::read_to_string(&path).unwrap());
        for document in parsed.unwrap_or_else(|problems| panic!("{}: {problems:#?}", path.display())) {
            if let Resource::ModelVersion(version) = document.resource {
                let artifact = path.parent().unwrap().join(version.artifact.uri.to_string());
                assert!(artifact.exists(), "{}", artifact.display());
            }
        }
        seen += 1;
    }
    assert!(seen >= 5, "{seen} examples");
}

#[test]
fn every_path_of_the_api_is_in_the_reference() {
    let reference = std::fs::read_to_string(root().join("docs/rest.md")).unwrap();
    let openapi = std::fs::read_to_string(root().join("docs/openapi.json")).unwrap();
    let openapi: serde_json::Value = serde_json::from_str(&openapi).unwrap();
    for path in openapi["paths"].as_object().unwrap().keys() {
        let path = path.strip_prefix("/api/v1").unwrap();
        assert!(reference.contains(&format!("{path}`")), "{path} is not in docs/rest.md");
    }
}

#[test]
fn every_kind_of_event_is_in_the_reference() {
    let reference = std::fs::read_to_string(root().join("docs/rest.md")).unwrap();
    let openapi = std::fs::read_to_string(root().join("docs/openapi.json")).unwrap();
    let openapi: serde_json::Value = serde_json::from_str(&openapi).unwrap();
    let kinds = &openapi["components"]["schemas"]["EventKind"];
    let names = kinds["enum"]
        .as_array()
        .cloned()
        .unwrap_or_else(|| kinds["oneOf"].as_array().unwrap().iter().map(|one| one["enum"][0].clone()).collect());
    assert!(names.len() > 10, "{kinds}");
    for name in names {
        assert!(reference.contains(&format!("`{}`", name.as_str().unwrap())), "{name} is not in docs/rest.md");
    }
}

#[test]
fn every_page_that_is_pointed_to_exists() {
    for (path, text) in documents() {
        for word in text.split(['`', ' ', '\n', '(', ')']).filter(|w| w.ends_with(".md")) {
            let found = [root().join(word), root().join("docs").join(word)].iter().any(|p| p.exists());
            assert!(found, "{} points to {word}", path.display());
        }
    }
}
