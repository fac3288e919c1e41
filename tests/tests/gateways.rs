//! Two gateways follow one control plane: how soon a new table, and a worker's end, reach both.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use modelyard_api::types::Rollback;
use modelyard_core::{DeploymentName, RevisionNumber};
use modelyard_test_support::{Stack, binary, eventually, manifest};

const ROLLING: &str = "replicas: 2, strategy: {rolling: {}}";
const ROUNDS: usize = 10;
/// Far above what it takes, and far below what a poll or a lost wake would.
const SOON: Duration = Duration::from_secs(2);

/// A second gateway, without a state directory, as in a pod.
struct Second {
    process: Child,
    address: SocketAddr,
}

impl Second {
    fn start(stack: &Stack) -> Self {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let process = Command::new(binary("modelyard-gateway"))
            .args(["--control-plane", &stack.server_url(), "--listen", &address.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { process, address }
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// Figures of a program of ours, asked over one connection.
#[derive(Clone)]
struct Figures {
    url: String,
    http: reqwest::Client,
}

impl Figures {
    fn of(base: &str) -> Self {
        Self { url: format!("{base}/metrics"), http: reqwest::Client::builder().no_proxy().build().unwrap() }
    }

    /// The sum over all lines of that name.
    async fn sum(&self, name: &str) -> Option<u64> {
        let text = self.http.get(&self.url).send().await.ok()?.text().await.ok()?;
        let lines = text.lines().filter(|line| line.starts_with(name));
        let values: Vec<u64> = lines.map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap()).collect();
        (!values.is_empty()).then(|| values.iter().sum())
    }

    /// When the figure was first seen to be as wanted.
    async fn when(&self, name: &str, wanted: impl Fn(u64) -> bool) -> Instant {
        let began = Instant::now();
        while !self.sum(name).await.is_some_and(&wanted) {
            assert!(began.elapsed() < Duration::from_secs(60), "{} never has {name} as wanted", self.url);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Instant::now()
    }
}

fn linear() -> DeploymentName {
    "linear".parse().unwrap()
}

/// The middle and the longest, in milliseconds.
fn told(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    format!("median {:.1} ms, longest {:.1} ms", ms(times[times.len() / 2]), ms(times[times.len() - 1]))
}

#[tokio::test]
async fn both_gateways_apply_a_table_soon_after_it_is_published() {
    let stack = Stack::start().await;
    let second = Second::start(&stack);
    stack.apply_and_wait(&manifest("1", ROLLING)).await;
    stack.apply_and_wait(&manifest("2", ROLLING)).await;
    let control_plane = Figures::of(&stack.server_url());
    let gateways = [Figures::of(&stack.gateway_url()), Figures::of(&format!("http://{}", second.address))];
    let (mut after_publishing, mut after_command) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let before = control_plane.sum("modelyard_route_table_sequence").await.unwrap();
        let newer = |sequence| sequence > before;
        let watches = async {
            tokio::join!(
                control_plane.when("modelyard_route_table_sequence", newer),
                gateways[0].when("modelyard_gateway_route_table_sequence", newer),
                gateways[1].when("modelyard_gateway_route_table_sequence", newer),
            )
        };
        let asked = Instant::now();
        let rollback = Rollback { to_revision: None, reason: None };
        let name = linear();
        let ((published, one, two), revision) = tokio::join!(watches, stack.client.rollback(&name, &rollback, None));
        after_publishing.push(one.max(two).saturating_duration_since(published));
        after_command.push(one.max(two) - asked);
        let number = revision.unwrap().number;
        assert_eq!(number, RevisionNumber(3 + round as u64));
        stack.completed(number).await;
    }
    assert!(after_publishing.iter().max().unwrap() < &SOON, "{after_publishing:?}");
    eprintln!("published → applied by both gateways: {}", told(after_publishing));
    eprintln!("rollback asked for → applied by both gateways: {}", told(after_command));
}

#[tokio::test]
async fn both_gateways_leave_out_a_worker_soon_after_its_end() {
    let stack = Stack::start().await;
    let second = Second::start(&stack);
    stack.apply_and_wait(&manifest("1", ROLLING)).await;
    let gateways = [Figures::of(&stack.gateway_url()), Figures::of(&format!("http://{}", second.address))];
    let backends = "modelyard_gateway_backends{";
    for gateway in &gateways {
        gateway.when(backends, |count| count == 2).await;
    }
    let (_, pid) = stack.workers().pop_first().unwrap();
    let watches =
        async { tokio::join!(gateways[0].when(backends, |n| n == 1), gateways[1].when(backends, |n| n == 1)) };
    let killed = Instant::now();
    let ((one, two), ()) = tokio::join!(watches, async { stack.kill_worker(pid) });
    eprintln!("killed → left out by both gateways: {}", told(vec![one - killed, two - killed]));
    assert!(one.max(two) - killed < SOON);
    eventually("another takes its place", async || {
        let counts = [gateways[0].sum(backends).await?, gateways[1].sum(backends).await?];
        (counts == [2, 2]).then_some(())
    })
    .await;
}
