//! Weights, retries, the stable version as the judge; tables, restarts and ends.

use std::time::Duration;

use crate::support::{Behaviour, ControlPlane, Gateway, route, table};
use modelyard_core::Epoch;

#[tokio::test]
async fn requests_follow_the_weights_and_carry_the_headers() {
    let mut gateway = Gateway::start().await;
    let (old, new) = (gateway.backend(Behaviour::Ok("1")).await, gateway.backend(Behaviour::Ok("2")).await);
    gateway.publish(table(1, route(1, &[("1", 9000, &[old]), ("2", 1000, &[new])]))).await;
    let mut canary = 0;
    for _ in 0..1000 {
        let answer = gateway.infer("m", "").await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.body, answer.header("x-modelyard-version"), "the header names the version that answered");
        assert_eq!(answer.header("x-request-id").len(), 32);
        canary += u32::from(answer.header("x-modelyard-variant") == "canary");
    }
    // Binomial, n 1000, p 0.1: outside with a probability below 1e-6.
    assert!((55..=150).contains(&canary), "{canary} of 1000 at 10 %");
}

#[tokio::test]
async fn the_callers_request_id_is_kept() {
    let mut gateway = Gateway::start().await;
    let backend = gateway.backend(Behaviour::Ok("1")).await;
    gateway.publish(table(1, route(1, &[("1", 10_000, &[backend])]))).await;
    let answer = gateway.infer("m", "x-request-id: abc-1\r\n").await;
    assert_eq!(answer.header("x-request-id"), "abc-1");
}

#[tokio::test]
async fn what_a_version_on_trial_fails_the_stable_one_answers_and_it_is_counted() {
    let mut gateway = Gateway::start().await;
    let (old, bad) = (gateway.backend(Behaviour::Ok("1")).await, gateway.backend(Behaviour::Status(500)).await);
    gateway.publish(table(1, route(1, &[("1", 0, &[old]), ("2", 10_000, &[bad])]))).await;
    for _ in 0..20 {
        let answer = gateway.infer("m", "").await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "1"));
        assert_eq!(answer.header("x-modelyard-variant"), "stable");
    }
    let trial = gateway.evidence(2, |e| e.requests == 20 && e.errors == 20).await;
    assert_eq!((trial.requests, trial.errors, trial.rescued), (20, 20, 20));
    let stable = gateway.evidence(1, |e| e.requests == 20).await;
    assert_eq!((stable.errors, stable.latency.count()), (0, 20));
}

#[tokio::test]
async fn a_refusal_that_the_stable_version_shares_is_the_callers_mistake() {
    let mut gateway = Gateway::start().await;
    let (old, new) = (gateway.backend(Behaviour::Status(400)).await, gateway.backend(Behaviour::Status(400)).await);
    gateway.publish(table(1, route(1, &[("1", 0, &[old]), ("2", 10_000, &[new])]))).await;
    assert_eq!(gateway.infer("m", "").await.status, 400);
    let trial = gateway.evidence(2, |e| e.requests == 1).await;
    assert_eq!(trial.errors, 0);
}

#[tokio::test]
async fn a_refusal_that_the_stable_version_does_not_share_is_the_trials_error() {
    let mut gateway = Gateway::start().await;
    let (old, new) = (gateway.backend(Behaviour::Ok("1")).await, gateway.backend(Behaviour::Status(400)).await);
    gateway.publish(table(1, route(1, &[("1", 0, &[old]), ("2", 10_000, &[new])]))).await;
    assert_eq!(gateway.infer("m", "").await.status, 200);
    let trial = gateway.evidence(2, |e| e.requests == 1 && e.errors == 1).await;
    assert_eq!(trial.rescued, 1);
}

#[tokio::test]
async fn a_version_that_was_asked_for_answers_itself() {
    let mut gateway = Gateway::start().await;
    let (old, bad) = (gateway.backend(Behaviour::Ok("1")).await, gateway.backend(Behaviour::Status(500)).await);
    gateway.publish(table(1, route(1, &[("1", 10_000, &[old]), ("2", 0, &[bad])]))).await;
    assert_eq!(gateway.infer("m/versions/2", "").await.status, 500);
    assert_eq!(gateway.infer("m/versions/1", "").await.body, "1");
    let unknown = gateway.infer("m/versions/3", "").await;
    assert!(unknown.status == 404 && unknown.body.contains("served: 1, 2"), "{unknown:?}");
    assert_eq!(gateway.infer("nobody", "").await.status, 404);
}

