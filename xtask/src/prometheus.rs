//! Finds a Prometheus for the tests of gates that ask one: on the path, else unpacked from Debian's package into the target
//! directory. Nothing is installed, and no service is started.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::console::Console;
use crate::workspace;

const NOT_TESTED: &str = "NOT TESTED with Prometheus";

/// The program, or `None`, and said so, where this machine has none and offers none.
pub(crate) fn find(console: Console) -> Result<Option<PathBuf>> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if let Some(found) = std::env::split_paths(&path).map(|dir| dir.join("prometheus")).find(|file| file.is_file()) {
        return Ok(Some(found));
    }
    let dir = workspace::target_directory()?.join("modelyard-prometheus");
    let program = dir.join("usr/bin/prometheus");
    if program.is_file() {
        return Ok(Some(program));
    }
    if !PathBuf::from("/etc/debian_version").exists() {
        console.say(format_args!("{NOT_TESTED}: there is no program `prometheus` on the path"));
        return Ok(None);
    }
    console.say("unpacking Prometheus from Debian's package (once, some 20 MB)");
    if let Err(error) = unpack(&dir) {
        // Whoever is not root cannot mend apt's lists.
        ensure!(!rustix::process::geteuid().is_root(), "cannot unpack Prometheus into {}: {error:#}", dir.display());
        console.say(format_args!("{NOT_TESTED}: {error:#}"));
        return Ok(None);
    }
    ensure!(program.is_file(), "Debian's package `prometheus` holds no usr/bin/prometheus");
    Ok(Some(program))
}

/// Beside, then renamed: what is there is whole.
fn unpack(dir: &PathBuf) -> Result<()> {
    let parent = dir.parent().context("it has no parent")?;
    let beside = tempfile::tempdir_in(parent)?;
    // As root, apt would fetch as a user who cannot write here.
    let download = || {
        let mut apt = Command::new("apt-get");
        apt.args(["--quiet=2", "-o", "APT::Sandbox::User=root", "download", "prometheus"]).current_dir(&beside);
        run(&mut apt)
    };
    if download().is_err() && rustix::process::geteuid().is_root() {
        // Lists of packages that are missing or old.
        run(Command::new("apt-get").args(["--quiet=2", "update"]))?;
    }
    let package = match package(&beside)? {
        Some(package) => package,
        None => {
            download()?;
            package(&beside)?.context("apt-get downloaded nothing")?
        }
    };
    let content = beside.path().join("content");
    run(Command::new("dpkg-deb").arg("--extract").arg(package).arg(&content))?;
    fs::rename(content, dir)?;
    Ok(())
}

fn package(dir: &tempfile::TempDir) -> Result<Option<PathBuf>> {
    let files = fs::read_dir(dir)?.map(|file| file.map(|file| file.path()));
    let found: Vec<_> = files.collect::<Result<_, _>>()?;
    Ok(found.into_iter().find(|path| path.extension().is_some_and(|extension| extension == "deb")))
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("cannot run {}", command.get_program().display()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    bail!("`{}` failed: {}", command.get_program().display(), String::from_utf8_lossy(&said).trim())
}
