//! The supervisor of one replica: find or start its process, follow it to its end, back off, again.
//!
//! It must not decide whether the replica should run: that is its [`Goal`], which others set.

use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use modelyard_core::{ReplicaPhase, ReplicaStatus, Span, Timestamp, WorkloadId};
use rustix::process::Signal;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::lock::holder;
use crate::log;
use crate::probe;
use crate::process::WorkerProcess;
use crate::record::{replica_dir, workers_dir};
use crate::state::{Goal, Shared};
use crate::stop::drain;

/// The exit code of a worker that finds its directory locked by another.
const EXIT_LOCKED: i32 = 4;
/// How much of its log is shown as the reason of a worker's end, in characters.
const LAST_WORDS: usize = 300;
/// Before what failed for reasons of the machine (a full disk, no descriptors) is tried again.
const RETRY: Duration = Duration::from_secs(1);

pub(crate) struct Supervisor {
    shared: Arc<Shared>,
    id: WorkloadId,
    number: u32,
    dir: PathBuf,
    goal: watch::Receiver<Goal>,
}

/// How a process came to its end.
enum End {
    /// As it was told.
    Drained,
    /// Another worker has the directory.
    Twin,
    /// By itself, or because it hung.
    Failed { why: String, ready_for: Duration },
}

impl End {
    fn never_ready(why: String) -> Self {
        Self::Failed { why, ready_for: Duration::ZERO }
    }
}

impl Supervisor {
    pub(crate) fn new(shared: Arc<Shared>, id: WorkloadId, number: u32, goal: watch::Receiver<Goal>) -> Self {
        let dir = replica_dir(&workers_dir(&shared.config.state_dir), &id, number);
        Self { shared, id, number, dir, goal }
    }

    /// Ends when the replica is gone for good.
    pub(crate) async fn run(self) {
        let mut failures = 0;
        loop {
            let end = match WorkerProcess::find(&self.dir) {
                Ok(Some(process)) => self.follow(process).await,
                Ok(None) if *self.goal.borrow() == Goal::End => match self.retire().await {
                    true => return,
                    false => continue,
                },
                Ok(None) => {
                    self.shared.looked_at(&self.id, self.number);
                    self.start().await
                }
                Err(error) => self.trouble(format!("its lock cannot be looked at: {error}")).await,
            };
            match end {
                End::Twin => {}
                End::Drained => {
                    failures = 0;
                    self.report(|status| {
                        status.phase = ReplicaPhase::Starting;
                        status.endpoint = None;
                        status.message = None;
                    });
                }
                End::Failed { why, ready_for } => {
                    let forgiven = ready_for >= self.shared.config.backoff.reset_after;
                    failures = if forgiven { 1 } else { failures + 1 };
                    self.back_off(why, failures).await;
                }
            }
        }
    }

    /// What ends the round and may well fail again at once, also where no back-off is made.
    async fn trouble(&self, why: String) -> End {
        tracing::warn!(workload = %self.id, replica = self.number, why, "a replica cannot be supervised");
        self.shared.looked_at(&self.id, self.number);
        sleep(RETRY).await;
        End::never_ready(why)
    }

    async fn start(&self) -> End {
        let Some(workload) = self.shared.workload(&self.id) else { return End::Drained };
        let artifact = tokio::select! {
            path = self.shared.artifacts.local_path(&workload.digest) => path,
            () = self.told_to_end() => return End::Drained,
        };
        let started = match artifact {
            Ok(path) => WorkerProcess::start(&self.shared.config, &workload, &path, &self.dir)
                .map_err(|error| format!("its process cannot be started: {error}")),
            Err(error) => Err(format!("its artifact cannot be had: {error}")),
        };
        match started {
            Ok(process) => {
                tracing::info!(workload = %self.id, replica = self.number, pid = process.pid(), "started a worker");
                self.follow(process).await
            }
            Err(why) => End::never_ready(why),
        }
    }

    async fn follow(&self, mut process: WorkerProcess) -> End {
        let pid = process.pid();
        let mut ready_since = None;
        self.report(|status| {
            status.phase = ReplicaPhase::Starting;
            status.endpoint = None;
        });
        let outcome = tokio::select! {
            biased;
            exited = process.exited() => exited.map(|status| Err(how_it_ended(status))),
            () = self.told_to_end() => {
                self.shared.report(&self.id, self.number, |report| *report.ending = true);
                let kill_after = self.shared.config.drain_timeout + self.shared.config.kill_grace;
                self.shared.looked_at(&self.id, self.number);
                let drained = drain(&mut process, kill_after).await;
                self.shared.report(&self.id, self.number, |report| *report.ending = false);
                drained.map(Ok)
            }
            why = self.watch(pid, &mut ready_since) => match process.signal(Signal::KILL) {
                Ok(()) => process.exited().await.map(|_| Err(format!("was killed: {why}"))),
                Err(error) => Err(error),
            },
        };
        let ready_for = ready_since.map_or(Duration::ZERO, |since: Instant| since.elapsed());
        match outcome {
            Ok(Ok(())) => End::Drained,
            Ok(Err(how)) if how == locked_out() && matches!(holder(&self.dir), Ok(Some(_))) => End::Twin,
            Ok(Err(how)) => {
                let words = log::last_words(&self.dir, process.log_from, LAST_WORDS);
                let why = words.map_or(how.clone(), |words| format!("{how}: {words}"));
                tracing::warn!(workload = %self.id, replica = self.number, pid, why, "a worker ended");
                End::Failed { why, ready_for }
            }
            // The process may live: the next round looks.
            Err(error) => self.trouble(format!("it cannot be followed: {error}")).await,
        }
    }

