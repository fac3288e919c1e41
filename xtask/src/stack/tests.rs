//! The stack with stand-ins for its programs (small Python servers) and the real PostgreSQL.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::interval;

use super::*;

const WITHIN: Duration = Duration::from_secs(30);

/// Answers 200 to everything until SIGTERM; `stop-workers` leaves a note.
const STAND_IN: &str = r#"#!/usr/bin/env python3
import http.server, os, signal, sys
state = sys.argv[sys.argv.index("--state-dir") + 1]
if sys.argv[1] == "stop-workers":
    open(state + "/workers-were-stopped", "w").close()
    sys.exit(0)
host, port = sys.argv[sys.argv.index("--listen") + 1].rsplit(":", 1)
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()
http.server.HTTPServer((host, int(port)), Handler).serve_forever()
"#;

struct Bench {
    dir: TempDir,
    options: Options,
    interrupt: Interrupt,
    tell: watch::Sender<Option<rustix::process::Signal>>,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (tell, heard) = watch::channel(None);
        let options = Options {
            state_dir: dir.path().join("state"),
            listen: free(),
            gateway: free(),
            gateway_grpc: None,
            profile: Profile::Dev,
            binaries: Some(dir.path().to_path_buf()),
            quiet: true,
        };
        let bench = Self { dir, options, interrupt: Interrupt::told_by(heard), tell };
        bench.program("modelyard-control-plane", STAND_IN);
        bench.program("modelyard-gateway", STAND_IN);
        bench
    }

    fn program(&self, name: &str, text: &str) {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    }

    async fn start(&mut self) -> Result<Stack> {
        Stack::start(self.options.clone(), &mut self.interrupt).await
    }

    /// Whether any process was told to work below this bench's directory.
    fn is_anything_left(&self) -> bool {
        let needle = self.dir.path().as_os_str().as_encoded_bytes();
        std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            line.windows(needle.len()).any(|window| window == needle)
        })
    }

    fn workers_were_stopped(&self) -> bool {
        self.options.state_dir.join("workers-were-stopped").exists()
    }
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let mut tick = interval(Duration::from_millis(20));
    let met = async {
        while !condition() {
            tick.tick().await;
        }
    };
    timeout(WITHIN, met).await.unwrap_or_else(|_| panic!("not in time: {what}"));
}

fn pid_of(stack: &Stack, name: &str) -> Option<u32> {
    stack.pids().into_iter().find(|(of, _)| *of == name).map(|(_, pid)| pid)
}

#[tokio::test]
async fn a_killed_service_comes_back_and_stopping_leaves_nothing() {
    let mut bench = Bench::new();
    let stack = bench.start().await.unwrap();
    let killed = pid_of(&stack, GATEWAY).unwrap();
    let pid = rustix::process::Pid::from_raw(killed.cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    until("another gateway", || pid_of(&stack, GATEWAY).is_some_and(|pid| pid != killed)).await;

    assert!(bench.is_anything_left(), "this test can see processes");
    stack.stop().await.unwrap();
    assert!(!bench.is_anything_left());
    assert!(bench.workers_were_stopped());
}

#[tokio::test]
async fn a_second_stack_on_the_same_state_directory_is_refused_and_harms_nothing() {
    let mut bench = Bench::new();
    let stack = bench.start().await.unwrap();
    let error = bench.start().await.unwrap_err().to_string();
    assert!(error.contains(&format!("in use by `up`, pid {}", std::process::id())), "{error}");
    assert!(pid_of(&stack, CONTROL_PLANE).is_some() && pid_of(&stack, GATEWAY).is_some());
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn a_service_that_dies_while_starting_fails_the_start_with_its_last_words() {
    let mut bench = Bench::new();
    bench.program("modelyard-gateway", "#!/bin/sh\necho no such luck\nexit 3\n");
    let error = bench.start().await.unwrap_err().to_string();
    assert!(error.contains("exit status: 3") && error.contains("no such luck"), "{error}");
    assert!(!bench.is_anything_left());
    assert!(bench.workers_were_stopped());
}

#[tokio::test]
async fn an_interrupt_while_starting_ends_what_was_started() {
    let mut bench = Bench::new();
    // It says that it runs, and is never ready.
    let state = bench.options.state_dir.clone();
    bench.program(
        "modelyard-gateway",
        "#!/bin/sh\nwhile [ $# -gt 1 ]; do shift; done\necho here >\"$1.here\"\nexec tail -f /dev/null\n",
    );
    let tell = bench.tell.clone();
    let here = state.join("gateway.here");
    let interrupted = async {
        until("the gateway", || Path::new(&here).exists()).await;
        tell.send_replace(Some(rustix::process::Signal::INT));
    };
    let (started, ()) = tokio::join!(bench.start(), interrupted);
    assert!(started.unwrap_err().to_string().contains("interrupted"));
    assert!(!bench.is_anything_left());
    assert!(bench.workers_were_stopped());
}

#[tokio::test]
async fn a_taken_port_is_reported_before_anything_is_started() {
    let mut bench = Bench::new();
    let _taken = TcpListener::bind(bench.options.gateway).unwrap();
    let error = bench.start().await.unwrap_err().to_string();
    assert!(error.contains("--gateway"), "{error}");
    assert!(!bench.workers_were_stopped(), "what was not started is not stopped");
}
