//! Artifacts by URL: fetched once, by digest, whatever the network and the other workers of the node do.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use modelyard_core::Digest;
use tempfile::TempDir;

use crate::origin::{Asked, Gate, Origin, Reply};
use crate::process::{Worker, binary, example, wait};

const REQUEST: &str = r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[[3,4]]}]}"#;

fn model() -> Vec<u8> {
    fs::read(example("linear-1.onnx")).unwrap()
}

fn other_model() -> Vec<u8> {
    fs::read(example("linear-2.onnx")).unwrap()
}

/// A worker that fetches `content` from `url` into `cache`.
fn fetching(dir: &Path, cache: &Path, url: &str, content: &[u8]) -> Command {
    let mut command = binary();
    command
        .args(["serve", "--model-name", "linear", "--model-version", "2", "--format", "onnx"])
        .args(["--sha256", &Digest::of(content).to_string(), "--artifact-url", url])
        .arg("--artifact-cache")
        .arg(cache)
        .arg("--instance-dir")
        .arg(dir)
        .env("MODELYARD_TERMINATION_LOG", dir.join("termination-log"))
        .stderr(Stdio::piped());
    command
}

fn start(cache: &Path, url: &str, content: &[u8], args: &[&str]) -> Worker {
    let dir = tempfile::tempdir().unwrap();
    let mut command = fetching(dir.path(), cache, url, content);
    command.args(args);
    Worker::listening(command, dir)
}

/// Runs one that is to fail: its exit code, and the last line of its log.
fn failing(cache: &Path, url: &str, content: &[u8], args: &[&str]) -> (Option<i32>, String) {
    let dir = tempfile::tempdir().unwrap();
    let message = dir.path().join("termination-log");
    fs::write(&message, "").unwrap();
    let output = fetching(dir.path(), cache, url, content).args(args).output().unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    let last = log.lines().last().unwrap().to_owned();
    let message = fs::read_to_string(message).unwrap();
    assert!(!message.is_empty() && last.ends_with(&message), "the pod's status says the same: {message}\n{log}");
    assert!(!log.contains("secret"), "{log}");
    (output.status.code(), last)
}

fn cached(cache: &Path, content: &[u8]) -> PathBuf {
    cache.join("sha256").join(Digest::of(content).to_string())
}

/// What is in the cache, but for locks.
fn files(cache: &Path) -> Vec<String> {
    let names = fs::read_dir(cache.join("sha256")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| !name.ends_with(".lock")).collect();
    names.sort();
    names
}

fn stop(worker: Worker) -> String {
    worker.terminate();
    let (status, log) = worker.ended();
    assert_eq!(status.code(), Some(0), "{log}");
    log
}

#[test]
fn an_artifact_is_fetched_once_and_a_restart_asks_nobody() {
    let cache = tempfile::tempdir().unwrap();
    let origin = Origin::start(|_, _| Reply::Content(model()));
    for _ in 0..2 {
        let worker = start(cache.path(), &origin.url(), &model(), &[]);
        worker.is_ready();
        assert_eq!(worker.infer(REQUEST).json()["outputs"][0]["data"][0], 3.0);
        let log = stop(worker);
        assert!(!log.contains("secret"), "what signs a URL is not logged: {log}");
    }
    assert_eq!(origin.asked().len(), 1);
    assert_eq!(files(cache.path()), [Digest::of(&model()).to_string()]);
}

#[test]
fn a_download_that_breaks_goes_on_from_where_it_broke() {
    let cache = tempfile::tempdir().unwrap();
    let origin = Origin::start(|number, _| match number {
        0 => Reply::Broken(model(), 100),
        1 => Reply::Broken(model(), 0),
        2 => Reply::Status(503, "try again"),
        _ => Reply::Content(model()),
    });
    let worker = start(cache.path(), &origin.url(), &model(), &[]);
    worker.is_ready();
    let from: Vec<_> = origin.asked().iter().map(|asked| asked.from).collect();
    assert_eq!(from, [None, Some(100), Some(100), Some(100)]);
    let log = stop(worker);
    assert!(log.contains("broke off") && log.contains("answered 503: try again"), "{log}");
}

#[test]
fn where_ranges_are_not_known_it_starts_over() {
    let cache = tempfile::tempdir().unwrap();
    let origin = Origin::start(|number, _| match number {
        0 => Reply::Broken(model(), 100),
        _ => Reply::WithoutRanges(model()),
    });
    start(cache.path(), &origin.url(), &model(), &[]).is_ready();
    assert_eq!(fs::read(cached(cache.path(), &model())).unwrap(), model());
}

