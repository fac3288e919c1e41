//! One worker process: started or adopted, followed to its end, signalled without ever hitting a stranger.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use modelyard_core::{Span, Workload};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::process::{Child, Command};

use crate::config::LocalConfig;
use crate::lock::holder;
use crate::log;

/// The variables that workers inherit: nothing of the control plane's secrets.
const INHERITED: [&str; 6] = ["PATH", "RUST_LOG", "HOME", "MODELYARD_ONNXRUNTIME", "ORT_DYLIB_PATH", "LD_LIBRARY_PATH"];

pub(crate) struct WorkerProcess {
    pid: Pid,
    /// Stays with the process when its pid is given to another.
    pidfd: AsyncFd<OwnedFd>,
    /// If this process started it, and so must reap it.
    child: Option<Child>,
    /// Where its part of the log begins, in bytes.
    pub(crate) log_from: u64,
}

impl WorkerProcess {
    /// The process that holds the lock of `dir`, if any.
    pub(crate) fn find(dir: &Path) -> io::Result<Option<Self>> {
        while let Some(pid) = holder(dir)? {
            match pidfd_open(pid, PidfdFlags::empty()) {
                // Had the holder ended before the pidfd was opened, the pid might be a stranger's by now.
                Ok(pidfd) if holder(dir)? == Some(pid) => {
                    return Ok(Some(Self { pid, pidfd: watch(pidfd)?, child: None, log_from: 0 }));
                }
                Ok(_) | Err(rustix::io::Errno::SRCH) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    /// Starts a worker in `dir`, which is made if need be.
    pub(crate) fn start(config: &LocalConfig, workload: &Workload, artifact: &Path, dir: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let (log, log_from) = log::open(dir)?;
        let drain = Span::from_millis(u64::try_from(config.drain_timeout.as_millis()).unwrap_or(u64::MAX));
        let batching = workload.batching.map(|batching| {
            let (size, delay) = (batching.max_batch_size.to_string(), batching.max_delay.to_string());
            ["--max-batch-size".to_owned(), size, "--max-batch-delay".to_owned(), delay]
        });
        let mut command = Command::new(&config.worker_binary);
        command
            .arg("serve")
            .arg("--instance-dir")
            .arg(dir)
            // Clients call deployments.
            .args(["--model-name", workload.deployment.as_str()])
            .args(["--model-version", workload.version.as_str()])
            .args(["--format", workload.format.as_str()])
            .arg("--artifact")
            .arg(artifact)
            .args(["--sha256", &workload.digest.to_string()])
            .args(["--listen", "127.0.0.1:0"])
            .args(["--drain-timeout", &drain.to_string()])
            .args(batching.iter().flatten())
            .args(workload.engine.flags().into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]))
            .args(&config.worker_args)
            .env_clear()
            .envs(INHERITED.iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
            .envs(config.worker_env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Neither a terminal's Ctrl-C nor the end of this process reaches it.
            .process_group(0)
            .kill_on_drop(false);
        let child = command.spawn()?;
        let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let pid = pid.ok_or_else(|| io::Error::other("it ended before it was looked at"))?;
        // Nobody has reaped it, so the pid is its own.
        let pidfd = watch(pidfd_open(pid, PidfdFlags::empty())?)?;
        Ok(Self { pid, pidfd, child: Some(child), log_from })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().cast_unsigned()
    }

    /// Waits for its end. The status is known only of processes that this one started.
    pub(crate) async fn exited(&mut self) -> io::Result<Option<ExitStatus>> {
        match &mut self.child {
            Some(child) => child.wait().await.map(Some),
            None => self.pidfd.readable().await.map(|_| None),
        }
    }

    /// A process that has ended takes any signal well.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        match pidfd_send_signal(self.pidfd.get_ref(), signal) {
            Err(rustix::io::Errno::SRCH) | Ok(()) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

#[expect(deprecated, reason = "its successor is unsafe; an OwnedFd keeps the promise that one asks for")]
fn watch(pidfd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(pidfd, Interest::READABLE)
}
