//! Finds a Prometheus for the tests of gates that ask one: on the path, else unpacked from Debian's package into the target
//! directory.

use std::path::PathBuf;

use anyhow::{Result, ensure};

use crate::console::Console;
use crate::{debian, workspace};

const NOT_TESTED: &str = "NOT TESTED with Prometheus";

/// The program, or `None`, and said so, where this machine has none and offers none.
pub(crate) fn find(console: Console) -> Result<Option<PathBuf>> {
    if let Some(found) = debian::on_path("prometheus") {
        return Ok(Some(found));
    }
    let dir = workspace::target_directory()?.join("modelyard-prometheus");
    let program = dir.join("usr/bin/prometheus");
    if program.is_file() {
        return Ok(Some(program));
    }
    if !debian::is_here() {
        console.say(format_args!("{NOT_TESTED}: there is no program `prometheus` on the path"));
        return Ok(None);
    }
    console.say("unpacking Prometheus from Debian's package (once, some 20 MB)");
    if let Err(error) = debian::unpack(&["prometheus"], &dir) {
        // Whoever is not root cannot mend apt's lists.
        ensure!(!rustix::process::geteuid().is_root(), "cannot unpack Prometheus into {}: {error:#}", dir.display());
        console.say(format_args!("{NOT_TESTED}: {error:#}"));
        return Ok(None);
    }
    ensure!(program.is_file(), "Debian's package `prometheus` holds no usr/bin/prometheus");
    Ok(Some(program))
}
