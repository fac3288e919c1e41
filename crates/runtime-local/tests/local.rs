//! What is particular to workers as processes of this machine.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use modelyard_core::{Batching, EngineName, EngineSpec, Epoch, Observed, ReplicaPhase, ReplicaStatus, Span, Workload};
use modelyard_runtime::conformance::{Behaviour, Harness, run};
use modelyard_runtime::{Runtime as _, RuntimeError};
use modelyard_runtime_local::{LocalError, LocalRuntime, stop_all};
use rustix::process::{Pid, Signal};
use support::{Local, workers_in};
use tokio::process::Command;

const EPOCH: Epoch = Epoch(7);

/// Waits until the first replica of a workload is as it should be; `None` stands for an absent workload.
async fn until(h: &Local, workload: &Workload, fits: impl Fn(Option<&ReplicaStatus>) -> bool) {
    let mut changes = h.local().changes();
    let waited = tokio::time::timeout(h.patience(), async {
        loop {
            changes.mark_unchanged();
            let seen = h.local().observe().await.unwrap();
            if fits(seen.of(&workload.id).known().and_then(|status| status.replicas.first())) {
                return;
            }
            changes.changed().await.unwrap();
        }
    });
    if waited.await.is_err() {
        panic!("waited in vain; last seen: {:?}", h.local().observe().await);
    }
}

/// Wants one replica of a model that serves, and waits for it.
async fn serving(h: &Local) -> Workload {
    let workload = h.workload(Behaviour::Serves, 1).await;
    h.local().ensure(&workload, EPOCH).await.unwrap();
    until(h, &workload, |seen| seen.is_some_and(|r| r.phase == ReplicaPhase::Ready)).await;
    workload
}

async fn absent(h: &Local, workload: &Workload) {
    until(h, workload, |seen| seen.is_none()).await;
    assert_eq!(h.local().observe().await.unwrap().of(&workload.id), &Observed::Absent);
    assert_eq!(workers_in(&h.config.state_dir), []);
    assert!(!h.config.state_dir.join("workers").join(workload.id.as_str()).exists());
}

#[test]
fn two_control_planes_do_not_share_a_directory() {
    run(async |h: &mut Local| {
        let second = LocalRuntime::open(h.config.clone(), h.artifacts.clone()).await;
        let Err(error @ LocalError::Taken { .. }) = second else { panic!("it must be refused") };
        let workers = h.config.state_dir.join("workers");
        let expected =
            format!("another control plane (pid {}) runs workers in {}", std::process::id(), workers.display());
        assert_eq!(error.to_string(), expected);
        let refused = stop_all(&h.config.state_dir, Duration::ZERO).await;
        assert!(matches!(refused, Err(LocalError::Taken { .. })), "{refused:?}");
    });
}

#[test]
fn a_worker_that_hangs_is_not_ready_and_then_replaced() {
    run(async |h: &mut Local| {
        h.shutdown().await;
        h.config.probes.interval = Duration::from_millis(50);
        h.config.probes.timeout = Duration::from_millis(200);
        h.config.probes.hang_timeout = Duration::from_millis(500);
        h.open().await;
        let workload = serving(h).await;
        let pid = h.pid(&workload.id, "0");
        h.signal(&workload.id, "0", Signal::STOP);
        until(h, &workload, |seen| {
            seen.is_some_and(|r| r.phase == ReplicaPhase::NotReady && r.endpoint.is_some() && r.message.is_some())
        })
        .await;
        until(h, &workload, |seen| {
            seen.is_some_and(|r| {
                let killed = r.message.as_ref().is_some_and(|m| m.starts_with("was killed: not ready for 0.5 s"));
                matches!(r.phase, ReplicaPhase::BackOff { .. }) && killed
            })
        })
        .await;
        until(h, &workload, |seen| seen.is_some_and(|r| r.phase == ReplicaPhase::Ready && r.restarts == 1)).await;
        assert_ne!(h.pid(&workload.id, "0"), pid);
        assert!(!fs::exists(format!("/proc/{pid}")).unwrap(), "the dead are reaped");
    });
}

#[test]
fn a_worker_that_answers_again_in_time_is_kept() {
    run(async |h: &mut Local| {
        h.shutdown().await;
        h.config.probes.interval = Duration::from_millis(50);
        h.config.probes.timeout = Duration::from_millis(200);
        h.open().await;
        let workload = serving(h).await;
        h.signal(&workload.id, "0", Signal::STOP);
        until(h, &workload, |seen| seen.is_some_and(|r| r.phase == ReplicaPhase::NotReady)).await;
        h.signal(&workload.id, "0", Signal::CONT);
        until(h, &workload, |seen| seen.is_some_and(|r| r.phase == ReplicaPhase::Ready && r.restarts == 0)).await;
    });
}

