//! The life of a private server, against the real PostgreSQL of this machine.

use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use modelyard_postgres_local::{Cluster, Error, Options};

fn quick() -> Options<'static> {
    Options { durable: false, ..Options::default() }
}

/// Whether a process runs, judged from outside. One that has ended but was not reaped yet has no command line.
fn is_running(pid: u32) -> bool {
    std::fs::read(Path::new("/proc").join(pid.to_string()).join("cmdline")).is_ok_and(|line| !line.is_empty())
}

#[test]
fn a_server_comes_back_on_its_port_with_its_data() {
    let dir = tempfile::tempdir().unwrap();
    let first = Cluster::start(dir.path(), &Options::default()).unwrap();
    assert!(first.create_database("kept").unwrap());
    let (port, pid) = (first.port(), first.pid().unwrap());
    assert_eq!(first.url("kept"), format!("postgres://modelyard@127.0.0.1:{port}/kept"));
    first.stop().unwrap();
    assert!(!is_running(pid));
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "nothing listens any more");

    let second = Cluster::start(dir.path(), &quick()).unwrap();
    assert_eq!(second.port(), port);
    assert!(!second.create_database("kept").unwrap(), "it is still there");
    assert!(second.create_database("").is_err(), "an empty name is refused by the server, in its words");
}

#[test]
fn a_second_start_is_refused_with_the_url_of_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let first = Cluster::start(dir.path(), &quick()).unwrap();
    let Err(Error::AlreadyRunning { pid, url, .. }) = Cluster::start(dir.path(), &quick()) else {
        panic!("a second server was started")
    };
    assert_eq!((u32::try_from(pid).unwrap(), url), (first.pid().unwrap(), first.url("postgres")));
    assert!(matches!(Cluster::adopt(dir.path()), Err(Error::Busy { .. })), "its owner is alive");
}

#[test]
fn another_port_is_taken_when_the_remembered_one_is_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let first = Cluster::start(dir.path(), &quick()).unwrap();
    let port = first.port();
    first.stop().unwrap();

    let squatter = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    let second = Cluster::start(dir.path(), &quick()).unwrap();
    assert_ne!(second.port(), squatter.local_addr().unwrap().port());
    second.create_database("works").unwrap();
}

#[test]
fn a_killed_server_is_started_again_over_its_stale_pid_file() {
    let dir = tempfile::tempdir().unwrap();
    let first = Cluster::start(dir.path(), &Options::default()).unwrap();
    let killed = Command::new("kill").args(["-KILL", &first.pid().unwrap().to_string()]).status().unwrap();
    assert!(killed.success());
    drop(first);
    let second = Cluster::start(dir.path(), &quick()).unwrap();
    second.create_database("works").unwrap();
}

#[test]
fn a_temporary_server_leaves_nothing_behind() {
    let cluster = Cluster::temporary(&|_| {}).unwrap();
    cluster.create_database("works").unwrap();
    let (pid, log) = (cluster.pid().unwrap(), cluster.log());
    assert!(log.exists());
    drop(cluster);
    assert!(!is_running(pid));
    assert!(!log.parent().unwrap().exists());
}

#[test]
fn a_private_directory_is_no_obstacle() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let first = Cluster::start(&dir.path().join("postgres"), &quick()).unwrap();
    // Root's server runs as another user, who cannot enter: its data are elsewhere, and that is said.
    let elsewhere = first.summary().contains("/var/lib/modelyard/");
    assert_eq!(elsewhere, !dir.path().join("postgres/data").exists(), "{}", first.summary());
    first.create_database("works").unwrap();
    first.stop().unwrap();

    let second = Cluster::start(&dir.path().join("postgres"), &quick()).unwrap();
    let summary = second.summary().to_owned();
    second.delete().unwrap();
    assert!(!dir.path().join("postgres/data").exists());
    if let Some((_, path)) = summary.split_once("data are in ") {
        assert!(!Path::new(path.split(';').next().unwrap().split(',').next().unwrap()).exists());
    }
}

#[test]
fn a_server_orphaned_by_its_process_is_adopted_and_stopped() {
    // The orphan's owner is this test program, run again as a process that ends without dropping anything.
    if let Some(dir) = std::env::var_os("ORPHAN_A_SERVER_IN") {
        std::mem::forget(Cluster::start(Path::new(&dir), &quick()).unwrap());
        std::process::exit(0);
    }
    let dir = tempfile::tempdir().unwrap();
    let owner = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_server_orphaned_by_its_process_is_adopted_and_stopped"])
        .env("ORPHAN_A_SERVER_IN", dir.path())
        .status()
        .unwrap();
    assert!(owner.success());

    let Err(Error::AlreadyRunning { .. }) = Cluster::start(dir.path(), &quick()) else {
        panic!("a second server was started on live data")
    };
    let adopted = Cluster::adopt(dir.path()).unwrap();
    adopted.create_database("works").unwrap();
    let pid = adopted.pid().unwrap();
    adopted.stop().unwrap();
    assert!(!is_running(pid));
}
