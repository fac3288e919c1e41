//! What every runtime must do, as tests that run on any of them.
//!
//! An implementor writes a [`Harness`] and calls [`conformance_suite!`](crate::conformance_suite) with it. The cases
//! must not know how workers are run; they see a runtime through its trait, and the world through the harness.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use modelyard_core::{BackendId, Epoch, Observed, ReplicaPhase, ReplicaStatus, Workload, WorkloadId, WorkloadStatus};
use tokio::time::{Instant, timeout_at};

use crate::{Runtime, RuntimeError};

/// How a workload of a case behaves once it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// It becomes ready and answers.
    Serves,
    /// It ends by itself, before it is ready, after it has logged why.
    CrashesAtStart,
}

/// The world around a runtime under test. Dropping it must leave no worker behind, also after a panic; it outlives
/// the async runtime that the case ran on.
#[async_trait]
pub trait Harness: Sized + Send {
    /// A runtime that has never been asked for anything.
    async fn fresh() -> Self;

    fn runtime(&self) -> Arc<dyn Runtime>;

    /// Lets the process that holds the runtime die, as far as can be had, and another one take its place.
    async fn reopen(&mut self);

    /// A workload of `replicas` that nobody has asked for yet; the same behaviour always gives the same id.
    async fn workload(&self, behaviour: Behaviour, replicas: u32) -> Workload;

    /// Ends a replica without warning.
    async fn kill(&self, id: &WorkloadId, replica: &BackendId);

    /// Names every worker of that workload that is alive, wanted or not; no name is ever used again.
    async fn alive(&self, id: &WorkloadId) -> Vec<String>;

    /// Whether a worker at `endpoint` answers, else why not.
    async fn answers(&self, endpoint: SocketAddr) -> Result<(), String>;

    /// How long to wait for what must happen.
    fn patience(&self) -> Duration {
        Duration::from_secs(60)
    }
}

/// Makes a test of each case, run on the harness type that is named.
#[macro_export]
macro_rules! conformance_suite {
    ($harness:ty) => {
        $crate::conformance_suite! { @ $harness:
            nothing_runs_at_first
            a_wanted_workload_becomes_ready_and_answers
            asking_twice_changes_nothing
            it_scales_up_and_down
            removal_drains_and_ends_in_absence
            removing_what_is_absent_is_fine
            what_was_removed_can_be_wanted_again
            what_is_being_removed_can_be_wanted_again
            an_older_epoch_is_refused
            an_older_epoch_is_refused_by_the_next_process_too
            the_next_process_adopts_what_runs
            the_next_process_completes_a_removal
            a_killed_replica_is_started_again_and_counted
            a_crash_loop_backs_off_and_says_why
            a_crash_loop_can_be_removed
            changes_are_announced
            logs_are_kept
        }
    };
    (@ $harness:ty: $($case:ident)*) => {
        $(
            #[test]
            fn $case() {
                $crate::conformance::run::<$harness>($crate::conformance::$case);
            }
        )*
    };
}

/// Runs one case on a harness and an async runtime of its own.
pub fn run<H: Harness>(case: impl AsyncFnOnce(&mut H)) {
    // Dropped last: what the harness cleans up must not be started again by tasks of the case.
    let mut harness = None;
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let tokio = tokio.expect("a test can have threads");
    tokio.block_on(async { case(harness.insert(H::fresh().await)).await });
}

const FIRST: Epoch = Epoch(1);
const SECOND: Epoch = Epoch(2);

pub async fn nothing_runs_at_first<H: Harness>(h: &mut H) {
    let workload = h.workload(Behaviour::Serves, 1).await;
    assert_eq!(look(h, &workload.id).await, Observed::Absent);
    assert_eq!(h.alive(&workload.id).await, [""; 0]);
}

pub async fn a_wanted_workload_becomes_ready_and_answers<H: Harness>(h: &mut H) {
    let workload = h.workload(Behaviour::Serves, 2).await;
    ensure(h, &workload, FIRST).await;
    let at_once = look(h, &workload.id).await;
    let known = at_once.known().expect("a wish that was accepted is observed");
    assert_eq!((&known.workload, known.epoch), (&workload, FIRST));

    let status = all_ready(h, &workload).await;
    assert_eq!((&status.workload, status.epoch), (&workload, FIRST));
    assert!(status.replicas.iter().all(|r| r.restarts == 0 && r.message.is_none()), "{status:?}");
    let ids: Vec<_> = status.replicas.iter().map(|r| r.id.clone()).collect();
    assert!(ids.is_sorted() && ids[0] != ids[1], "{ids:?}");
    all_answer(h, &status).await;
    assert_eq!(h.alive(&workload.id).await.len(), 2);
}