#[tokio::test]
async fn a_backend_that_breaks_off_or_is_gone_loses_no_request() {
    let mut gateway = Gateway::start().await;
    let good = gateway.backend(Behaviour::Ok("1")).await;
    let breaks = gateway.backend(Behaviour::BreakOff).await;
    let half = gateway.backend(Behaviour::HalfAnAnswer).await;
    let gone = crate::support::nobody().await;
    for (sequence, bad) in [(1, [breaks, half]), (2, [gone, breaks])] {
        gateway.publish(table(sequence, route(1, &[("1", 10_000, &[good, bad[0], bad[1]])]))).await;
        for _ in 0..100 {
            let answer = gateway.infer("m", "").await;
            assert_eq!((answer.status, answer.body.as_str()), (200, "1"));
        }
    }
    let seen = gateway.evidence(1, |e| e.requests == 200).await;
    assert_eq!(seen.errors, 0, "a try that another backend made good is no error of the version");
}

#[tokio::test]
async fn what_a_hung_backend_was_asked_is_asked_again_when_it_leaves_the_routes() {
    let mut gateway = Gateway::start().await;
    let hung = gateway.backend(Behaviour::Slow(Duration::from_secs(3600), "never")).await;
    let good = gateway.backend(Behaviour::Ok("1")).await;
    gateway.publish(table(1, route(1, &[("1", 10_000, &[hung, good])]))).await;
    let mut asked = Vec::new();
    for _ in 0..16 {
        asked.push(gateway.begin_infer("m").await);
    }
    gateway.backend_was_asked().await;
    gateway.publish(table(2, route(1, &[("1", 10_000, &[good])]))).await;
    for asked in asked {
        let answer = tokio::time::timeout(Duration::from_secs(10), asked.answer()).await.expect("nobody waits for it");
        assert_eq!((answer.status, answer.body.as_str()), (200, "1"));
    }
    assert_eq!(gateway.evidence(1, |e| e.requests == 16).await.errors, 0);
}

#[tokio::test]
async fn a_busy_backend_is_passed_over_for_another() {
    let mut gateway = Gateway::start().await;
    let (busy, good) = (gateway.backend(Behaviour::Status(429)).await, gateway.backend(Behaviour::Ok("1")).await);
    gateway.publish(table(1, route(1, &[("1", 10_000, &[busy, good])]))).await;
    for _ in 0..50 {
        assert_eq!(gateway.infer("m", "").await.status, 200);
    }
}

#[tokio::test]
async fn without_a_ready_backend_the_answer_says_so() {
    let mut gateway = Gateway::start().await;
    assert_eq!(gateway.get("/v2/health/ready").await.status, 503, "there is no table yet");
    gateway.publish(table(1, route(1, &[("1", 10_000, &[])]))).await;
    let answer = gateway.infer("m", "").await;
    assert_eq!((answer.status, answer.header("retry-after").as_str()), (503, "1"));
    assert!(answer.body.contains("no worker of this deployment is ready"), "{}", answer.body);
    assert_eq!(gateway.get("/v2/health/ready").await.status, 200);
}

#[tokio::test]
async fn traffic_falls_to_the_stable_version_when_the_trial_has_no_backend() {
    let mut gateway = Gateway::start().await;
    let old = gateway.backend(Behaviour::Ok("1")).await;
    gateway.publish(table(1, route(1, &[("1", 5000, &[old]), ("2", 5000, &[])]))).await;
    for _ in 0..50 {
        assert_eq!(gateway.infer("m", "").await.body, "1");
    }
}

#[tokio::test]
async fn an_older_table_is_ignored_and_a_newer_one_swaps_at_once() {
    let mut gateway = Gateway::start().await;
    let (one, two) = (gateway.backend(Behaviour::Ok("1")).await, gateway.backend(Behaviour::Ok("2")).await);
    gateway.publish(table(5, route(1, &[("1", 10_000, &[one])]))).await;
    gateway.send(&table(4, route(2, &[("2", 10_000, &[two])])));
    gateway.publish(table(6, route(1, &[("1", 10_000, &[one])]))).await;
    assert_eq!(gateway.infer("m", "").await.body, "1");
    gateway.publish(table(7, route(2, &[("2", 10_000, &[two])]))).await;
    for _ in 0..50 {
        assert_eq!(
            gateway.infer("m", "").await.body,
            "2",
            "once a table is acknowledged, no request goes by an older one"
        );
    }
}