#[test]
fn other_content_than_registered_is_fetched_once_more_and_then_refused() {
    let cache = tempfile::tempdir().unwrap();
    let origin = Origin::start(|_, _| Reply::Content(b"something else".to_vec()));
    let (code, last) = failing(cache.path(), &origin.url(), &model(), &[]);
    assert_eq!(code, Some(5));
    assert!(last.contains(&format!("has sha256 {}", Digest::of(b"something else"))), "{last}");
    assert!(last.contains("twice: it is not what was registered"), "{last}");
    assert_eq!(origin.asked().len(), 2);
    assert_eq!(files(cache.path()), [""; 0]);

    let origin = Origin::start(|number, _| Reply::Content(if number == 0 { b"else".to_vec() } else { model() }));
    let worker = start(cache.path(), &origin.url(), &model(), &[]);
    worker.is_ready();
    let log = stop(worker);
    assert!(log.contains("deleted; it is fetched once more"), "{log}");
}

#[test]
fn what_went_bad_in_the_cache_is_fetched_anew() {
    let cache = tempfile::tempdir().unwrap();
    let origin = Origin::start(|_, _| Reply::Content(model()));
    start(cache.path(), &origin.url(), &model(), &[]).is_ready();
    let path = cached(cache.path(), &model());
    let mut bytes = model();
    bytes[50] ^= 1;
    fs::write(&path, bytes).unwrap();
    let worker = start(cache.path(), &origin.url(), &model(), &[]);
    worker.is_ready();
    assert_eq!(fs::read(&path).unwrap(), model());
    let log = stop(worker);
    assert!(log.contains("has another content than its name says"), "{log}");
    assert_eq!(origin.asked().len(), 2);
}

#[test]
fn a_worker_waits_for_a_token_that_is_accepted_and_says_so() {
    let cache = tempfile::tempdir().unwrap();
    let token = cache.path().join("token");
    let origin = Origin::start(|_, asked| match asked.authorization.as_deref() {
        Some("Bearer fresh") => Reply::Content(model()),
        _ => Reply::Status(401, ""),
    });
    let path = token.display().to_string();
    let worker = start(cache.path(), &origin.url(), &model(), &["--token-file", &path]);
    let says = |what: &str| {
        wait(what, || {
            let answer = worker.get("/v2/health/ready");
            (answer.status == 503 && answer.json()["reason"].as_str().unwrap().contains(what)).then_some(())
        });
    };
    says("there is no such file yet");
    assert!(origin.asked().is_empty());
    assert_eq!(worker.get("/v2/health/live").status, 200);
    assert!(worker.infer(REQUEST).json()["error"].as_str().unwrap().contains("waiting for a token"));
    fs::write(&token, "expired\n").unwrap();
    says("answered 401: waiting for a token in");
    fs::write(&token, "fresh\n").unwrap();
    worker.is_ready();
}

#[test]
fn credentials_do_not_follow_a_redirect_to_another_host_but_ranges_do() {
    let cache = tempfile::tempdir().unwrap();
    let token = cache.path().join("token");
    fs::write(&token, "mine").unwrap();
    let bucket = Origin::start(|number, _| match number {
        0 => Reply::Broken(model(), 100),
        _ => Reply::Content(model()),
    });
    let signed = bucket.url();
    let origin = Origin::start(move |_, _| Reply::Redirect(signed.clone()));
    let path = token.display().to_string();
    let worker = start(cache.path(), &origin.url(), &model(), &["--token-file", &path]);
    worker.is_ready();
    let asked = |from, authorization: Option<&str>| Asked {
        path: "/artifact?signature=secret".into(),
        from,
        authorization: authorization.map(ToOwned::to_owned),
    };
    assert_eq!(origin.asked(), [asked(None, Some("Bearer mine")), asked(Some(100), Some("Bearer mine"))]);
    assert_eq!(bucket.asked(), [asked(None, None), asked(Some(100), None)]);
    let log = stop(worker);
    assert!(!log.contains("secret") && !log.contains("mine"), "{log}");
}

#[test]
fn of_many_workers_one_downloads_and_all_serve() {
    let cache = tempfile::tempdir().unwrap();
    let gate = Gate::default();
    let closed = gate.clone();
    let origin = Origin::start(move |_, _| Reply::Halting(model(), closed.clone()));
    let workers: Vec<_> = (0..4).map(|_| start(cache.path(), &origin.url(), &model(), &[])).collect();
    let reasons = |what: &str| {
        let reason = |worker: &Worker| worker.get("/v2/health/ready").json()["reason"].as_str().unwrap().to_owned();
        workers.iter().filter(|worker| reason(worker).contains(what)).count()
    };
    wait("three to wait for one", || (reasons("waiting for another worker") == 3).then_some(()));
    assert_eq!(reasons("downloading: "), 1);
    gate.open();
    workers.iter().for_each(Worker::is_ready);
    assert_eq!(origin.asked().len(), 1);
}

#[test]
fn a_worker_that_is_killed_while_it_downloads_leaves_its_part_to_the_next() {
    let cache = tempfile::tempdir().unwrap();
    let origin = Origin::start(|number, _| match number {
        0 => Reply::Halting(model(), Gate::default()),
        _ => Reply::Content(model()),
    });
    let first = start(cache.path(), &origin.url(), &model(), &[]);
    let half = model().len() / 2;
    let part = cached(cache.path(), &model()).with_extension("part");
    wait("half of it", || fs::metadata(&part).ok().filter(|part| part.len() == half as u64));
    let second = start(cache.path(), &origin.url(), &model(), &[]);
    wait("the other to wait", || second.get("/v2/health/ready").body.contains("another worker").then_some(()));
    drop(first);
    second.is_ready();
    assert_eq!(origin.asked().last().unwrap().from, Some(half));
}