pub async fn asking_twice_changes_nothing<H: Harness>(h: &mut H) {
    let workload = h.workload(Behaviour::Serves, 1).await;
    ensure(h, &workload, FIRST).await;
    let status = all_ready(h, &workload).await;
    let alive = h.alive(&workload.id).await;

    ensure(h, &workload, FIRST).await;
    assert_eq!(look(h, &workload.id).await, Observed::Known(status.clone()));

    // A later epoch takes over what runs, as it is.
    ensure(h, &workload, SECOND).await;
    let taken = until(h, &workload.id, "the later epoch", |seen| known_and(seen, |s| s.epoch == SECOND)).await;
    assert_eq!(taken.known().map(|s| &s.replicas), Some(&status.replicas));
    assert_eq!(h.alive(&workload.id).await, alive);
}

pub async fn it_scales_up_and_down<H: Harness>(h: &mut H) {
    let one = h.workload(Behaviour::Serves, 1).await;
    let three = Workload { replicas: 3, ..one.clone() };
    ensure(h, &one, FIRST).await;
    all_ready(h, &one).await;
    let first = h.alive(&one.id).await;

    ensure(h, &three, FIRST).await;
    let status = all_ready(h, &three).await;
    all_answer(h, &status).await;
    let alive = h.alive(&one.id).await;
    assert!(alive.len() == 3 && alive.contains(&first[0]), "{first:?} must be among {alive:?}");

    ensure(h, &one, FIRST).await;
    let status = all_ready(h, &one).await;
    all_answer(h, &status).await;
    assert_eq!(h.alive(&one.id).await.len(), 1);

    let none = Workload { replicas: 0, ..one };
    ensure(h, &none, FIRST).await;
    all_ready(h, &none).await;
    assert_eq!(h.alive(&none.id).await, [""; 0]);
}

pub async fn removal_drains_and_ends_in_absence<H: Harness>(h: &mut H) {
    let workload = h.workload(Behaviour::Serves, 2).await;
    ensure(h, &workload, FIRST).await;
    all_ready(h, &workload).await;
    remove(h, &workload.id, FIRST).await;
    let seen = look(h, &workload.id).await;
    let draining = |status: &WorkloadStatus| status.replicas.iter().all(|r| r.phase == ReplicaPhase::Draining);
    assert!(seen == Observed::Absent || known_and(&seen, draining), "no traffic for what is leaving: {seen:?}");
    absent(h, &workload.id).await;
}

pub async fn removing_what_is_absent_is_fine<H: Harness>(h: &mut H) {
    let workload = h.workload(Behaviour::Serves, 1).await;
    remove(h, &workload.id, FIRST).await;
    assert_eq!(look(h, &workload.id).await, Observed::Absent);

    let none = Workload { replicas: 0, ..workload };
    ensure(h, &none, FIRST).await;
    remove(h, &none.id, FIRST).await;
    absent(h, &none.id).await;
    remove(h, &none.id, FIRST).await;
    assert_eq!(look(h, &none.id).await, Observed::Absent);
}

pub async fn what_was_removed_can_be_wanted_again<H: Harness>(h: &mut H) {
    let workload = h.workload(Behaviour::Serves, 1).await;
    for _ in 0..2 {
        ensure(h, &workload, FIRST).await;
        let status = all_ready(h, &workload).await;
        all_answer(h, &status).await;
        remove(h, &workload.id, FIRST).await;
        absent(h, &workload.id).await;
    }
}

pub async fn what_is_being_removed_can_be_wanted_again<H: Harness>(h: &mut H) {
    let workload = h.workload(Behaviour::Serves, 2).await;
    ensure(h, &workload, FIRST).await;
    all_ready(h, &workload).await;
    for _ in 0..5 {
        remove(h, &workload.id, FIRST).await;
        ensure(h, &workload, FIRST).await;
    }
    // Whether the old workers stay or new ones come, the end is the same.
    let deadline = Instant::now() + h.patience();
    loop {
        let status = all_ready(h, &workload).await;
        let mut works = h.alive(&workload.id).await.len() == 2;
        for replica in &status.replicas {
            works &= match replica.endpoint {
                Some(endpoint) => h.answers(endpoint).await.is_ok(),
                None => false,
            };
        }
        if works {
            break;
        }
        assert!(Instant::now() < deadline, "it does not settle: {status:?}");
        tokio::task::yield_now().await;
    }
}

pub async fn an_older_epoch_is_refused<H: Harness>(h: &mut H) {
    let workload = h.workload(Behaviour::Serves, 1).await;
    ensure(h, &workload, SECOND).await;
    let status = all_ready(h, &workload).await;
    refuses_the_first_epoch(h, &workload).await;
    assert_eq!(look(h, &workload.id).await, Observed::Known(status));
}