    /// Probes for as long as the process is worth it; returns why it no longer is.
    async fn watch(&self, pid: u32, ready_since: &mut Option<Instant>) -> String {
        let probes = &self.shared.config.probes;
        let mut address: Option<SocketAddr> = None;
        let mut was_ready = false;
        let mut misses = 0;
        let mut unready_since = Instant::now();
        loop {
            address = address.or_else(|| probe::address(&self.dir, pid));
            let answer = match address {
                Some(address) => probe::ready(address, probes.timeout).await,
                None => Err("it does not listen yet".to_owned()),
            };
            match answer {
                Ok(()) => {
                    was_ready = true;
                    misses = 0;
                    ready_since.get_or_insert_with(Instant::now);
                    self.report(|status| {
                        status.phase = ReplicaPhase::Ready;
                        status.endpoint = address;
                        status.message = None;
                    });
                }
                Err(why) => {
                    misses += 1;
                    if !was_ready {
                        self.report(|status| {
                            status.endpoint = address;
                            // The reason of its last crash says more than that it starts.
                            if status.restarts == 0 {
                                status.message = Some(why.clone());
                            }
                        });
                    } else if misses >= probes.failures {
                        if ready_since.take().is_some() {
                            unready_since = Instant::now();
                        }
                        self.report(|status| {
                            status.phase = ReplicaPhase::NotReady;
                            status.message = Some(why.clone());
                        });
                    }
                    let patience = if was_ready { probes.hang_timeout } else { probes.start_timeout };
                    if ready_since.is_none() && unready_since.elapsed() > patience {
                        return format!("not ready for {} s: {why}", patience.as_secs_f32());
                    }
                }
            }
            self.shared.looked_at(&self.id, self.number);
            sleep(if was_ready { probes.interval } else { probes.starting_interval }).await;
        }
    }

    async fn back_off(&self, why: String, failures: u32) {
        let delay = self.shared.config.backoff.delay(failures);
        self.report(|status| {
            status.phase = ReplicaPhase::BackOff { until: later(delay) };
            status.endpoint = None;
            status.message = Some(why);
        });
        self.shared.looked_at(&self.id, self.number);
        tokio::select! {
            () = sleep(delay) => self.report(|status| {
                status.phase = ReplicaPhase::Starting;
                status.restarts += 1;
            }),
            () = self.told_to_end() => {}
        }
    }

    /// Whether the replica is gone; else it is wanted again.
    async fn retire(&self) -> bool {
        let (id, number) = (self.id.clone(), self.number);
        let gone = self.shared.with_records(move |shared, records| shared.retire(records, &id, number)).await;
        match gone {
            Ok(gone) => gone,
            Err(error) => {
                tracing::warn!(workload = %self.id, replica = self.number, %error, "an ended replica stays on disk");
                self.shared.looked_at(&self.id, self.number);
                sleep(RETRY).await;
                false
            }
        }
    }

    async fn told_to_end(&self) {
        let mut goal = self.goal.clone();
        if goal.wait_for(|goal| *goal == Goal::End).await.is_err() {
            // Supervision itself is over, which ends this task by other means.
            std::future::pending::<()>().await;
        }
    }

    fn report(&self, change: impl FnOnce(&mut ReplicaStatus)) {
        self.shared.report(&self.id, self.number, |report| change(report.status));
    }
}

fn how_it_ended(status: Option<ExitStatus>) -> String {
    match status.map(|status| (status.code(), status.signal())) {
        Some((Some(code), _)) => format!("exited with code {code}"),
        Some((None, Some(signal))) => format!("was killed by signal {signal}"),
        // Only the process that starts another learns its status.
        _ => "ended, how is not known".to_owned(),
    }
}

fn locked_out() -> String {
    format!("exited with code {EXIT_LOCKED}")
}

fn later(delay: Duration) -> Timestamp {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(now.as_millis()).unwrap_or(i64::MAX))
        + Span::from_millis(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX))
}
