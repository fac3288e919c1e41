//! Finds PostgreSQL server binaries: on PATH, in the places where distributions put them, and last by installing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::account::Account;
use crate::error::Error;
use crate::install;

/// The oldest major version that Modelyard is tested to understand.
const OLDEST: u32 = 13;

/// Where distributions put server binaries outside PATH: a folder, the start of a name in it, and what follows.
/// Debian and Ubuntu; the PostgreSQL project's RPMs; Alpine; Homebrew on Linux, on Apple silicon and on Intel.
const PLACES: [(&str, &str, &str); 6] = [
    ("/usr/lib/postgresql", "", "bin"),
    ("/usr", "pgsql-", "bin"),
    ("/usr/libexec", "postgresql", ""),
    ("/home/linuxbrew/.linuxbrew/opt", "postgresql", "bin"),
    ("/opt/homebrew/opt", "postgresql", "bin"),
    ("/usr/local/opt", "postgresql", "bin"),
];

/// Server binaries of one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// The folder that holds `postgres` and `initdb`.
    pub bin_dir: PathBuf,
    /// The major version: 15 of 15.13.
    pub major: u32,
    /// The whole version: `15.13`.
    pub version: String,
}

impl Server {
    /// Reads the version of the binaries in `bin_dir`; `None` if they are not usable.
    fn probe(bin_dir: &Path) -> Option<Self> {
        // Links are resolved first: `postgres` alone may be linked onto PATH, with `initdb` only beside the real file.
        let bin_dir = bin_dir.join("postgres").canonicalize().ok()?.parent()?.to_path_buf();
        if !bin_dir.join("initdb").is_file() {
            return None;
        }
        let output = Command::new(bin_dir.join("postgres")).arg("--version").output().ok()?;
        let (major, version) = parse_version(&String::from_utf8_lossy(&output.stdout))?;
        (major >= OLDEST).then_some(Self { bin_dir, major, version })
    }

    /// One of the programs that come with the server.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.bin_dir.join(name)
    }
}

/// The binaries that will be used, and how they were come by.
#[derive(Debug, Clone)]
pub struct Choice {
    pub server: Server,
    /// One sentence for people: which PostgreSQL, and where it comes from.
    pub sentence: String,
}

/// Parses `postgres (PostgreSQL) 15.13 (Debian 15.13-0+deb12u1)`.
fn parse_version(text: &str) -> Option<(u32, String)> {
    let version = text.split_once("(PostgreSQL)")?.1.split_whitespace().next()?;
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    Some((digits.parse().ok()?, version.to_owned()))
}

/// All usable servers on this machine: those on PATH first, then by place, the newest major version first.
#[must_use]
pub fn installed() -> Vec<Server> {
    let account = Account::for_server().ok().flatten();
    let on_path: Vec<PathBuf> =
        std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default();
    let mut seen = BTreeSet::new();
    let mut usable = |dirs: Vec<PathBuf>| -> Vec<Server> {
        dirs.iter()
            .filter_map(|dir| Server::probe(dir))
            .filter(|server| account.is_none_or(|account| account.reaches(&server.bin_dir)))
            .filter(|server| seen.insert(server.bin_dir.clone()))
            .collect()
    };
    let mut found = usable(on_path);
    for (folder, prefix, suffix) in PLACES {
        let mut here = usable(folders_starting(Path::new(folder), prefix, suffix));
        here.sort_by_key(|server| std::cmp::Reverse(server.major));
        found.append(&mut here);
    }
    found
}

fn folders_starting(folder: &Path, prefix: &str, suffix: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(|name| name.starts_with(prefix)))
        .map(|entry| if suffix.is_empty() { entry.path() } else { entry.path().join(suffix) })
        .collect()
}

/// Finds server binaries, and installs them with the system's package manager if there are none and we are root.
/// `progress` is told before anything that takes long.
///
/// # Errors
/// [`Error::NotInstalled`] says what to install; [`Error::Install`] carries the package manager's words.
pub fn locate(progress: &dyn Fn(&str)) -> Result<Choice, Error> {
    if let Some(server) = installed().into_iter().next() {
        let sentence = format!("PostgreSQL {} from {}", server.version, server.bin_dir.display());
        return Ok(Choice { server, sentence });
    }
    let manager = install::run(progress)?;
    let server = installed().into_iter().next().ok_or_else(|| Error::NotInstalled {
        advice: format!("{manager} installed its package, but no `postgres` and `initdb` can be found after it"),
    })?;
    let sentence =
        format!("PostgreSQL {} from {}, just installed with {manager}", server.version, server.bin_dir.display());
    Ok(Choice { server, sentence })
}

/// Binaries for a data directory made by major version `wanted`.
pub(crate) fn locate_major(wanted: u32) -> Result<Choice, Vec<String>> {
    let all = installed();
    match all.iter().find(|server| server.major == wanted) {
        Some(server) => Ok(Choice {
            server: server.clone(),
            sentence: format!("PostgreSQL {} from {}", server.version, server.bin_dir.display()),
        }),
        None => Err(all.into_iter().map(|server| server.version).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_postgres_says() {
        let debian = "postgres (PostgreSQL) 15.13 (Debian 15.13-0+deb12u1)\n";
        assert_eq!(parse_version(debian), Some((15, "15.13".to_owned())));
        assert_eq!(parse_version("postgres (PostgreSQL) 19beta1\n"), Some((19, "19beta1".to_owned())));
        assert_eq!(parse_version("mysqld 8.0"), None);
    }

    #[test]
    fn a_folder_without_a_server_is_not_one() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Server::probe(dir.path()), None);
    }

    #[test]
    fn every_server_found_has_both_programs_and_is_listed_once() {
        let found = installed();
        let places: BTreeSet<_> = found.iter().map(|server| &server.bin_dir).collect();
        assert_eq!(places.len(), found.len());
        assert!(found.iter().all(|server| server.program("initdb").is_file() && server.program("postgres").is_file()));
    }
}
