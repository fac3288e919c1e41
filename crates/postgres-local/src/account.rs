//! The unprivileged account that the server runs as when we are root, and what that account can reach.
//!
//! Looks at mode bits only, not at access control lists: where those matter the answer is "not reachable", which
//! costs a data directory elsewhere and nothing else.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::error::Error;

/// A user of this machine, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Account {
    /// The account for the server: `None` when we are not root, since the server then runs as ourselves.
    ///
    /// # Errors
    /// [`Error::NoAccount`] when we are root and the machine has neither `postgres` nor `nobody`.
    pub(crate) fn for_server() -> Result<Option<Self>, Error> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        Self::named(&passwd, "postgres").or_else(|| Self::named(&passwd, "nobody")).map(Some).ok_or(Error::NoAccount)
    }

    fn named(passwd: &str, name: &str) -> Option<Self> {
        let line = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        let uid = fields.next()?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(Self { uid, gid })
    }

    /// Whether this account can enter `dir` and every directory above it. `dir` must be absolute and exist.
    pub(crate) fn reaches(self, dir: &Path) -> bool {
        dir.ancestors().all(|ancestor| {
            std::fs::metadata(ancestor).is_ok_and(|meta| {
                let mode = meta.permissions().mode();
                let shift = match () {
                    () if meta.uid() == self.uid => 6,
                    () if meta.gid() == self.gid => 3,
                    () => 0,
                };
                (mode >> shift) & 0o1 == 1
            })
        })
    }

    /// Makes `command` run as this account. The standard library drops root's supplementary groups with it.
    pub(crate) fn apply(self, command: &mut Command) {
        command.uid(self.uid).gid(self.gid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\npostgres:x:101:104:,,,:/var/lib/postgresql:/bin/bash\n";

    #[test]
    fn an_account_is_read_by_its_whole_name() {
        assert_eq!(Account::named(PASSWD, "postgres"), Some(Account { uid: 101, gid: 104 }));
        assert_eq!(Account::named(PASSWD, "post"), None);
    }

    #[test]
    fn a_private_parent_puts_a_directory_out_of_reach() {
        let top = tempfile::tempdir().unwrap();
        let inner = top.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        std::fs::set_permissions(&inner, Permissions::from_mode(0o755)).unwrap();
        let stranger = Account { uid: 4_000_001, gid: 4_000_001 };
        std::fs::set_permissions(top.path(), Permissions::from_mode(0o700)).unwrap();
        assert!(!stranger.reaches(&inner));
        std::fs::set_permissions(top.path(), Permissions::from_mode(0o711)).unwrap();
        assert!(stranger.reaches(&inner));
    }
}