#[test]
fn a_worker_that_never_gets_ready_is_replaced() {
    run(async |h: &mut Local| {
        h.shutdown().await;
        h.config.probes.start_timeout = Duration::ZERO;
        // A probe that is never in time stands for a model that never loads.
        h.config.probes.timeout = Duration::ZERO;
        h.open().await;
        let workload = h.workload(Behaviour::Serves, 1).await;
        h.local().ensure(&workload, EPOCH).await.unwrap();
        until(h, &workload, |seen| {
            seen.is_some_and(|r| r.restarts == 1 && r.message.as_ref().is_some_and(|m| m.contains("was killed")))
        })
        .await;
    });
}

#[test]
fn a_worker_that_does_not_drain_is_killed() {
    run(async |h: &mut Local| {
        h.shutdown().await;
        h.config.drain_timeout = Duration::from_millis(100);
        h.config.kill_grace = Duration::from_millis(100);
        h.open().await;
        let workload = serving(h).await;
        h.signal(&workload.id, "0", Signal::STOP);
        h.local().remove(&workload.id, EPOCH).await.unwrap();
        until(h, &workload, |seen| seen.is_none_or(|r| r.phase == ReplicaPhase::Draining)).await;
        absent(h, &workload).await;
    });
}

#[test]
fn stopping_all_leaves_no_worker_and_no_wish_but_the_fence() {
    run(async |h: &mut Local| {
        let workload = serving(h).await;
        h.local().ensure(&Workload { replicas: 2, ..workload.clone() }, EPOCH).await.unwrap();
        let broken = h.workload(Behaviour::CrashesAtStart, 1).await;
        h.local().ensure(&broken, EPOCH).await.unwrap();
        until(h, &broken, |seen| seen.is_some_and(|r| matches!(r.phase, ReplicaPhase::BackOff { .. }))).await;
        let mut changes = h.local().changes();
        let both = async {
            while h.local().observe().await.unwrap().of(&workload.id).known().unwrap().ready().count() < 2 {
                changes.changed().await.unwrap();
            }
        };
        tokio::time::timeout(h.patience(), both).await.unwrap();
        h.shutdown().await;
        let before = workers_in(&h.config.state_dir).len();
        assert!(before >= 2, "workers outlive their control plane");

        let stopped = stop_all(&h.config.state_dir, Duration::from_secs(10)).await.unwrap();
        assert!((2..=3).contains(&stopped), "{stopped}");
        assert_eq!(workers_in(&h.config.state_dir), []);
        assert_eq!(stop_all(&h.config.state_dir, Duration::ZERO).await.unwrap(), 0);

        h.open().await;
        assert!(h.local().observe().await.unwrap().workloads.is_empty());
        let refused = h.local().ensure(&workload, Epoch(6)).await;
        assert!(matches!(refused, Err(RuntimeError::Fenced { seen: EPOCH, .. })), "{refused:?}");
    });
}

#[test]
fn stopping_all_of_a_directory_that_was_never_used_stops_none() {
    run(async |h: &mut Local| {
        assert_eq!(stop_all(&h.artifacts.0, Duration::ZERO).await.unwrap(), 0);
    });
}

#[test]
fn a_worker_without_a_wish_is_ended_by_the_next_control_plane() {
    run(async |h: &mut Local| {
        let workload = serving(h).await;
        h.shutdown().await;
        let record = h.config.state_dir.join("workers").join(workload.id.as_str()).join("workload.json");
        fs::write(record, "{").unwrap();
        assert_eq!(workers_in(&h.config.state_dir).len(), 1);
        h.open().await;
        absent(h, &workload).await;
    });
}

#[test]
fn replicas_that_are_no_longer_wished_are_drained_by_the_next_control_plane() {
    run(async |h: &mut Local| {
        let workload = serving(h).await;
        h.shutdown().await;
        let record = h.config.state_dir.join("workers").join(workload.id.as_str()).join("workload.json");
        let wish = fs::read_to_string(&record).unwrap().replace("\"replicas\":1", "\"replicas\":0");
        fs::write(record, wish).unwrap();
        h.open().await;
        until(h, &workload, |seen| seen.is_none()).await;
        assert_eq!(workers_in(&h.config.state_dir), []);
        assert!(!h.replica_dir(&workload.id, "0").exists());
    });
}