pub async fn an_older_epoch_is_refused_by_the_next_process_too<H: Harness>(h: &mut H) {
    let workload = h.workload(Behaviour::Serves, 1).await;
    ensure(h, &workload, SECOND).await;
    all_ready(h, &workload).await;
    h.reopen().await;
    refuses_the_first_epoch(h, &workload).await;
    // Also where nothing is left that could carry the epoch.
    remove(h, &workload.id, SECOND).await;
    absent(h, &workload.id).await;
    h.reopen().await;
    refuses_the_first_epoch(h, &workload).await;
    assert_eq!(look(h, &workload.id).await, Observed::Absent);
}

pub async fn the_next_process_adopts_what_runs<H: Harness>(h: &mut H) {
    let workload = h.workload(Behaviour::Serves, 2).await;
    ensure(h, &workload, FIRST).await;
    let status = all_ready(h, &workload).await;
    let alive = h.alive(&workload.id).await;

    h.reopen().await;
    // Not eventually: traffic follows each observation.
    assert_eq!(look(h, &workload.id).await, Observed::Known(status.clone()));
    ensure(h, &workload, SECOND).await;
    let adopted = all_ready(h, &workload).await;
    assert_eq!((adopted.epoch, &adopted.replicas), (SECOND, &status.replicas));
    assert_eq!(h.alive(&workload.id).await, alive);

    // What is adopted is also watched.
    let replica = &status.replicas[0].id;
    h.kill(&workload.id, replica).await;
    restarted(h, &workload, replica).await;
}

pub async fn the_next_process_completes_a_removal<H: Harness>(h: &mut H) {
    let workload = h.workload(Behaviour::Serves, 2).await;
    ensure(h, &workload, FIRST).await;
    all_ready(h, &workload).await;
    remove(h, &workload.id, FIRST).await;
    h.reopen().await;
    absent(h, &workload.id).await;
}

pub async fn a_killed_replica_is_started_again_and_counted<H: Harness>(h: &mut H) {
    let workload = h.workload(Behaviour::Serves, 2).await;
    ensure(h, &workload, FIRST).await;
    let before = all_ready(h, &workload).await;
    let replica = &before.replicas[1].id;
    h.kill(&workload.id, replica).await;
    let after = restarted(h, &workload, replica).await;
    all_answer(h, &after).await;
    assert_eq!(h.alive(&workload.id).await.len(), 2);
    assert_eq!(after.replicas[0], before.replicas[0], "the other replica is left alone");
}

pub async fn a_crash_loop_backs_off_and_says_why<H: Harness>(h: &mut H) {
    let workload = h.workload(Behaviour::CrashesAtStart, 1).await;
    ensure(h, &workload, FIRST).await;
    for restarts in 0..2 {
        until(h, &workload.id, "a back-off with its reason", |seen| {
            assert!(seen.known().is_none_or(|s| s.ready().next().is_none()), "never ready: {seen:?}");
            only_replica(seen, |r| {
                let waits = matches!(r.phase, ReplicaPhase::BackOff { .. });
                waits && r.restarts >= restarts && r.message.as_ref().is_some_and(|m| !m.is_empty())
            })
        })
        .await;
    }
}

pub async fn a_crash_loop_can_be_removed<H: Harness>(h: &mut H) {
    let workload = h.workload(Behaviour::CrashesAtStart, 2).await;
    ensure(h, &workload, FIRST).await;
    let crashed = |s: &WorkloadStatus| s.replicas.iter().all(|r| matches!(r.phase, ReplicaPhase::BackOff { .. }));
    until(h, &workload.id, "a back-off", |seen| known_and(seen, crashed)).await;
    remove(h, &workload.id, FIRST).await;
    absent(h, &workload.id).await;
}

pub async fn changes_are_announced<H: Harness>(h: &mut H) {
    let workload = h.workload(Behaviour::Serves, 1).await;
    let mut changes = h.runtime().changes();
    changes.mark_unchanged();
    let deadline = Instant::now() + h.patience();
    let mut announced = async |what: &str| {
        let told = timeout_at(deadline, changes.changed()).await;
        told.unwrap_or_else(|_| panic!("{what} is not announced")).expect("the runtime lives");
    };
    ensure(h, &workload, FIRST).await;
    announced("a new workload").await;
    // A reader that looks at each announcement, and never else, sees it become ready.
    while !is_ready(&look(h, &workload.id).await, &workload) {
        announced("readiness").await;
    }
    remove(h, &workload.id, FIRST).await;
    while look(h, &workload.id).await != Observed::Absent {
        announced("the end").await;
    }
}