#[test]
fn what_cannot_be_had_ends_the_worker_in_clear_words() {
    let cache = tempfile::tempdir().unwrap();
    let says = r#"{"title":"Not Found","status":404,"detail":"there is no artifact with sha256 abc"}"#;
    let origin = Origin::start(move |_, _| Reply::Status(404, says));
    let (code, last) = failing(cache.path(), &origin.url(), &model(), &[]);
    assert_eq!(code, Some(5));
    assert!(last.contains("/artifact answered 404: there is no artifact with sha256 abc"), "{last}");
    assert_eq!((origin.asked().len(), files(cache.path())), (1, vec![]));

    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{nobody}/artifact?signature=secret");
    let (code, last) = failing(cache.path(), &url, &model(), &["--artifact-patience", "300ms"]);
    assert_eq!(code, Some(5));
    assert!(last.contains("given up after") && last.contains("it cannot be reached"), "{last}");

    let (code, last) = failing(cache.path(), &url, &model(), &["--ca-file", "/dev/null"]);
    assert_eq!(code, Some(5));
    assert!(last.contains("the certificates in /dev/null cannot be used"), "{last}");
}

#[test]
fn the_cache_evicts_what_nobody_uses_and_spares_what_is_served() {
    let cache = tempfile::tempdir().unwrap();
    let (one, two) =
        (Origin::start(|_, _| Reply::Content(model())), Origin::start(|_, _| Reply::Content(other_model())));
    let first = start(cache.path(), &one.url(), &model(), &[]);
    first.is_ready();
    let second = start(cache.path(), &two.url(), &other_model(), &["--artifact-cache-limit", "200"]);
    second.is_ready();
    assert_eq!(files(cache.path()).len(), 2, "the first one is served");
    let log = stop(second);
    assert!(log.contains("above its limit of 200 bytes"), "{log}");

    stop(first);
    fs::remove_file(cached(cache.path(), &other_model())).unwrap();
    start(cache.path(), &two.url(), &other_model(), &["--artifact-cache-limit", "200"]).is_ready();
    assert_eq!(files(cache.path()), [Digest::of(&other_model()).to_string()]);
}

#[test]
fn memory_stays_flat_whatever_the_size_of_the_artifact() {
    const SIZE: u64 = 1 << 30;
    let cache = tempfile::tempdir().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let origin = Origin::start(|_, _| Reply::Zeros(SIZE));
    // Of 1 GiB of zeros.
    let digest = "49bc20df15e412a64472421e13fe86ff1c5165e18b2afccf160d4dc19fe68a14";
    let mut command = binary();
    command
        .args(["serve", "--model-name", "zeros", "--model-version", "1", "--format", "onnx", "--sha256", digest])
        .args(["--artifact-url", &origin.url(), "--artifact-cache"])
        .arg(cache.path())
        .arg("--instance-dir")
        .arg(dir.path())
        .stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut peak = 0;
    let status = wait("its end", || {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        peak = peak.max(line.map_or(0, |line| line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()));
        child.try_wait().unwrap()
    });
    assert_eq!(status.code(), Some(5), "zeros are no model");
    assert_eq!(fs::metadata(cache.path().join("sha256").join(digest)).unwrap().len(), SIZE, "but were fetched");
    assert!(peak > 0 && peak < 100_000, "it held {peak} kB");
}

#[test]
fn a_cache_that_cannot_be_written_is_said_to_be_one() {
    let cache = tempfile::tempdir().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let open = |dir: &TempDir, mode| fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).unwrap();
    open(&cache, 0o555);
    open(&dir, 0o777);
    let mut command = fetching(dir.path(), cache.path(), "http://127.0.0.1:1/", b"");
    if rustix::process::geteuid().is_root() {
        command.uid(65532).gid(65532);
    }
    let output = command.output().unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(5), "{log}");
    assert!(log.lines().last().unwrap().contains("it must be writable for user "), "{log}");
}

#[test]
fn a_worker_without_an_artifact_or_with_two_is_a_wrong_usage() {
    for args in [&[][..], &["--artifact", "x", "--artifact-url", "http://h/"], &["--artifact-url", "ftp://h/"]] {
        let output = binary()
            .args(["serve", "--model-name", "m", "--model-version", "1", "--format", "onnx", "--instance-dir", "d"])
            .args(["--sha256", &Digest::of(b"").to_string(), "--artifact-cache", "c"])
            .args(args)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{output:?}");
    }
}

#[test]
fn lingering_takes_its_time_and_ends_well() {
    let begun = std::time::Instant::now();
    let status = binary().args(["linger", "--for", "200ms"]).status().unwrap();
    assert!(status.success() && begun.elapsed().as_millis() >= 200);
}
