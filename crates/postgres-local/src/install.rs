//! Installs PostgreSQL with the system's package manager. Only as root, and without leaving a server running.

use std::path::Path;
use std::process::Command;

use crate::error::{Error, IoContext};

/// Debian's setting for clusters that the package would make on installation.
const DEBIAN_CONFIG: &str = "/etc/postgresql-common/createcluster.conf";

/// Installs the server; returns the package manager's name.
pub(crate) fn run(progress: &dyn Fn(&str)) -> Result<&'static str, Error> {
    let manager = ["apt-get", "dnf", "apk"].into_iter().find(|name| on_path(name));
    let advice = match manager {
        Some("apt-get") => "install it with `apt-get install postgresql`",
        Some("dnf") => "install it with `dnf install postgresql-server`",
        Some("apk") => "install it with `apk add postgresql`",
        _ => "install PostgreSQL 13 or newer",
    };
    let Some(manager) = manager.filter(|_| rustix::process::geteuid().is_root()) else {
        let advice = format!("{advice}, or set DATABASE_URL to a database of your own");
        return Err(Error::NotInstalled { advice });
    };
    progress(&format!("no PostgreSQL found: installing it with {manager}"));
    match manager {
        "apt-get" => debian()?,
        "dnf" => command("dnf", &["install", "-y", "postgresql-server"])?,
        _ => command("apk", &["add", "--no-cache", "postgresql"])?,
    }
    Ok(manager)
}

/// Debian's package makes and starts a cluster of its own unless told not to; that setting belongs to a package that is
/// therefore installed first. The setting is put back afterwards: it is the machine's, not ours.
fn debian() -> Result<(), Error> {
    let install = ["install", "-y", "--no-install-recommends"];
    command("apt-get", &["update"])?;
    command("apt-get", &[&install[..], &["postgresql-common"]].concat())?;
    let config = Path::new(DEBIAN_CONFIG);
    let before = std::fs::read_to_string(config).doing("read", config)?;
    std::fs::write(config, without_main_cluster(&before)).doing("write", config)?;
    let installed = command("apt-get", &[&install[..], &["postgresql"]].concat());
    std::fs::write(config, before).doing("write", config)?;
    installed
}

fn without_main_cluster(config: &str) -> String {
    let kept = config.lines().filter(|line| !line.trim_start().starts_with("create_main_cluster"));
    kept.chain(["create_main_cluster = false"]).map(|line| format!("{line}\n")).collect()
}

fn command(program: &str, args: &[&str]) -> Result<(), Error> {
    let words = format!("{program} {}", args.join(" "));
    let output = Command::new(program)
        .args(args)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(std::process::Stdio::null())
        .output()
        .map_err(|source| Error::Io { what: format!("cannot run `{words}`"), source })?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    Err(Error::Install { command: words, output: tail(&String::from_utf8_lossy(&said), 15) })
}

/// The last `count` lines of a text.
pub(crate) fn tail(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

fn on_path(program: &str) -> bool {
    let Some(path) = std::env::var_os("PATH") else { return false };
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_main_cluster_is_switched_off_whatever_was_said_before() {
        let before = "# comment\ncreate_main_cluster = true\nstart_conf = 'auto'\n";
        let after = "# comment\nstart_conf = 'auto'\ncreate_main_cluster = false\n";
        assert_eq!(without_main_cluster(before), after);
    }

    #[test]
    fn the_tail_of_a_short_text_is_the_text() {
        assert_eq!(tail("a\nb\n", 5), "a\nb");
        assert_eq!(tail("a\nb\nc", 2), "b\nc");
    }
}
