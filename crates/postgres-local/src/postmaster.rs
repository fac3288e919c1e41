//! Reads `postmaster.pid`, the file in which a running server says who and where it is, and signals that process.

use std::path::Path;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

/// A server that runs on a data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Postmaster {
    pub(crate) pid: Pid,
    pub(crate) port: u16,
}

impl Postmaster {
    /// The live server of `data`, if there is one. A file left behind by a crash names a process that is gone, or
    /// whose number has since been given to a stranger.
    pub(crate) fn of(data: &Path) -> Option<Self> {
        let text = std::fs::read_to_string(data.join("postmaster.pid")).ok()?;
        let found = Self::parse(&text)?;
        (is_alive(found.pid) && runs_on(found.pid, data)).then_some(found)
    }

    /// Line 1 is the process id, line 4 the port (`src/include/utils/pidfile.h`). A server that is just starting has
    /// not written its port yet, which counts as 0.
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let pid = Pid::from_raw(lines.next()?.trim().parse().ok()?)?;
        let port = lines.nth(2).and_then(|line| line.trim().parse().ok()).unwrap_or(0);
        Some(Self { pid, port })
    }
}

/// Whether a process of that number runs. One that has ended and waits to be reaped does not: in a container nobody
/// may ever reap it.
pub(crate) fn is_alive(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    // The state follows the program's name, which stands in parentheses and may contain anything.
    if stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z')) {
        return false;
    }
    // Not being allowed to signal it means that it exists.
    !matches!(test_kill_process(pid), Err(Errno::SRCH))
}

/// Sends a signal; a process that is already gone is fine.
pub(crate) fn signal(pid: Pid, signal: Signal) -> Result<(), Errno> {
    match kill_process(pid, signal) {
        Err(Errno::SRCH) => Ok(()),
        other => other,
    }
}

/// Whether the command line of `pid` names `data`. Where it cannot be read the answer is yes, the cautious one.
fn runs_on(pid: Pid, data: &Path) -> bool {
    let Ok(line) = std::fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())) else { return true };
    line.split(|byte| *byte == 0).any(|word| word == data.as_os_str().as_encoded_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pid_and_port_are_read() {
        let text = "4711\n/data\n1795500000\n5433\n\n127.0.0.1\n  1 2\nready   \n";
        let read = Postmaster::parse(text).unwrap();
        assert_eq!((read.pid.as_raw_nonzero().get(), read.port), (4711, 5433));
        assert_eq!(Postmaster::parse("4711\n").unwrap().port, 0);
        assert_eq!(Postmaster::parse(""), None);
    }

    #[test]
    fn a_file_that_names_a_stranger_is_stale() {
        let dir = tempfile::tempdir().unwrap();
        // This very process is alive, but its command line does not name the data directory.
        let ours = format!("{}\n/data\n0\n5433\n", std::process::id());
        std::fs::write(dir.path().join("postmaster.pid"), ours).unwrap();
        assert_eq!(Postmaster::of(dir.path()), None);
    }
}
