//! Programs out of Debian's packages, unpacked into a directory of ours: nothing is installed, and no service is started.

pub(crate) mod prometheus;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// A program on the path.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Debian's servers are where the path of users does not lead.
    let more = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(more).map(|dir| dir.join(program)).find(|file| file.is_file())
}

pub(crate) fn is_here() -> bool {
    Path::new("/etc/debian_version").exists()
}

/// Unpacks the packages into one tree at `dir`, beside first and then renamed: what is there is whole.
///
/// # Errors
/// If `apt-get` cannot fetch them, after its lists were brought up to date where this may be done.
pub(crate) fn unpack(packages: &[&str], dir: &Path) -> Result<()> {
    let parent = dir.parent().context("it has no parent")?;
    fs::create_dir_all(parent)?;
    let beside = tempfile::tempdir_in(parent)?;
    // As root, apt would fetch as a user who cannot write here.
    let download = || {
        let mut apt = Command::new("apt-get");
        apt.args(["--quiet=2", "-o", "APT::Sandbox::User=root", "download"]).args(packages).current_dir(&beside);
        run(&mut apt)
    };
    if download().is_err() && rustix::process::geteuid().is_root() {
        // Lists of packages that are missing or old.
        run(Command::new("apt-get").args(["--quiet=2", "update"]))?;
        download()?;
    }
    let found = found(beside.path())?;
    ensure!(found.len() == packages.len(), "apt-get downloaded {} of {} packages", found.len(), packages.len());
    let content = beside.path().join("content");
    for package in found {
        run(Command::new("dpkg-deb").arg("--extract").arg(package).arg(&content))?;
    }
    fs::rename(content, dir).with_context(|| format!("cannot make {}", dir.display()))
}

fn found(dir: &Path) -> Result<Vec<PathBuf>> {
    let files = fs::read_dir(dir)?.map(|file| file.map(|file| file.path())).collect::<Result<Vec<_>, _>>()?;
    Ok(files.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "deb")).collect())
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("cannot run {}", command.get_program().display()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    bail!("`{}` failed: {}", command.get_program().display(), String::from_utf8_lossy(&said).trim())
}