pub async fn logs_are_kept<H: Harness>(h: &mut H) {
    let workload = h.workload(Behaviour::CrashesAtStart, 1).await;
    ensure(h, &workload, FIRST).await;
    let crashed_again = |seen: &Observed<WorkloadStatus>| {
        only_replica(seen, |r| matches!(r.phase, ReplicaPhase::BackOff { .. }) && r.restarts >= 1)
    };
    let seen = until(h, &workload.id, "a second crash", crashed_again).await;
    let replica = seen.known().map(|s| s.replicas[0].id.clone()).expect("it was just seen");
    let runtime = h.runtime();
    let all = runtime.logs(&workload.id, &replica, 1_000).await.expect("the logs of a known replica");
    assert!(!all.trim().is_empty(), "a crash says why");
    let last = runtime.logs(&workload.id, &replica, 1).await.expect("the logs of a known replica");
    assert_eq!(last.lines().count(), 1);

    let nobody: BackendId = "nobody".parse().expect("a fine name");
    let refused = runtime.logs(&workload.id, &nobody, 1).await;
    assert!(matches!(refused, Err(RuntimeError::NotFound(_))), "{refused:?}");
    let other = h.workload(Behaviour::Serves, 1).await.id;
    let refused = runtime.logs(&other, &replica, 1).await;
    assert!(matches!(refused, Err(RuntimeError::NotFound(_))), "{refused:?}");
}

async fn ensure<H: Harness>(h: &H, workload: &Workload, epoch: Epoch) {
    h.runtime().ensure(workload, epoch).await.expect("the wish is accepted");
}

async fn remove<H: Harness>(h: &H, id: &WorkloadId, epoch: Epoch) {
    h.runtime().remove(id, epoch).await.expect("the removal is accepted");
}

async fn look<H: Harness>(h: &H, id: &WorkloadId) -> Observed<WorkloadStatus> {
    h.runtime().observe().await.expect("the runtime answers").of(id).clone()
}

/// Waits, by the runtime's own announcements, until the workload looks as it should.
async fn until<H: Harness>(
    h: &H,
    id: &WorkloadId,
    what: &str,
    mut fits: impl FnMut(&Observed<WorkloadStatus>) -> bool,
) -> Observed<WorkloadStatus> {
    let deadline = Instant::now() + h.patience();
    let mut changes = h.runtime().changes();
    loop {
        changes.mark_unchanged();
        let seen = look(h, id).await;
        if fits(&seen) {
            return seen;
        }
        let told = timeout_at(deadline, changes.changed()).await;
        told.unwrap_or_else(|_| panic!("waited in vain for {what}; last seen: {seen:#?}")).expect("the runtime lives");
    }
}

async fn all_ready<H: Harness>(h: &H, workload: &Workload) -> WorkloadStatus {
    let what = format!("{} ready replicas, and no others", workload.replicas);
    match until(h, &workload.id, &what, |seen| is_ready(seen, workload)).await {
        Observed::Known(status) => status,
        other => unreachable!("{other:?} is not ready"),
    }
}

async fn absent<H: Harness>(h: &H, id: &WorkloadId) {
    until(h, id, "absence", |seen| *seen == Observed::Absent).await;
    assert_eq!(h.alive(id).await, [""; 0], "nothing runs that is not observed");
}

async fn restarted<H: Harness>(h: &H, workload: &Workload, replica: &BackendId) -> WorkloadStatus {
    let again = |r: &ReplicaStatus| r.id != *replica || r.restarts == 1;
    let fits =
        |seen: &Observed<WorkloadStatus>| is_ready(seen, workload) && known_and(seen, |s| s.replicas.iter().all(again));
    match until(h, &workload.id, "a counted restart", fits).await {
        Observed::Known(status) => status,
        other => unreachable!("{other:?} is not ready"),
    }
}

async fn all_answer<H: Harness>(h: &H, status: &WorkloadStatus) {
    for (id, endpoint) in status.ready() {
        h.answers(endpoint).await.unwrap_or_else(|why| panic!("ready replica {id} does not answer: {why}"));
    }
}

async fn refuses_the_first_epoch<H: Harness>(h: &H, workload: &Workload) {
    let more = Workload { replicas: workload.replicas + 1, ..workload.clone() };
    let refused = [h.runtime().ensure(&more, FIRST).await, h.runtime().remove(&workload.id, FIRST).await];
    for refused in refused {
        let fenced = matches!(refused, Err(RuntimeError::Fenced { given: FIRST, seen: SECOND }));
        assert!(fenced, "{refused:?}");
    }
}

fn known_and(seen: &Observed<WorkloadStatus>, fits: impl FnOnce(&WorkloadStatus) -> bool) -> bool {
    seen.known().is_some_and(fits)
}

fn only_replica(seen: &Observed<WorkloadStatus>, fits: impl FnOnce(&ReplicaStatus) -> bool) -> bool {
    known_and(seen, |status| matches!(&status.replicas[..], [replica] if fits(replica)))
}

fn is_ready(seen: &Observed<WorkloadStatus>, workload: &Workload) -> bool {
    let wanted = workload.replicas as usize;
    known_and(seen, |s| s.workload == *workload && s.replicas.len() == wanted && s.ready().count() == wanted)
}