#[test]
fn a_worker_that_holds_the_directory_is_adopted_instead_of_twinned() {
    run(async |h: &mut Local| {
        let workload = h.workload(Behaviour::Serves, 1).await;
        let dir = h.replica_dir(&workload.id, "0");
        fs::create_dir_all(&dir).unwrap();
        // As a control plane leaves it that dies between starting a worker and anything else.
        let mut straggler = Command::new(&h.config.worker_binary)
            .arg("serve")
            .arg("--instance-dir")
            .arg(&dir)
            .args(["--model-name", "linear", "--model-version", "1", "--format", "dense", "--artifact"])
            .arg(h.artifacts.0.join(workload.digest.to_string()))
            .args(["--sha256", &workload.digest.to_string()])
            .args(["--listen", "127.0.0.1:0", "--drain-timeout", "10s"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let started = Pid::from_raw(straggler.id().unwrap().cast_signed()).unwrap();
        // Without waiting for its lock: whoever comes second must yield.
        h.local().ensure(&workload, EPOCH).await.unwrap();
        until(h, &workload, |seen| seen.is_some_and(|r| r.phase == ReplicaPhase::Ready && r.restarts == 0)).await;
        if h.pid(&workload.id, "0") != started {
            assert_eq!(straggler.wait().await.unwrap().code(), Some(4), "it came second");
        }
        assert_eq!(workers_in(&h.config.state_dir), [h.pid(&workload.id, "0")]);
    });
}

#[test]
fn workers_inherit_next_to_nothing() {
    run(async |h: &mut Local| {
        h.shutdown().await;
        h.config.worker_env = vec![("MODELYARD_TEST".into(), "given".into())];
        h.open().await;
        let workload = serving(h).await;
        let pid = h.pid(&workload.id, "0");
        let environ = fs::read(format!("/proc/{pid}/environ")).unwrap();
        let variables: Vec<_> = environ.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
        assert!(variables.iter().any(|v| v == "MODELYARD_TEST=given"), "{variables:?}");
        // Cargo sets it for this test.
        assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
        assert!(!variables.iter().any(|v| v.starts_with("CARGO_")), "{variables:?}");
    });
}

#[test]
fn workers_batch_as_their_workload_says() {
    run(async |h: &mut Local| {
        for batching in [None, Some(Batching { max_batch_size: 32, max_delay: Span::from_millis(2) })] {
            let workload = Workload { batching, ..h.workload(Behaviour::Serves, 1).await };
            h.local().ensure(&workload, EPOCH).await.unwrap();
            until(h, &workload, |seen| seen.is_some_and(|r| r.phase == ReplicaPhase::Ready)).await;
            let command = fs::read(format!("/proc/{}/cmdline", h.pid(&workload.id, "0"))).unwrap();
            let arguments: Vec<_> = command.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
            let said = arguments.windows(4).any(|a| a == ["--max-batch-size", "32", "--max-batch-delay", "2ms"]);
            assert_eq!(said, batching.is_some(), "{arguments:?}");
            h.local().remove(&workload.id, EPOCH).await.unwrap();
            absent(h, &workload).await;
        }
    });
}

#[test]
fn workers_use_the_engine_that_their_workload_asks_for() {
    run(async |h: &mut Local| {
        let engine = EngineSpec { name: Some(EngineName::Dense), warm_up: Some(2), ..EngineSpec::default() };
        let workload = Workload { engine, ..h.workload(Behaviour::Serves, 1).await };
        h.local().ensure(&workload, EPOCH).await.unwrap();
        until(h, &workload, |seen| seen.is_some_and(|r| r.phase == ReplicaPhase::Ready)).await;
        let command = fs::read(format!("/proc/{}/cmdline", h.pid(&workload.id, "0"))).unwrap();
        let arguments: Vec<_> = command.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
        assert!(arguments.windows(4).any(|a| a == ["--engine", "dense", "--warm-up", "2"]), "{arguments:?}");
    });
}

#[test]
fn a_runtime_that_was_shut_down_refuses_and_starts_nothing() {
    run(async |h: &mut Local| {
        let workload = h.workload(Behaviour::Serves, 1).await;
        h.local().shutdown().await;
        let refused = h.local().ensure(&workload, EPOCH).await;
        assert!(matches!(refused, Err(RuntimeError::Unavailable(_))), "{refused:?}");
        let refused = h.local().observe().await;
        assert!(matches!(refused, Err(RuntimeError::Unavailable(_))), "{refused:?}");
        assert_eq!(workers_in(&h.config.state_dir), []);
    });
}
