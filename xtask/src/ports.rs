//! Says who holds a port that we need. Reads `/proc`; where it cannot be read, the answer is just "in use".

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use anyhow::{Context, Result, bail};

/// Fails, naming who holds it, if `address` cannot be listened on. `what` will listen there; `option` changes it.
pub(crate) fn check(address: SocketAddr, what: &str, option: &str) -> Result<()> {
    match TcpListener::bind(address) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            let by = holder(address.port()).map(|name| format!(" by {name}")).unwrap_or_default();
            bail!(
                "{address}, where the {what} should listen, is in use{by}: stop that, or choose another with {option}"
            )
        }
        Err(error) => Err(error).context(format!("the {what} cannot listen on {address} (see {option})")),
    }
}

/// A port of the loopback that nothing listens on right now.
pub(crate) fn free() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// The process that listens on a TCP port: "`name` (pid 12)".
pub(crate) fn holder(port: u16) -> Option<String> {
    let mut inodes = BTreeSet::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        inodes.extend(listeners(&std::fs::read_to_string(table).unwrap_or_default(), port));
    }
    for entry in std::fs::read_dir("/proc").ok()?.flatten() {
        // Other names (`self` among them) are no process ids.
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if holds(&entry.path(), &inodes) {
            let name = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            return Some(format!("`{}` (pid {pid})", name.trim()));
        }
    }
    None
}

/// The socket inodes that listen on `port`. A line of `/proc/net/tcp`: number, local address:port (hexadecimal), remote
/// address, state (0A is LISTEN), queues, timer, retransmits, uid, timeout, inode.
fn listeners(table: &str, port: u16) -> Vec<String> {
    let suffix = format!(":{port:04X}");
    table
        .lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let listens = fields.get(1)?.ends_with(&suffix) && *fields.get(3)? == "0A";
            listens.then(|| fields.get(9).map(|inode| format!("socket:[{inode}]")))?
        })
        .collect()
}

fn holds(process: &Path, sockets: &BTreeSet<String>) -> bool {
    let Ok(files) = std::fs::read_dir(process.join("fd")) else { return false };
    files.flatten().any(|file| {
        std::fs::read_link(file.path()).is_ok_and(|link| link.to_str().is_some_and(|name| sockets.contains(name)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_port_and_the_option_to_change_are_named() {
        let held = TcpListener::bind("127.0.0.1:0").unwrap();
        let error = check(held.local_addr().unwrap(), "gateway", "--gateway").unwrap_err().to_string();
        assert!(error.contains(&format!("(pid {})", std::process::id())), "{error}");
        assert!(error.contains("--gateway"), "{error}");
    }

    #[test]
    fn a_free_port_passes() {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        check(address, "gateway", "--gateway").unwrap();
    }
}
