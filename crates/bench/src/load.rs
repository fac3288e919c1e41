//! A load on one URL. Connections are made first and kept; requests are bytes that were made once.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::cli::LoadArgs;
use crate::cpu;
use crate::wire::Reader;

/// In microseconds: beyond it, latencies are told as this.
const LONGEST: u64 = 120_000_000;

/// What came of a load, of its measured part alone.
#[derive(Debug, Serialize)]
pub(crate) struct Figures {
    pub(crate) seconds: f64,
    /// Answered, whatever the status.
    pub(crate) answered: u64,
    /// Answered with 2xx, within the deadline where there is one.
    pub(crate) good: u64,
    /// By status.
    pub(crate) statuses: BTreeMap<u16, u64>,
    /// Connections that broke, or could not be made again.
    pub(crate) broken: u64,
    /// Requests that were due while every connection was waiting for an answer.
    pub(crate) behind: u64,
    pub(crate) good_per_second: f64,
    /// Of answers with 2xx, in microseconds.
    pub(crate) p50_us: u64,
    pub(crate) p90_us: u64,
    pub(crate) p99_us: u64,
    /// Of the processes named, for each answer.
    pub(crate) cpu_us: f64,
    /// Of the processes named, at the end.
    pub(crate) memory: u64,
}

struct Log {
    from: Instant,
    until: Instant,
    deadline: Option<Duration>,
    latencies: Histogram<u32>,
    statuses: BTreeMap<u16, u64>,
    good: u64,
    broken: u64,
    behind: u64,
}

impl Log {
    fn counts(&self, at: Instant) -> bool {
        at >= self.from && at < self.until
    }

    fn answered(&mut self, status: u16, latency: Duration) {
        if !self.counts(Instant::now()) {
            return;
        }
        *self.statuses.entry(status).or_default() += 1;
        if (200..300).contains(&status) {
            let micros = u64::try_from(latency.as_micros()).unwrap_or(LONGEST);
            self.latencies.saturating_record(micros.clamp(1, LONGEST));
            self.good += u64::from(self.deadline.is_none_or(|deadline| latency <= deadline));
        }
    }
}

/// # Errors
/// If no connection can be made, or nothing was answered.
pub(crate) async fn run(args: &LoadArgs) -> anyhow::Result<Figures> {
    let address = address(args).await?;
    let request: Rc<[u8]> = request(args)?.into();
    let begin = Instant::now();
    let (warm_up, time) = (args.warm_up.as_duration(), args.time.as_duration());
    let log = Rc::new(RefCell::new(Log {
        from: begin + warm_up,
        until: begin + warm_up + time,
        deadline: args.deadline.map(|deadline| deadline.as_duration()),
        latencies: Histogram::new_with_bounds(1, LONGEST, 3)?,
        statuses: BTreeMap::new(),
        good: 0,
        broken: 0,
        behind: 0,
    }));
    let clock = args.rate.map(|rate| Rc::new(Clock::new(rate)));
    let mut connections = JoinSet::new();
    for _ in 0..args.connections {
        let stream = TcpStream::connect(address).await.with_context(|| format!("nobody listens at {address}"))?;
        connections.spawn_local(ask(address, stream, request.clone(), log.clone(), clock.clone()));
    }
    let family = cpu::family(&args.cpu_of);
    tokio::time::sleep_until((begin + warm_up).into()).await;
    let before = cpu::time(&family);
    tokio::time::sleep_until((begin + warm_up + time).into()).await;
    let used = cpu::time(&family).saturating_sub(before);
    let memory = cpu::memory(&family);
    connections.shutdown().await;
    let log = log.borrow();
    let answered: u64 = log.statuses.values().sum();
    ensure!(answered > 0, "nothing was answered");
    let quantile = |share| log.latencies.value_at_quantile(share);
    Ok(Figures {
        seconds: time.as_secs_f64(),
        answered,
        good: log.good,
        statuses: log.statuses.clone(),
        broken: log.broken,
        behind: log.behind,
        good_per_second: as_f64(log.good) / time.as_secs_f64(),
        p50_us: quantile(0.5),
        p90_us: quantile(0.9),
        p99_us: quantile(0.99),
        cpu_us: used.as_secs_f64() * 1e6 / as_f64(answered),
        memory,
    })
}

#[expect(clippy::cast_precision_loss, reason = "counts of requests are far below 2^52")]
fn as_f64(count: u64) -> f64 {
    count as f64
}

async fn address(args: &LoadArgs) -> anyhow::Result<std::net::SocketAddr> {
    let host = args.url.host_str().context("the URL has no host")?;
    let port = args.url.port_or_known_default().context("the URL has no port")?;
    tokio::net::lookup_host((host, port)).await?.next().context("the host has no address")
}

fn request(args: &LoadArgs) -> anyhow::Result<Vec<u8>> {
    let body = std::fs::read(&args.body).with_context(|| format!("cannot read {}", args.body.display()))?;
    let host = args.url.authority();
    let mut head = format!(
        "POST {} HTTP/1.1\r\nhost: {host}\r\nuser-agent: modelyard-bench\r\naccept: */*\r\ncontent-length: {}\r\n",
        args.url.path(),
        body.len()
    );
    for header in &args.header {
        head.push_str(header);
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    Ok([head.into_bytes(), body].concat())
}

/// When requests are due, however long answers take.
struct Clock {
    begin: Instant,
    period: Duration,
    next: RefCell<u32>,
}

impl Clock {
    fn new(rate: f64) -> Self {
        Self { begin: Instant::now(), period: Duration::from_secs_f64(1.0 / rate), next: RefCell::new(0) }
    }

    fn next_due(&self) -> Instant {
        let mut next = self.next.borrow_mut();
        *next += 1;
        self.begin + self.period * *next
    }
}

async fn ask(
    address: std::net::SocketAddr,
    mut stream: TcpStream,
    request: Rc<[u8]>,
    log: Rc<RefCell<Log>>,
    clock: Option<Rc<Clock>>,
) {
    loop {
        stream.set_nodelay(true).ok();
        let (read, mut write) = stream.into_split();
        let mut answers = Reader::new(read);
        loop {
            let asked = match &clock {
                Some(clock) => {
                    let due = clock.next_due();
                    if due < Instant::now() {
                        let mut log = log.borrow_mut();
                        log.behind += u64::from(log.counts(due));
                    }
                    tokio::time::sleep_until(due.into()).await;
                    due
                }
                None => Instant::now(),
            };
            if write.write_all(&request).await.is_err() {
                break;
            }
            match answers.response().await {
                Ok(Some(answer)) => log.borrow_mut().answered(answer.status, asked.elapsed()),
                Ok(None) | Err(_) => break,
            }
        }
        {
            let mut log = log.borrow_mut();
            log.broken += u64::from(log.counts(Instant::now()));
        }
        match TcpStream::connect(address).await {
            Ok(anew) => stream = anew,
            Err(_) => return,
        }
    }
}
