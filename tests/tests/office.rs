//! Two control planes, one office: whoever loses it, however, the other takes it within 10 s; nothing is done twice, and
//! no request is lost. Each test prints how long the hand-over took.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking, and tells its figures")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::StreamExt;
use modelyard_api::ClientError;
use modelyard_api::types::Rollback;
use modelyard_core::event::Event;
use modelyard_core::{DeploymentName, Digest, RevisionNumber};
use modelyard_test_support::{ControlPlane, Line, Load, Pair, Proxy, apply, eventually, manifest, model_file};
use rustix::process::Signal;

const ROLLING: &str = "replicas: 1, strategy: {rolling: {}}";
/// Its steps end while nobody is in office.
const CANARY: &str = "replicas: 1, strategy: {canary: {steps: [{weight: 20, hold: 2s}, {weight: 50, hold: 2s}], \
                      analysis: {minRequests: 10, maxErrorRate: 0.05}}}";
const HANDED_OVER_WITHIN: Duration = Duration::from_secs(10);

fn linear() -> DeploymentName {
    "linear".parse().unwrap()
}

async fn deploy(on: &ControlPlane, version: &str, spec: &str) -> RevisionNumber {
    let applied = apply(&on.client, &manifest(version, spec), false, None).await.unwrap_or_else(|e| panic!("{e:?}"));
    applied.documents.iter().find_map(|d| d.revision).expect("a deployment")
}

async fn deploy_and_wait(on: &ControlPlane, version: &str, spec: &str) {
    let revision = deploy(on, version, spec).await;
    on.completed(revision).await;
}

async fn weighs(on: &ControlPlane, version: &str, percent: f64) {
    eventually(&format!("version {version} has {percent} %"), async || {
        let status = on.client.deployment(&linear()).await.ok()?.status?;
        let weight = status.variants.iter().find(|v| v.version.as_str() == version)?.weight;
        (weight.percent() == percent).then_some(())
    })
    .await;
}

/// Nobody decides who is out of office, and no step of the walk is taken twice.
async fn assert_nothing_was_done_twice(pair: &Pair, first: i64) {
    let decisions = pair.database().decisions().await;
    let by_old = decisions.iter().filter(|(by, epoch)| by == "a" && *epoch != first).count();
    let by_new = decisions.iter().filter(|(by, epoch)| by == "b" && *epoch != first + 1).count();
    assert_eq!((by_old, by_new), (0, 0), "{decisions:?}");
    let events = pair.b.client.events(Some(&linear()), None).await.unwrap();
    let mut times = BTreeMap::<(&str, String), usize>::new();
    let decided = events.iter().filter(|e| e.what.actor.as_str() == "system");
    decided.for_each(|e| *times.entry((e.what.kind.as_str(), e.what.data.to_string())).or_default() += 1);
    assert!(times.values().all(|n| *n == 1), "{times:#?}");
}

fn told(what: &str, took: Duration) {
    println!("hand-over after {what}: {:.2} s", took.as_secs_f64());
    assert!(took < HANDED_OVER_WITHIN, "{what}: {took:?}");
}

#[tokio::test]
async fn a_killed_leader_is_replaced_and_what_is_applied_right_after_is_carried_out() {
    let mut pair = Pair::start().await;
    deploy_and_wait(&pair.a, "1", ROLLING).await;
    let first = pair.database().epoch().await;
    pair.database().watch_decisions().await;
    let load = Load::start(&pair.gateway_url(), "linear");
    deploy(&pair.a, "2", CANARY).await;
    weighs(&pair.a, "2", 20.0).await;
    let workers = pair.workers();

    let killed = Instant::now();
    pair.a.end(Signal::KILL);
    let refused = pair.b.client.deployment(&linear()).await.unwrap_err();
    assert_eq!(refused.status(), Some(503), "{refused}");
    told("kill -9", pair.b.in_office(killed).await);
    assert_eq!(pair.workers(), workers, "the workers are taken over");

    pair.b.completed(RevisionNumber(2)).await;
    assert_nothing_was_done_twice(&pair, first).await;
    deploy_and_wait(&pair.b, "1", ROLLING).await;
    load.answers(100).await;
    let report = load.stop().await;
    println!("requests: {} sent, {} lost", report.sent, report.failures.len());
    report.assert_nothing_lost();
}

