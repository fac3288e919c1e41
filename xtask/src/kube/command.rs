//! Running other programs to their end.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

/// A program of the system. Some live in directories that are not on everyone's PATH.
pub(super) fn system(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env("PATH", search_path(None));
    command
}

/// `first`, then PATH, then where a system keeps its administrator's programs.
pub(super) fn search_path(first: Option<&Path>) -> OsString {
    let mut path = OsString::new();
    for part in [first.map(Path::as_os_str), std::env::var_os("PATH").as_deref()].into_iter().flatten() {
        path.push(part);
        path.push(":");
    }
    path.push("/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin");
    path
}

/// Where a program is found on that path.
pub(super) fn find(program: &str, first: Option<&Path>) -> Option<PathBuf> {
    std::env::split_paths(&search_path(first)).map(|dir| dir.join(program)).find(|path| path.is_file())
}

/// Runs a program; returns what it wrote to standard output, or fails with what it said.
pub(super) fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("cannot run {}", command.get_program().display()))?;
    read(command, output)
}

/// Runs a program that reads `input`.
pub(super) fn feed(command: &mut Command, input: &str) -> Result<String> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot run {}", command.get_program().display()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that ends without reading all tells why below.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().context("cannot wait")?;
    read(command, output)
}

/// Whether a program runs and says yes.
pub(super) fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn read(command: &Command, output: Output) -> Result<String> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let words: Vec<_> = command.get_args().take(8).map(OsStr::to_string_lossy).collect();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let (program, said) = (command.get_program().display(), said.trim());
    bail!("`{program} {}` failed ({}): {said}", words.join(" "), output.status)
}
