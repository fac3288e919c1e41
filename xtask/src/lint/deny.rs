//! cargo-deny: licenses, bans, sources and advisories, by `deny.toml`. Installed when it is missing.

use anyhow::{Context, Result, ensure};

use crate::console::Console;
use crate::workspace;

/// Pinned, since newer versions bring new checks at times of their own choosing.
const VERSION: &str = "0.20.2";

pub(super) fn problems(console: Console) -> Result<Vec<String>> {
    install(console)?;
    let mut problems = super::cargo(&["deny", "--all-features", "check", "bans", "licenses", "sources"])?;
    problems.extend(advisories(console)?);
    Ok(problems)
}

fn install(console: Console) -> Result<()> {
    let installed = workspace::cargo().args(["deny", "--version"]).output();
    if installed.is_ok_and(|output| output.status.success()) {
        return Ok(());
    }
    console.say(format_args!("installing cargo-deny {VERSION} (once, some minutes)"));
    let mut install = workspace::cargo();
    install.args(["install", "cargo-deny", "--locked", "--version", VERSION]);
    let status = install.status().context("cannot run cargo install")?;
    ensure!(status.success(), "cargo-deny could not be installed ({status})");
    Ok(())
}

/// Advisories come from a git repository that cannot be reached from everywhere. That it cannot be is no finding.
fn advisories(console: Console) -> Result<Vec<String>> {
    let mut check = workspace::cargo();
    check.args(["deny", "--all-features", "--color", "never", "check", "advisories"]);
    let output = check.output().context("cannot run cargo deny")?;
    if output.status.success() {
        return Ok(Vec::new());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    match unfetched(&said) {
        Some(reason) => {
            console.say(format_args!("warning: advisories were not checked: {reason}"));
            Ok(Vec::new())
        }
        None => Ok(vec![format!("advisories:\n{}", said.trim())]),
    }
}

/// Why the database could not be had, if that is what went wrong.
fn unfetched(said: &str) -> Option<&str> {
    said.lines().find_map(|line| {
        let at =
            line.find("failed to fetch advisory database").or_else(|| line.find("failed to load advisory database"))?;
        Some(line[at..].trim())
    })
}