#[tokio::test]
async fn a_leader_that_is_told_to_stop_hands_over_at_once() {
    let mut pair = Pair::start().await;
    deploy_and_wait(&pair.a, "1", ROLLING).await;
    let load = Load::start(&pair.gateway_url(), "linear");
    let told_to_stop = Instant::now();
    pair.a.signal(Signal::TERM);
    let took = pair.b.in_office(told_to_stop).await;
    told("SIGTERM", took);
    assert!(took < Duration::from_secs(3), "the lease is given back, not left to run out: {took:?}");
    pair.a.end(Signal::TERM);
    deploy_and_wait(&pair.b, "2", ROLLING).await;
    // And back, to one that is started again.
    pair.start_a();
    pair.a.stands_by().await;
    pair.b.end(Signal::TERM);
    pair.a.in_office(Instant::now()).await;
    deploy_and_wait(&pair.a, "1", ROLLING).await;
    load.answers(50).await;
    load.stop().await.assert_nothing_lost();
}

/// A stopped process keeps the state directory's lock, which is what keeps the workers of one machine from having two
/// masters: the office moves, and the workers follow when it goes on (or is killed). Nothing like that binds the pods
/// of a cluster.
#[tokio::test]
async fn a_leader_that_was_stopped_for_longer_than_its_lease_does_nothing_more() {
    let pair = Pair::start().await;
    deploy_and_wait(&pair.a, "1", ROLLING).await;
    let first = pair.database().epoch().await;
    pair.database().watch_decisions().await;
    let load = Load::start(&pair.gateway_url(), "linear");
    deploy(&pair.a, "2", CANARY).await;
    weighs(&pair.a, "2", 20.0).await;

    let stopped = Instant::now();
    pair.a.signal(Signal::STOP);
    eventually("the next is in office", async || (pair.database().epoch().await > first).then_some(())).await;
    told("SIGSTOP (the office)", stopped.elapsed());
    eventually("it says what it waits for", async || {
        let refused = pair.b.client.deployment(&linear()).await.err()?;
        (refused.status() == Some(503) && refused.to_string().contains("another control plane")).then_some(())
    })
    .await;
    load.answers(200).await;

    let continued = Instant::now();
    pair.a.signal(Signal::CONT);
    told("SIGCONT (the workers)", pair.b.in_office(continued).await);
    pair.a.stands_by().await;
    pair.a.completed(RevisionNumber(2)).await;
    assert_nothing_was_done_twice(&pair, first).await;
    load.answers(50).await;
    load.stop().await.assert_nothing_lost();
}

#[tokio::test]
async fn a_leader_that_loses_postgres_is_replaced() {
    loses_postgres(Line::Cut).await;
}

#[tokio::test]
async fn a_leader_that_postgres_no_longer_hears_is_replaced() {
    loses_postgres(Line::Silent).await;
}

async fn loses_postgres(how: Line) {
    let mut proxy = None;
    let mut pair = Pair::new(async |server| {
        let started = Proxy::start(server).await;
        proxy.insert(started).address
    })
    .await;
    let proxy = proxy.unwrap();
    pair.start_both().await;
    deploy_and_wait(&pair.a, "1", ROLLING).await;
    let first = pair.database().epoch().await;
    pair.database().watch_decisions().await;
    let load = Load::start(&pair.gateway_url(), "linear");
    deploy(&pair.a, "2", CANARY).await;
    weighs(&pair.a, "2", 20.0).await;
    let workers = pair.workers();

    let cut = Instant::now();
    proxy.set(how);
    told(&format!("the line to Postgres is {how:?}"), pair.b.in_office(cut).await);
    assert_eq!(pair.workers(), workers, "the workers are taken over");
    pair.b.completed(RevisionNumber(2)).await;
    proxy.set(Line::Whole);
    pair.a.stands_by().await;
    deploy_and_wait(&pair.a, "1", ROLLING).await;
    assert_nothing_was_done_twice(&pair, first).await;
    load.answers(50).await;
    load.stop().await.assert_nothing_lost();
}

