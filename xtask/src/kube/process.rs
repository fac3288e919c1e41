//! The processes of a cluster. They outlive the command that started them: a pid file names each, and every command line
//! names the state directory, so that they are found even where a pid file is lost.

use std::fs::{self, OpenOptions};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::command::search_path;
use super::state::{State, write};
use crate::ports;

const POLL: Duration = Duration::from_millis(50);
const CONNECT_WITHIN: Duration = Duration::from_millis(500);
const TERM_WITHIN: Duration = Duration::from_secs(10);
const GONE_WITHIN: Duration = Duration::from_secs(10);
/// How much of a log is shown when its component fails to start.
const LAST_LINES: usize = 15;
/// Variables that would lead the components' connections to one another astray.
const PROXIES: [&str; 6] = ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"];

const KUBELETS: [&str; 6] = ["kubelet", "k0s", "k3s", "k3s-server", "k3s-agent", "rke2"];

/// One long-lived process of the cluster.
#[derive(Debug)]
pub(super) struct Component {
    /// For people, and for the names of the log and pid files: `apiserver`.
    pub(super) name: &'static str,
    pub(super) program: PathBuf,
    /// One of them names the state directory.
    pub(super) args: Vec<String>,
    pub(super) answers: Answers,
}

/// How it shows that it works.
#[derive(Debug, Clone)]
pub(super) enum Answers {
    /// It accepts connections.
    At(SocketAddr),
    /// It accepts connections on a socket in the file system.
    OnSocket(PathBuf),
    /// It stays.
    ByRunning,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition {
    Running(Pid),
    /// Stopped by a signal: it exists, but does nothing.
    Frozen(Pid),
    Gone,
}

impl Component {
    pub(super) fn condition(&self, state: &State) -> Condition {
        let pid = fs::read_to_string(state.pid_file(self.name)).ok().and_then(|text| text.trim().parse().ok());
        match pid.and_then(Pid::from_raw) {
            Some(pid) if names(pid, state.dir()) => match is_stopped(pid) {
                true => Condition::Frozen(pid),
                false => Condition::Running(pid),
            },
            _ => Condition::Gone,
        }
    }

    /// Whether it runs and answers.
    pub(super) fn works(&self, state: &State) -> bool {
        matches!(self.condition(state), Condition::Running(_)) && self.answers.now()
    }

    /// Lets it run: starts it, or wakes it. Returns whether there was anything to do; does not wait until it answers.
    pub(super) fn start(&self, state: &State) -> Result<bool> {
        match self.condition(state) {
            Condition::Running(_) => Ok(false),
            Condition::Frozen(pid) => {
                kill_process(pid, Signal::CONT).with_context(|| format!("cannot wake the {}", self.name))?;
                Ok(true)
            }
            Condition::Gone => self.spawn(state).map(|()| true),
        }
    }

