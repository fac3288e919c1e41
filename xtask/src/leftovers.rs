//! The state directory's lock, and the processes that an `up` left behind when it was killed.
//!
//! Only processes that our own pid files name *and* whose command line names this state directory are ended.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

use crate::console::Console;

const TERM_WITHIN: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(50);

/// Held while a stack runs on a state directory.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock of a state directory, or fails with the process id of who has it.
    pub(crate) fn take(state_dir: &Path) -> Result<Self> {
        let path = state_dir.join("up.lock");
        let open = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
        let mut file = open.with_context(|| format!("cannot open {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                file.read_to_string(&mut pid).with_context(|| format!("cannot read {}", path.display()))?;
                bail!(
                    "{} is in use by `up`, pid {}: stop that one, or choose another with --state-dir",
                    state_dir.display(),
                    pid.trim()
                );
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self { _file: file })
    }
}

/// The file in which a running service's process id is kept.
pub(crate) fn pid_file(state_dir: &Path, service: &str) -> PathBuf {
    state_dir.join("run").join(format!("{service}.pid"))
}

/// Ends what an earlier `up` on this state directory, killed before it could, left running. The caller holds the lock.
pub(crate) async fn end(state_dir: &Path, service: &str, console: Console) -> Result<()> {
    let file = pid_file(state_dir, service);
    let Some(pid) = std::fs::read_to_string(&file).ok().and_then(|text| Pid::from_raw(text.trim().parse().ok()?))
    else {
        return Ok(());
    };
    if is_ours(pid, state_dir) {
        console
            .say(format_args!("ending the {service} (pid {}) that a killed `up` left running", pid.as_raw_nonzero()));
        for (signal, within) in [(Signal::TERM, TERM_WITHIN), (Signal::KILL, TERM_WITHIN)] {
            // Gone in between is what we want.
            let _ = kill_process(pid, signal);
            let deadline = Instant::now() + within;
            while is_ours(pid, state_dir) && Instant::now() < deadline {
                sleep(POLL).await;
            }
        }
        if is_ours(pid, state_dir) {
            bail!("the {service} (pid {}) left by a killed `up` does not end", pid.as_raw_nonzero());
        }
    }
    std::fs::remove_file(&file).with_context(|| format!("cannot delete {}", file.display()))
}

/// Whether `pid` runs a program that was told to work in `state_dir`. An ended process has no command line.
fn is_ours(pid: Pid, state_dir: &Path) -> bool {
    let Ok(line) = std::fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())) else { return false };
    let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
    words.windows(2).any(|pair| {
        let dir = Path::new(std::ffi::OsStr::new(std::str::from_utf8(pair[1]).unwrap_or_default()));
        pair[0] == b"--state-dir" && dir.starts_with(state_dir)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_second_lock_names_the_first_holder() {
        let dir = tempfile::tempdir().unwrap();
        let _first = Lock::take(dir.path()).unwrap();
        let error = Lock::take(dir.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("in use by `up`, pid {}", std::process::id())), "{error}");
    }

    #[tokio::test]
    async fn a_process_of_this_state_directory_is_ended_and_a_stranger_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("run")).unwrap();
        let spawn = |state_dir: &Path| {
            Command::new("sh")
                .args(["-c", "read line", "sh", "--state-dir"])
                .arg(state_dir)
                .stdin(std::process::Stdio::piped())
                .spawn()
                .unwrap()
        };
        let (mut ours, mut stranger) = (spawn(dir.path()), spawn(Path::new("/elsewhere")));
        for (name, child) in [("ours", &ours), ("stranger", &stranger)] {
            std::fs::write(pid_file(dir.path(), name), child.id().to_string()).unwrap();
            end(dir.path(), name, Console::new(true)).await.unwrap();
            assert!(!pid_file(dir.path(), name).exists());
        }
        assert!(!ours.wait().unwrap().success(), "ended by a signal");
        assert!(stranger.try_wait().unwrap().is_none(), "still runs");
        drop(stranger.stdin.take());
        stranger.wait().unwrap();
    }
}