#[tokio::test]
async fn without_a_control_plane_the_last_table_serves_and_after_a_restart_too() {
    let mut gateway = Gateway::start().await;
    let backend = gateway.backend(Behaviour::Ok("1")).await;
    gateway.publish(table(1, route(1, &[("1", 10_000, &[backend])]))).await;
    gateway.lose_control_plane().await;
    assert_eq!(gateway.infer("m", "").await.body, "1");
    gateway.restart().await;
    assert_eq!(gateway.infer("m", "").await.body, "1");
}

#[tokio::test]
async fn a_control_plane_that_is_not_sure_to_be_in_office_is_left_for_one_that_is() {
    let mut other = ControlPlane::start().await;
    let mut gateway = Gateway::start_with(&["--control-plane", &other.url()]).await;
    let (old, new) = (gateway.backend(Behaviour::Ok("1")).await, gateway.backend(Behaviour::Ok("2")).await);
    gateway.publish(table(1, route(1, &[("1", 10_000, &[old])]))).await;
    let mut next = table(1, route(2, &[("2", 10_000, &[new])]));
    next.version.epoch = Epoch(2);
    other.send(&next);
    assert_eq!(gateway.infer("m", "").await.body, "1", "nobody else is asked while the first is in office");
    gateway.lapse();
    other.reported(|report| report.applied == next.version).await;
    assert_eq!(gateway.infer("m", "").await.body, "2");
}

#[tokio::test]
async fn a_long_body_streams_through_and_one_that_is_too_long_is_refused() {
    let mut gateway = Gateway::start_with(&["--max-body", "5000000"]).await;
    let backend = gateway.backend(Behaviour::CountBody).await;
    gateway.publish(table(1, route(1, &[("1", 10_000, &[backend])]))).await;
    let answer = gateway.post("/v2/models/m/infer", "", &vec![b'x'; 3_000_000]).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "3000000"));
    let refused = gateway.post("/v2/models/m/infer", "", &vec![b'x'; 6_000_000]).await;
    assert_eq!(refused.status, 413);
}

#[tokio::test]
async fn what_is_in_flight_at_sigterm_is_answered() {
    let mut gateway = Gateway::start().await;
    let backend = gateway.backend(Behaviour::Slow(Duration::from_millis(800), "1")).await;
    gateway.publish(table(1, route(1, &[("1", 10_000, &[backend])]))).await;
    let asked = gateway.begin_infer("m").await;
    gateway.backend_was_asked().await;
    gateway.terminate();
    assert_eq!(asked.answer().await.body, "1");
    assert!(gateway.ended().await.success());
}

#[tokio::test]
async fn a_gateway_that_is_told_to_end_is_not_ready_but_serves_and_follows_tables_while_it_lingers() {
    let mut gateway = Gateway::start_with(&["--linger", "2s"]).await;
    let (one, two) = (gateway.backend(Behaviour::Ok("1")).await, gateway.backend(Behaviour::Ok("2")).await);
    assert_eq!(gateway.get("/livez").await.body, "ok\n");
    let unready = gateway.get("/readyz").await;
    assert_eq!((unready.status, unready.body.as_str()), (503, "there is no route table yet\n"));
    gateway.publish(table(1, route(1, &[("1", 10_000, &[one])]))).await;
    assert_eq!(gateway.get("/readyz").await.status, 200);
    assert_eq!(gateway.infer("m", "").await.header("connection"), "");

    gateway.terminate();
    gateway.answers("/readyz", |answer| answer.status == 503 && answer.body == "stopping\n").await;
    assert_eq!(gateway.get("/v2/health/ready").await.status, 503);
    assert_eq!(gateway.get("/livez").await.status, 200);
    gateway.publish(table(2, route(2, &[("2", 10_000, &[two])]))).await;
    let answer = gateway.infer("m", "").await;
    assert_eq!((answer.body.as_str(), answer.header("connection").as_str()), ("2", "close"));
    assert!(gateway.ended().await.success());
    gateway.reported(|report| report.in_use.is_empty()).await;
    let counted = gateway.evidence(2, |e| e.requests == 1).await;
    assert_eq!(counted.latency.count(), 1, "the last report has all that was counted");
}