    fn spawn(&self, state: &State) -> Result<()> {
        if let (Answers::At(address), true) = (&self.answers, self.answers.now()) {
            let by = ports::holder(address.port()).map(|name| format!(" by {name}")).unwrap_or_default();
            bail!("{address}, where the {} should listen, is in use{by}: stop that", self.name);
        }
        let path = state.log(self.name);
        let open = || OpenOptions::new().create(true).append(true).open(&path);
        let cannot_open = || format!("cannot open {}", path.display());
        let (log, errors) = (open().with_context(cannot_open)?, open().with_context(cannot_open)?);
        let mut command = Command::new(&self.program);
        // What reaches for the outside may need a proxy; what talks to its neighbours must not take one.
        for variable in PROXIES.iter().filter(|_| self.name != "containerd") {
            command.env_remove(variable);
        }
        let mut child = command
            .args(&self.args)
            .env("PATH", search_path(self.program.parent()))
            .current_dir(state.dir())
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            // Neither Ctrl-C nor the end of a terminal reaches it.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot run {}", self.program.display()))?;
        write(&state.pid_file(self.name), child.id().to_string())?;
        // For a moment, while the kernel replaces our image by its, it has no command line to be known by.
        let pid = Pid::from_child(&child);
        while words(pid).is_empty() && child.try_wait().context("cannot watch it start")?.is_none() {
            sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Waits until it answers; fails with the last lines of its log if it ends before, or takes too long.
    pub(super) fn wait(&self, state: &State, within: Duration) -> Result<()> {
        let deadline = Instant::now() + within;
        while !self.works(state) {
            let ended = self.condition(state) == Condition::Gone;
            if ended || Instant::now() > deadline {
                let how = if ended { "ended".to_owned() } else { format!("does not answer after {within:?}") };
                let log = state.log(self.name);
                bail!("the {} {how}; the end of {}:\n{}", self.name, log.display(), tail(&log));
            }
            sleep(POLL);
        }
        Ok(())
    }

    /// Ends it: asks first, unless it is frozen. Its pid file goes, too.
    pub(super) fn stop(&self, state: &State) -> Result<()> {
        if let Condition::Running(pid) = self.condition(state) {
            // It may have ended in between.
            let _ = kill_process(pid, Signal::TERM);
            let deadline = Instant::now() + TERM_WITHIN;
            while self.condition(state) != Condition::Gone && Instant::now() < deadline {
                sleep(POLL);
            }
        }
        self.kill(state)
    }

    /// Ends it without asking.
    pub(super) fn kill(&self, state: &State) -> Result<()> {
        if let Condition::Running(pid) | Condition::Frozen(pid) = self.condition(state) {
            end(&[pid]).with_context(|| format!("cannot end the {}", self.name))?;
        }
        remove_file(&state.pid_file(self.name))
    }

    /// Suspends it: it exists, but answers nothing.
    pub(super) fn freeze(&self, state: &State) -> Result<()> {
        match self.condition(state) {
            Condition::Running(pid) => {
                kill_process(pid, Signal::STOP).with_context(|| format!("cannot freeze the {}", self.name))?;
                while exists(pid) && !is_stopped(pid) {
                    sleep(POLL);
                }
                Ok(())
            }
            Condition::Frozen(_) => Ok(()),
            Condition::Gone => bail!("the {} does not run", self.name),
        }
    }
}

impl Answers {
    fn now(&self) -> bool {
        match self {
            Self::At(address) => TcpStream::connect_timeout(address, CONNECT_WITHIN).is_ok(),
            Self::OnSocket(path) => UnixStream::connect(path).is_ok(),
            Self::ByRunning => true,
        }
    }
}

/// Kills processes and waits until they are gone.
pub(super) fn end(pids: &[Pid]) -> Result<()> {
    for pid in pids {
        // Gone already is what we want.
        let _ = kill_process(*pid, Signal::KILL);
    }
    let deadline = Instant::now() + GONE_WITHIN;
    for pid in pids {
        while exists(*pid) {
            if Instant::now() > deadline {
                bail!("process {} does not end", pid.as_raw_nonzero());
            }
            sleep(POLL);
        }
    }
    Ok(())
}

/// All processes that run one of `programs` and name the state directory: ours, whoever lost their pid files.
pub(super) fn strays(state: &State, programs: &[&str]) -> Vec<Pid> {
    let runs = |pid: &Pid| program(*pid).is_some_and(|name| programs.contains(&name.as_str()));
    all().into_iter().filter(runs).filter(|pid| names(*pid, state.dir())).collect()
}

/// A kubelet that is not of this cluster, or a program that contains one, if there is such.
pub(super) fn foreign_kubelet(state: &State) -> Option<Pid> {
    let is_one = |pid: &Pid| program(*pid).is_some_and(|name| KUBELETS.contains(&name.as_str()));
    all().into_iter().filter(is_one).find(|pid| !names(*pid, state.dir()))
}

fn all() -> Vec<Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str().and_then(|name| name.parse().ok()));
    pids.filter_map(Pid::from_raw).filter(|pid| *pid != rustix::process::getpid()).collect()
}

/// The words of a command line. An ended process that nobody has waited for has none.
fn words(pid: Pid) -> Vec<Vec<u8>> {
    let line = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
    line.split(|byte| *byte == 0).filter(|word| !word.is_empty()).map(<[u8]>::to_vec).collect()
}

/// Whether a process of this cluster runs, and handles a signal. One that has not come so far yet dies of it.
pub(super) fn hears(pid: Pid, state: &State, signal: Signal) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap_or_default();
    names(pid, state.dir()) && catches(&status, signal)
}

