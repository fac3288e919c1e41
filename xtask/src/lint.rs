//! `lint`: format, clippy, who may depend on whom, file rules, licenses and advisories. Runs all, then reports all.

mod deny;
mod direction;
mod sources;

use anyhow::{Context, Result, bail};

use crate::console::Console;
use crate::workspace;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Finds problems, in words.
type Check<'a> = &'a dyn Fn() -> Result<Vec<String>>;

pub(crate) fn run(_: &Args) -> Result<()> {
    let console = Console::new(false);
    let checks: [(&str, Check<'_>); 5] = [
        ("format", &|| cargo(&["fmt", "--all", "--check"])),
        ("clippy", &|| {
            cargo(&[
                "clippy",
                "--workspace",
                "--all-targets",
                "--all-features",
                "--keep-going",
                "--",
                "--deny",
                "warnings",
            ])
        }),
        ("crate direction", &|| Ok(direction::problems(&workspace::metadata(&["--all-features"])?))),
        ("source files", &|| sources::problems(workspace::root())),
        ("licenses, bans, sources, advisories", &|| deny::problems(console)),
    ];
    let mut problems = Vec::new();
    for (name, check) in checks {
        console.say(format_args!("lint: {name}"));
        // A check that cannot be carried out has not passed, and must not hide what the others find.
        let found = check().unwrap_or_else(|error| vec![format!("{error:#}")]);
        problems.extend(found.into_iter().map(|problem| format!("{name}: {problem}")));
    }
    if problems.is_empty() {
        console.say("lint: nothing to complain about");
        return Ok(());
    }
    bail!("{} found:\n  {}", if problems.len() == 1 { "a problem" } else { "problems" }, problems.join("\n  "))
}

/// Runs a cargo command that shows its own findings.
fn cargo(args: &[&str]) -> Result<Vec<String>> {
    let status = workspace::cargo().args(args).status().with_context(|| format!("cannot run cargo {}", args[0]))?;
    let problem = || format!("`cargo {}` failed, see above", args.join(" "));
    Ok(if status.success() { Vec::new() } else { vec![problem()] })
}
