//! `docs/commands.md` is made from the command line itself, and what documents call is held against it.

use std::fmt::Write;
use std::path::PathBuf;

use clap::{Command, CommandFactory, Parser};

use crate::cli::Cli;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

const HEAD: &str = "# Commands

Made from the command line itself: `MODELYARD_WRITE_DOCS=1 cargo test -p xtask reference` writes this page anew.

Exit code 0: done. 1: refused or failed. 2: wrong usage. Tables are for people; `-o json` and `-o yaml` print the API's own objects.

| variable | |
| --- | --- |
| `MODELYARD_SERVER` | the control plane, `http://127.0.0.1:8080` by default |
| `MODELYARD_GATEWAY` | the gateway, `http://127.0.0.1:8000` by default |
| `MODELYARD_TOKEN` | sent as a bearer token; beyond loopback the control plane asks for one |
| `MODELYARD_CA` | a PEM file of certificates to trust instead of the system's, for `https://` |
| `DATABASE_URL` | a PostgreSQL to use instead of a private one |
";

/// A section for each command that does something, in the order of the command line.
fn sections(command: &Command, path: &str, page: &mut String) {
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help" && !sub.is_hide_set()) {
        let path = format!("{path} {}", sub.get_name());
        if sub.has_subcommands() {
            sections(sub, &path, page);
        }
        // One with commands of its own may do something by itself.
        if !sub.is_subcommand_required_set() {
            let help = sub.clone().bin_name(&path).term_width(100).render_help().to_string();
            // What all client commands share is in the table above.
            let help = help.split("\nFor commands that call a running Modelyard:").next().unwrap_or_default();
            writeln!(page, "\n## {path}\n\n```text\n{}\n```", help.trim_end()).unwrap();
        }
    }
}

#[test]
fn the_reference_of_commands_is_current() {
    let mut page = HEAD.to_owned();
    // Built, so that flattened arguments are in place; without values from this machine's environment.
    let mut command = Cli::command().mut_args(|argument| argument.hide_env_values(true));
    command.build();
    sections(&command, "cargo xtask", &mut page);
    let path = root().join("docs/commands.md");
    if std::env::var_os("MODELYARD_WRITE_DOCS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(written, page, "write it anew: MODELYARD_WRITE_DOCS=1 cargo test -p xtask reference");
}

#[test]
fn every_command_in_the_documents_is_one() {
    let pages = std::fs::read_dir(root().join("docs")).unwrap().flatten().map(|entry| entry.path());
    let pages = pages.filter(|path| path.extension().is_some_and(|e| e == "md") && !path.ends_with("commands.md"));
    let mut seen = 0;
    for page in pages.chain([root().join("README.md")]) {
        let text = std::fs::read_to_string(&page).unwrap();
        for line in text.split(['\n', '`']).filter_map(|line| line.strip_prefix("cargo xtask ")) {
            let line = line.split(" #").next().unwrap_or_default().trim();
            // Names of places to fill in stand for themselves; a choice of words does not.
            if line.contains(['/', '…']) && !line.contains("manifests/") || line.contains('|') {
                continue;
            }
            let words = words(&line.replace("NAME", "linear"));
            if let Err(error) = Cli::try_parse_from(["cargo xtask".to_owned()].into_iter().chain(words)) {
                panic!("{}: `cargo xtask {line}`: {error}", page.display());
            }
            seen += 1;
        }
    }
    assert!(seen > 15, "{seen} commands");
}

/// As a shell cuts them: quotes keep words together.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quote = None;
    for c in line.chars() {
        match (c, quote) {
            (c, Some(q)) if c == q => quote = None,
            ('\'' | '"', None) => quote = Some(c),
            (' ', None) => words.push(String::new()),
            (c, _) => words.last_mut().unwrap().push(c),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}