/// Whether a signal is in the mask `SigCgt`: hexadecimal, signal 1 the lowest bit.
fn catches(status: &str, signal: Signal) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask & (1 << (signal.as_raw() - 1)) != 0
}

fn program(pid: Pid) -> Option<String> {
    let first = words(pid).into_iter().next()?;
    Some(Path::new(std::str::from_utf8(&first).ok()?).file_name()?.to_str()?.to_owned())
}

fn exists(pid: Pid) -> bool {
    !words(pid).is_empty()
}

/// Whether a word of its command line names `dir`, or something below it.
fn names(pid: Pid, dir: &Path) -> bool {
    let dir = dir.as_os_str().as_bytes();
    words(pid).iter().any(|word| mentions(word, dir))
}

/// Whether a word is or contains the path `dir`: `--data-dir=/x/etcd` mentions `/x`, but not `/x/et`.
fn mentions(word: &[u8], dir: &[u8]) -> bool {
    let ends = |start: usize| matches!(word.get(start + dir.len()), None | Some(b'/'));
    let starts = |start: usize| start == 0 || matches!(word[start - 1], b'=' | b':' | b'/');
    word.windows(dir.len()).enumerate().any(|(start, part)| part == dir && starts(start) && ends(start))
}

/// The state is the first letter after the program's name, which is in parentheses and may hold anything.
fn is_stopped(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
}

fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot delete {}", path.display()))
        }
        _ => Ok(()),
    }
}

pub(super) fn tail(log: &Path) -> String {
    let text = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_mentioned_as_a_whole_or_as_the_start_of_a_longer_one() {
        for word in ["/x/kube", "/x/kube/etcd", "--data-dir=/x/kube/etcd", "unix:///x/kube/run/s"] {
            assert!(mentions(word.as_bytes(), b"/x/kube"), "{word}");
        }
        for word in ["/x/kubernetes", "/y/x/kubes", "--dir=/x", ""] {
            assert!(!mentions(word.as_bytes(), b"/x/kube"), "{word}");
        }
    }

    #[test]
    fn a_signal_is_heard_once_there_is_a_handler() {
        let status = |mask: &str| format!("SigIgn:\tffffffffffffffff\nSigCgt:\t{mask}\nCapInh:\t0000000000000001\n");
        assert!(catches(&status("0000000000000001"), Signal::HUP));
        assert!(!catches(&status("0000000000004002"), Signal::HUP));
        assert!(catches(&status("0000000000004002"), Signal::TERM));
        assert!(!catches("", Signal::HUP), "it has ended");
    }

    #[test]
    fn a_component_is_started_frozen_woken_and_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::at(dir.path().join("kube"));
        state.create().unwrap();
        let component = Component {
            name: "sleeper",
            program: "sh".into(),
            args: vec!["-c".into(), "sleep 600".into(), state.text("x")],
            answers: Answers::ByRunning,
        };
        assert_eq!(component.condition(&state), Condition::Gone);
        assert!(component.start(&state).unwrap());
        component.wait(&state, Duration::from_secs(5)).unwrap();
        assert!(!component.start(&state).unwrap(), "it runs");
        component.freeze(&state).unwrap();
        assert!(!component.works(&state));
        assert!(component.start(&state).unwrap());
        component.wait(&state, Duration::from_secs(5)).unwrap();
        assert_eq!(strays(&state, &["sh"]).len(), 1);
        assert!(strays(&state, &["etcd"]).is_empty());
        component.stop(&state).unwrap();
        assert_eq!(component.condition(&state), Condition::Gone);
        assert!(!state.pid_file("sleeper").exists());
    }
}
