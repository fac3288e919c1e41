//! Rules that the text of source files must keep: how long they may be, and where some libraries may be named.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

const LONGEST: usize = 600;
const LONGEST_MAIN: usize = 40;
/// Folders of the workspace that hold Rust.
const FOLDERS: [&str; 4] = ["crates", "fuzz/src", "tests", "xtask"];

/// A library and the files that may name it.
struct Rule {
    library: &'static str,
    where_allowed: &'static str,
    allowed: fn(&Path) -> bool,
}

const RULES: [Rule; 2] = [
    Rule { library: "axum", where_allowed: "http*.rs, http/ and crates/api", allowed: is_http },
    Rule {
        library: "serde_yaml",
        where_allowed: "crates/core/src/yaml.rs and crates/core/src/manifest/",
        allowed: |file| file.starts_with("crates/core/src/manifest") || file == Path::new("crates/core/src/yaml.rs"),
    },
];

fn is_http(file: &Path) -> bool {
    let name = file.file_name().and_then(OsStr::to_str).unwrap_or_default();
    name.starts_with("http")
        || file.starts_with("crates/api")
        || file.components().any(|part| part.as_os_str() == "http")
}

/// All violations under `root`, in words.
pub(super) fn problems(root: &Path) -> Result<Vec<String>> {
    let mut files = Vec::new();
    for folder in FOLDERS {
        collect(&root.join(folder), &mut files)?;
    }
    files.sort();
    let mut problems = Vec::new();
    for path in files {
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        problems.extend(check(path.strip_prefix(root).unwrap_or(&path), &text));
    }
    Ok(problems)
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = std::fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension() == Some(OsStr::new("rs")) {
            files.push(path);
        }
    }
    Ok(())
}

/// The violations of one file; `file` is relative to the workspace.
fn check(file: &Path, text: &str) -> Vec<String> {
    let is_main = file.file_name() == Some(OsStr::new("main.rs"));
    let limit = if is_main { LONGEST_MAIN } else { LONGEST };
    let lines = text.lines().count();
    let mut problems = Vec::new();
    if lines > limit {
        problems.push(format!("{}: {lines} lines, at most {limit} are allowed: split it by noun", file.display()));
    }
    if is_for_tests(file) {
        return problems;
    }
    for rule in RULES.iter().filter(|rule| !(rule.allowed)(file)) {
        if let Some(line) = names(text, rule.library) {
            let Rule { library, where_allowed, .. } = rule;
            problems.push(format!("{}:{line}: `{library}` belongs in {where_allowed}", file.display()));
        }
    }
    problems
}

fn is_for_tests(file: &Path) -> bool {
    file.starts_with("tests")
        || file.starts_with("crates/test-support")
        || file.file_name() == Some(OsStr::new("tests.rs"))
        || file.components().any(|part| part.as_os_str() == "tests")
}

/// The first line that names a library in code: not in a comment, and not in the tests at the file's end.
fn names(text: &str, library: &str) -> Option<usize> {
    let code = text.lines().take_while(|line| line.trim_end() != "#[cfg(test)]");
    let path = format!("{library}::");
    let import = format!("use {library};");
    code.enumerate().find_map(|(index, line)| {
        let line = line.split("//").next().unwrap_or_default();
        let named = line.match_indices(&path).any(|(at, _)| {
            // `my_axum::` is another word.
            !line[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_')
        });
        (named || line.contains(&import)).then_some(index + 1)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axum_is_named_only_in_http_modules() {
        let text = "//! Not axum::Router.\nuse axum::Router;\n";
        let expected = ["crates/gateway/src/pick.rs:2: `axum` belongs in http*.rs, http/ and crates/api"];
        assert_eq!(check(Path::new("crates/gateway/src/pick.rs"), text), expected);
        for allowed in ["crates/gateway/src/http.rs", "crates/control-plane/src/http/apply.rs", "crates/api/src/lib.rs"]
        {
            assert_eq!(check(Path::new(allowed), text), Vec::<String>::new());
        }
    }

    #[test]
    fn tests_may_name_what_they_like() {
        let text = "fn f() {}\n#[cfg(test)]\nmod tests {\n    use axum::Router;\n}\n";
        assert_eq!(check(Path::new("crates/gateway/src/pick.rs"), text), Vec::<String>::new());
        assert_eq!(check(Path::new("crates/gateway/tests/a.rs"), "use axum::Router;"), Vec::<String>::new());
    }

    #[test]
    fn long_files_are_refused() {
        assert_eq!(check(Path::new("crates/core/src/a.rs"), &"\n".repeat(600)), Vec::<String>::new());
        assert_eq!(check(Path::new("crates/core/src/a.rs"), &"\n".repeat(601)).len(), 1);
        assert_eq!(check(Path::new("crates/worker/src/main.rs"), &"\n".repeat(41)).len(), 1);
    }
}