#[tokio::test]
async fn a_standby_passes_everything_on_both_ways() {
    let pair = Pair::start().await;
    let standby = &pair.b.client;
    let mut followed = Box::pin(standby.follow_events(None, None).await.unwrap());
    deploy_and_wait(&pair.b, "1", ROLLING).await;
    let mut next = async || -> Event { followed.next().await.expect("it goes on").unwrap() };
    let mut kinds = Vec::new();
    while kinds.last().map(String::as_str) != Some("RolloutCompleted") {
        kinds.push(next().await.what.kind.to_string());
    }
    assert!(kinds.contains(&"VersionRegistered".to_owned()), "{kinds:?}");

    // An upload larger than any buffer on the way, and back.
    let large = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(large.path(), vec![7; 20 << 20]).unwrap();
    let digest = Digest::of(&std::fs::read(large.path()).unwrap());
    assert!(!standby.has_artifact(&digest).await.unwrap());
    standby.upload(large.path(), &digest, |_| {}).await.unwrap();
    assert!(pair.a.client.has_artifact(&digest).await.unwrap());
    let url = format!("{}/api/v1/artifacts/{digest}", pair.b.url());
    let part = reqwest::Client::new().get(url).header("range", "bytes=1-3").send().await.unwrap();
    assert_eq!(
        (part.status().as_u16(), part.headers()["content-range"].to_str().unwrap()),
        (206, "bytes 1-3/20971520")
    );
    assert_eq!(part.bytes().await.unwrap().as_ref(), [7, 7, 7]);

    let refused = standby.rollback(&linear(), &Rollback::default(), None).await.unwrap_err();
    assert!(matches!(&refused, ClientError::Refused(problem) if problem.status == 409), "as it was said: {refused:?}");
    let wrong = standby.upload(&model_file("linear-1.onnx"), &digest, |_| {}).await.unwrap_err();
    assert_eq!(wrong.status(), Some(422));

    // A request is passed on once.
    let url = format!("{}/api/v1/models", pair.b.url());
    let circle = reqwest::Client::new().get(url).header("x-modelyard-forwarded-by", "c").send().await.unwrap();
    assert_eq!((circle.status().as_u16(), circle.headers()["retry-after"].to_str().unwrap()), (503, "1"));
    assert!(circle.text().await.unwrap().contains("c takes this control plane to be in office"));
}

/// The gateways follow different control planes, and see different requests: what is judged by is the sum.
#[tokio::test]
async fn evidence_of_several_gateways_adds_up() {
    const HELD: &str = "replicas: 1, strategy: {canary: {steps: [{weight: 50, hold: 1h}], \
                        analysis: {minRequests: 10, warmup: 0, maxErrorRate: 0.05}}}";
    let mut pair = Pair::start().await;
    let second = pair.start_gateway(&[pair.b.url()]).await;
    deploy_and_wait(&pair.a, "1", ROLLING).await;
    deploy(&pair.a, "2", HELD).await;
    weighs(&pair.a, "2", 50.0).await;
    let loads = [Load::start(&pair.gateway_url(), "linear"), Load::start(&second, "linear")];
    let mut asked = Vec::new();
    for load in loads {
        load.answers(200).await;
        let report = load.stop().await;
        report.assert_nothing_lost();
        asked.push(report.answers["2"] as u64);
    }
    println!("requests that version 2 answered, by gateway: {asked:?}");
    assert!(asked.iter().all(|n| *n > 20), "both gateways follow the table: {asked:?}");
    eventually("the analysis counts the requests of both", async || {
        let verdict = pair.a.client.deployment(&linear()).await.ok()?.status?.verdict?;
        (verdict.requests == asked.iter().sum::<u64>()).then_some(())
    })
    .await;
}
