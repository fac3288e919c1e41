//! One supervised child process: started, started again when it dies, ended on request.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval, timeout};

use crate::console::Console;
use crate::leftovers;

const TERM_WITHIN: Duration = Duration::from_secs(15);
const READY_WITHIN: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);
const FIRST_DELAY: Duration = Duration::from_millis(500);
const LONGEST_DELAY: Duration = Duration::from_secs(10);
/// A child that ran this long is taken to have been healthy: its delay starts anew.
const HEALTHY_AFTER: Duration = Duration::from_secs(30);
/// How much of a log is shown when its service fails to start.
const LAST_LINES: usize = 15;

/// What to run.
#[derive(Debug)]
pub(crate) struct Spec {
    /// For people, and for the names of the log and pid files: `gateway`.
    pub(crate) name: &'static str,
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<OsString>,
    pub(crate) state_dir: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// With its process id.
    Running(u32),
    /// It ended, or could not be started, for this reason.
    Down(String),
}

/// A child process and the task that watches over it.
#[derive(Debug)]
pub(crate) struct Service {
    name: &'static str,
    log: PathBuf,
    state: watch::Receiver<State>,
    was_ready: Arc<AtomicBool>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Service {
    /// Starts the process and its supervision. Until it was ready once, it is not started again when it ends.
    pub(crate) fn start(spec: Spec, console: Console) -> Result<Self> {
        for dir in [spec.state_dir.join("logs"), spec.state_dir.join("run")] {
            std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        }
        let child = spec.spawn()?;
        let (tell, state) = watch::channel(running(&child));
        let (stop, stopped) = watch::channel(false);
        let was_ready = Arc::new(AtomicBool::new(false));
        let (name, log) = (spec.name, spec.log());
        let task = tokio::spawn(supervise(spec, child, tell, stopped, Arc::clone(&was_ready), console));
        Ok(Self { name, log, state, was_ready, stop, task })
    }

    /// Waits until `GET url` answers 2xx; fails with the last lines of its log if the process ends before.
    pub(crate) async fn ready(&mut self, http: &reqwest::Client, url: &str) -> Result<()> {
        let answers = async {
            let mut tick = interval(POLL);
            loop {
                tick.tick().await;
                if http.get(url).send().await.is_ok_and(|answer| answer.status().is_success()) {
                    return;
                }
            }
        };
        let (name, log) = (self.name, &self.log);
        tokio::select! {
            ended = self.state.wait_for(|state| matches!(state, State::Down(_))) => {
                let why = match ended.as_deref() {
                    Ok(State::Down(why)) => why.clone(),
                    _ => "it was stopped".to_owned(),
                };
                bail!("the {name} ended before it was ready ({why}); its last words ({}):\n{}", log.display(), tail(log))
            }
            answered = timeout(READY_WITHIN, answers) => {
                let late = || format!("the {name} was not ready after {} s ({url}); its last words ({}):\n{}",
                    READY_WITHIN.as_secs(), log.display(), tail(log));
                answered.with_context(late)?;
            }
        }
        self.was_ready.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// The process id, while it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        match *self.state.borrow() {
            State::Running(pid) => Some(pid),
            State::Down(_) => None,
        }
    }

    /// Ends the process (SIGTERM; SIGKILL after 15 s) and waits for it.
    pub(crate) async fn stop(self) {
        self.stop.send_replace(true);
        // The task cannot be cancelled, and a panic in it has been reported by the runtime.
        let _ = self.task.await;
    }
}

impl Spec {
    fn log(&self) -> PathBuf {
        self.state_dir.join("logs").join(format!("{}.log", self.name))
    }

    fn spawn(&self) -> Result<Child> {
        let path = self.log();
        let log = OpenOptions::new().create(true).append(true).open(&path);
        let log = log.with_context(|| format!("cannot open {}", path.display()))?;
        let errors = log.try_clone().with_context(|| format!("cannot open {}", path.display()))?;
        let child = Command::new(&self.program)
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            // A terminal's Ctrl-C reaches us only: we end the services in their order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot run {}", self.program.display()))?;
        let file = leftovers::pid_file(&self.state_dir, self.name);
        std::fs::write(&file, child.id().unwrap_or_default().to_string())
            .with_context(|| format!("cannot write {}", file.display()))?;
        Ok(child)
    }
}

fn running(child: &Child) -> State {
    child.id().map_or_else(|| State::Down("it ended at once".to_owned()), State::Running)
}

async fn supervise(
    spec: Spec,
    child: Child,
    state: watch::Sender<State>,
    mut stopped: watch::Receiver<bool>,
    was_ready: Arc<AtomicBool>,
    console: Console,
) {
    let mut spawned = Ok(child);
    let mut delay = FIRST_DELAY;
    loop {
        let since = Instant::now();
        let why = match spawned {
            Ok(mut child) => {
                state.send_replace(running(&child));
                tokio::select! {
                    status = child.wait() => status.map_or_else(|error| error.to_string(), |status| status.to_string()),
                    () = told(&mut stopped) => {
                        end(&mut child, spec.name, console).await;
                        break;
                    }
                }
            }
            Err(error) => format!("{error:#}"),
        };
        state.send_replace(State::Down(why.clone()));
        if !was_ready.load(Ordering::Relaxed) {
            break;
        }
        if since.elapsed() > HEALTHY_AFTER {
            delay = FIRST_DELAY;
        }
        console.say(format_args!("the {} ended ({why}); starting it again in {} ms", spec.name, delay.as_millis()));
        if timeout(delay, told(&mut stopped)).await.is_ok() {
            break;
        }
        delay = (delay * 2).min(LONGEST_DELAY);
        spawned = spec.spawn();
    }
    // If this fails, the next `up` finds a pid file whose process is gone.
    let _ = std::fs::remove_file(leftovers::pid_file(&spec.state_dir, spec.name));
}

/// Waits to be told to stop; that nobody can tell any more counts as being told.
async fn told(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn end(child: &mut Child, name: &str, console: Console) {
    if let Some(pid) = child.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
        // It may have ended in between.
        let _ = kill_process(pid, Signal::TERM);
    }
    if timeout(TERM_WITHIN, child.wait()).await.is_err() {
        console.say(format_args!("the {name} did not end within {} s: killing it", TERM_WITHIN.as_secs()));
        let _ = child.kill().await;
    }
}

fn tail(log: &Path) -> String {
    let text = std::fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
}