#[tokio::test]
async fn a_request_that_never_ends_does_not_hold_a_gateway_for_ever() {
    let mut gateway = Gateway::start_with(&["--drain-timeout", "300ms"]).await;
    let backend = gateway.backend(Behaviour::Slow(Duration::from_secs(3600), "1")).await;
    gateway.publish(table(1, route(1, &[("1", 10_000, &[backend])]))).await;
    let _asked = gateway.begin_infer("m").await;
    gateway.backend_was_asked().await;
    gateway.terminate();
    assert!(gateway.ended().await.success());
}

#[tokio::test]
async fn figures_are_told_to_prometheus() {
    let mut gateway = Gateway::start().await;
    let (old, bad) = (gateway.backend(Behaviour::Ok("1")).await, gateway.backend(Behaviour::Status(500)).await);
    gateway.publish(table(7, route(1, &[("1", 5_000, &[old]), ("2", 5_000, &[bad])]))).await;
    for _ in 0..3 {
        gateway.infer("m/versions/1", "").await;
        gateway.infer("m/versions/2", "").await;
    }
    // Another window: figures go on.
    gateway.publish(table(8, route(2, &[("1", 0, &[old]), ("2", 10_000, &[bad])]))).await;
    assert_eq!(gateway.infer("m", "").await.status, 200);
    let answer = gateway.get("/metrics").await;
    assert_eq!((answer.status, answer.header("content-type").as_str()), (200, "text/plain; version=0.0.4"));
    let stable = "{deployment=\"m\",variant=\"stable\",version=\"1\"}";
    let canary = "{deployment=\"m\",variant=\"canary\",version=\"2\"}";
    for line in [
        "route_table_epoch 1".to_owned(),
        "route_table_sequence 8".into(),
        "stopping 0".into(),
        format!("backends{stable} 1"),
        format!("backends_ejected{stable} 0"),
        format!("requests_in_flight{canary} 0"),
        format!("requests_total{stable} 4"),
        format!("requests_total{canary} 4"),
        format!("errors_total{stable} 0"),
        format!("errors_total{canary} 4"),
        format!("rescued_total{canary} 1"),
        format!("answer_duration_seconds_count{stable} 4"),
        format!("answer_duration_seconds_bucket{} 4", stable.replace('}', ",le=\"+Inf\"}")),
        format!("answer_duration_seconds_bucket{} 4", stable.replace('}', ",le=\"33.554432\"}")),
    ] {
        assert!(
            answer.body.lines().any(|l| l == format!("modelyard_gateway_{line}")),
            "{line} is not in {}",
            answer.body
        );
    }
    assert!(!answer.body.lines().any(|l| l == "modelyard_gateway_connections 0"), "ours is one: {}", answer.body);
}

#[tokio::test]
async fn without_a_state_directory_a_restart_waits_for_a_table() {
    let mut gateway = Gateway::start_without_state().await;
    let backend = gateway.backend(Behaviour::Ok("1")).await;
    gateway.publish(table(1, route(1, &[("1", 10_000, &[backend])]))).await;
    gateway.restart().await;
    gateway.answers("/readyz", |answer| answer.status == 200).await;
    assert_eq!(gateway.infer("m", "").await.body, "1");
    gateway.lose_control_plane().await;
    gateway.restart().await;
    assert_eq!(gateway.get("/readyz").await.status, 503);
}

#[tokio::test]
async fn a_removed_workload_is_reported_in_use_until_its_requests_are_answered() {
    let mut gateway = Gateway::start().await;
    let slow = gateway.backend(Behaviour::Slow(Duration::from_millis(800), "1")).await;
    let next = gateway.backend(Behaviour::Ok("2")).await;
    let old = route(1, &[("1", 10_000, &[slow])]);
    let workload = old.variants[0].workload.clone();
    gateway.publish(table(1, old)).await;
    let asked = gateway.begin_infer("m").await;
    gateway.backend_was_asked().await;
    gateway.publish(table(2, route(2, &[("2", 10_000, &[next])]))).await;
    assert!(gateway.last_report().in_use.contains(&workload));
    assert_eq!(asked.answer().await.body, "1");
    gateway.reported(|report| !report.in_use.contains(&workload)).await;
}

#[tokio::test]
async fn a_certificate_that_is_not_there_keeps_it_from_starting() {
    let output =
        crate::support::run(&["--listen", "0.0.0.0:0", "--tls-cert", "/nowhere/crt", "--tls-key", "/nowhere/key"])
            .await;
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("cannot read /nowhere/crt"), "{said}");
}
