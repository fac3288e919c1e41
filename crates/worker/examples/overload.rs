//! What a worker does when it is asked for more than it can: requests that arrive at 1, 2 and 5 times its capacity,
//! whether or not those before them are answered, each with a deadline.
//!
//! `overload --worker target/release/modelyard-worker --model model.onnx [-- arguments of serve]` prints, for each rate:
//! requests answered within their deadline (goodput), latencies of all that were answered, refusals, and the worker's
//! CPU time. The load runs on the same machine, on one thread, and takes its part of it: so goodput is told for a second
//! of the worker's CPU time too, and the load's own lag, beyond some milliseconds of which a line is worth nothing.

#![expect(clippy::print_stdout, reason = "it is what this is for")]

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Parser as _;
use modelyard_core::{Datatype, Digest, Span, TensorSpec};
use modelyard_protocol::{InferRequest, ModelMetadata, TIMEOUT, Tensor, TensorData};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::LocalSet;
use tokio::time::{sleep_until, timeout};

/// Connections that the load opens at most.
const MOST: usize = 4000;
/// Clients of the closed loop that measures the capacity, for each thread of the worker.
const CLIENTS: usize = 4;

#[derive(Debug, clap::Parser)]
struct Args {
    /// The binary of the worker.
    #[arg(long)]
    worker: PathBuf,
    /// A model, ONNX or dense (.json).
    #[arg(long)]
    model: PathBuf,
    /// What clients wait at most, and say so.
    #[arg(long, default_value = "250ms")]
    deadline: Span,
    /// Clients do not say how long they wait.
    #[arg(long)]
    untold: bool,
    /// How long each rate is kept up.
    #[arg(long, default_value = "6s")]
    time: Span,
    /// Times the capacity.
    #[arg(long, value_delimiter = ',', default_value = "1,2,5")]
    rates: Vec<f64>,
    /// Of tensors, as bytes instead of JSON.
    #[arg(long)]
    binary: bool,
    /// For the worker.
    #[arg(last = true)]
    serve: Vec<String>,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let worker = Worker::start(&args)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, measure(&args, &worker))
}

async fn measure(args: &Args, worker: &Worker) -> anyhow::Result<()> {
    let load = Rc::new(Load::new(args, worker.address).await?);
    let status = load.ask().await?;
    anyhow::ensure!(status == 200, "the model answers {status} to made-up inputs: use another one");
    let capacity = capacity(&load, args.time.as_duration()).await?;
    println!("capacity: {capacity:.0} answers/s; deadline {}, {} bytes of request", args.deadline, load.request.len());
    println!(
        " rate offered/s in time/s    late/s    429/s    504/s failed/s   p50 ms    p99 ms     CPU load's lag p99 ms"
    );
    let mut goodput = Vec::new();
    for factor in &args.rates {
        let before = worker.cpu()?;
        let report = open_loop(&load, capacity * factor, args.time.as_duration()).await;
        let cpu = (worker.cpu()? - before).as_secs_f64() / report.elapsed.as_secs_f64();
        goodput.push(report.print(*factor, args.deadline.as_duration(), cpu));
        // What is left of the rate before is over.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    if let ([first, ..], [.., last]) = (&*goodput, &*goodput) {
        let (in_time, for_cpu) = (last.0 / first.0, last.1 / first.1);
        println!(
            "goodput at the last rate is {in_time:.2} of that at the first, and {for_cpu:.2} for a second of CPU time"
        );
    }
    Ok(())
}

/// Answers per second of clients that ask again at once.
async fn capacity(load: &Rc<Load>, time: Duration) -> anyhow::Result<f64> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let (answered, begun) = (Rc::new(Cell::new(0_u32)), Instant::now());
    let clients: Vec<_> = (0..cores * CLIENTS)
        .map(|_| {
            let (load, answered) = (load.clone(), answered.clone());
            tokio::task::spawn_local(async move {
                while begun.elapsed() < time {
                    if load.ask().await? == 200 {
                        answered.set(answered.get() + 1);
                    }
                }
                anyhow::Ok(())
            })
        })
        .collect();
    for client in clients {
        client.await??;
    }
    Ok(f64::from(answered.get()) / begun.elapsed().as_secs_f64())
}

/// Requests at a rate, at random times (exponential gaps).
async fn open_loop(load: &Rc<Load>, rate: f64, time: Duration) -> Report {
    let (begun, answers) = (Instant::now(), Rc::new(RefCell::new(Vec::new())));
    let (mut next, mut offered) = (begun, Vec::new());
    while next < begun + time {
        sleep_until(next.into()).await;
        // Those whose time it is by now.
        while next <= Instant::now() && next < begun + time {
            let (load, answers, due) = (load.clone(), answers.clone(), next);
            offered.push(tokio::task::spawn_local(async move {
                let lag = due.elapsed();
                let status = load.ask().await.unwrap_or(0);
                answers.borrow_mut().push(Answer { status, lag, time: due.elapsed() });
            }));
            next += Duration::from_secs_f64(-(1.0 - fastrand::f64()).ln() / rate);
        }
    }
    let elapsed = begun.elapsed();
    let offered_count = offered.len();
    for one in offered {
        one.await.ok();
    }
    Report { offered: offered_count, elapsed, answers: answers.take() }
}

struct Report {
    offered: usize,
    elapsed: Duration,
    answers: Vec<Answer>,
}

struct Answer {
    /// Or 0.
    status: u16,
    /// From when it was to be sent to when it was: beyond some milliseconds, it is the load that is slow.
    lag: Duration,
    /// From when it was to be sent.
    time: Duration,
}

impl Report {
    /// Gives the goodput for a second of time, and of the worker's CPU time.
    fn print(&self, factor: f64, deadline: Duration, cpu: f64) -> (f64, f64) {
        let each = |count: usize| count as f64 / self.elapsed.as_secs_f64();
        let count =
            |of: &dyn Fn(u16, Duration) -> bool| each(self.answers.iter().filter(|a| of(a.status, a.time)).count());
        let in_time = count(&|status, time| status == 200 && time <= deadline);
        let good = sorted(self.answers.iter().filter(|answer| answer.status == 200).map(|answer| answer.time));
        let lags = sorted(self.answers.iter().map(|answer| answer.lag));
        println!(
            "{factor:>5} {:>9.0} {in_time:>9.0} {:>9.0} {:>8.0} {:>8.0} {:>8.0} {:>8.1} {:>9.1} {cpu:>7.2} {:>13.0} {:>10.1}",
            each(self.offered),
            count(&|status, time| status == 200 && time > deadline),
            count(&|status, _| status == 429),
            count(&|status, _| status == 504),
            count(&|status, _| !matches!(status, 200 | 429 | 504)),
            quantile(&good, 50),
            quantile(&good, 99),
            in_time / cpu,
            quantile(&lags, 99),
        );
        (in_time, in_time / cpu)
    }
}

fn sorted(times: impl Iterator<Item = Duration>) -> Vec<Duration> {
    let mut times: Vec<_> = times.collect();
    times.sort_unstable();
    times
}

/// In milliseconds.
fn quantile(sorted: &[Duration], percent: usize) -> f64 {
    sorted.get(sorted.len() * percent / 100).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
}

struct Load {
    address: SocketAddr,
    request: Vec<u8>,
    patience: Duration,
    idle: RefCell<Vec<TcpStream>>,
    open: Cell<usize>,
}

impl Load {
    async fn new(args: &Args, address: SocketAddr) -> anyhow::Result<Self> {
        let get = "GET /v2/models/m HTTP/1.1\r\nhost: w\r\n\r\n".as_bytes().to_vec();
        let patience = args.deadline.as_duration() * 8 + Duration::from_secs(1);
        let mut load = Self { address, request: get, patience, idle: RefCell::default(), open: Cell::new(0) };
        let mut stream = TcpStream::connect(address).await?;
        let (status, body) = load.exchange(&mut stream).await?;
        anyhow::ensure!(status == 200, "the model is not described: {}", String::from_utf8_lossy(&body));
        let metadata: ModelMetadata = serde_json::from_slice(&body)?;
        let inputs = metadata.inputs.iter().map(numbers).collect::<anyhow::Result<Vec<_>>>()?;
        let request = InferRequest { inputs, ..InferRequest::default() };
        let (body, length) = if args.binary {
            let encoded = request.to_binary()?;
            (encoded.body, encoded.json_length.map(|length| format!("inference-header-content-length: {length}\r\n")))
        } else {
            (request.to_json()?, None)
        };
        let timeout = if args.untold { String::new() } else { format!("{TIMEOUT}: {}\r\n", args.deadline) };
        load.request = format!(
            "POST /v2/models/m/infer HTTP/1.1\r\nhost: w\r\n{timeout}{}content-length: {}\r\n\r\n",
            length.unwrap_or_default(),
            body.len()
        )
        .into_bytes();
        load.request.extend(body);
        Ok(load)
    }

    /// The status of one answer.
    async fn ask(&self) -> anyhow::Result<u16> {
        let idle = self.idle.borrow_mut().pop();
        let mut stream = match idle {
            Some(stream) => stream,
            None => {
                anyhow::ensure!(self.open.get() < MOST, "too many connections are open");
                self.open.set(self.open.get() + 1);
                let stream = TcpStream::connect(self.address).await?;
                stream.set_nodelay(true)?;
                stream
            }
        };
        match timeout(self.patience, self.exchange(&mut stream)).await {
            Ok(Ok((status, _))) => {
                self.idle.borrow_mut().push(stream);
                Ok(status)
            }
            Ok(Err(error)) => {
                self.open.set(self.open.get() - 1);
                Err(error)
            }
            Err(_) => {
                self.open.set(self.open.get() - 1);
                anyhow::bail!("no answer")
            }
        }
    }

    async fn exchange(&self, stream: &mut TcpStream) -> anyhow::Result<(u16, Vec<u8>)> {
        stream.write_all(&self.request).await?;
        let (mut answer, mut chunk) = (Vec::new(), [0; 16 << 10]);
        loop {
            let count = stream.read(&mut chunk).await?;
            anyhow::ensure!(count > 0, "the connection was closed");
            answer.extend_from_slice(&chunk[..count]);
            let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
            let head = std::str::from_utf8(&answer[..end])?;
            let field =
                |line: &str| line.strip_prefix("content-length: ").and_then(|value| value.parse::<usize>().ok());
            let length = head.lines().find_map(field).context("an answer without content-length")?;
            if answer.len() >= end + 4 + length {
                let status = head.get(9..12).context("no status")?.parse()?;
                return Ok((status, answer.split_off(end + 4)));
            }
        }
    }
}

fn numbers(spec: &TensorSpec) -> anyhow::Result<Tensor> {
    let shape: Vec<usize> = spec.shape.iter().map(|rows| usize::try_from(*rows).unwrap_or(1)).collect();
    let count = shape.iter().product();
    let data = match spec.datatype {
        // As long as numbers are that somebody measured.
        Datatype::Fp32 => TensorData::Fp32((0..count).map(|n| (n % 997) as f32 / 997.0).collect()),
        datatype => TensorData::zeros(datatype, count),
    };
    Tensor::new(&spec.name, shape, data).context("no tensor")
}

struct Worker {
    child: Child,
    address: SocketAddr,
    dir: PathBuf,
}

impl Worker {
    fn start(args: &Args) -> anyhow::Result<Self> {
        let dir = std::env::temp_dir().join(format!("modelyard-overload-{}", std::process::id()));
        std::fs::create_dir_all(&dir)?;
        let digest = Digest::of(&std::fs::read(&args.model)?).to_string();
        let format = if args.model.extension().is_some_and(|e| e == "json") { "dense" } else { "onnx" };
        let mut command = Command::new(&args.worker);
        command.args(["serve", "--model-name", "m", "--model-version", "1", "--format", format, "--sha256", &digest]);
        command.arg("--artifact").arg(&args.model).arg("--instance-dir").arg(&dir).args(&args.serve);
        let child = command.env("RUST_LOG", "warn").spawn().context("the worker does not start")?;
        let mut worker = Self { child, address: ([127, 0, 0, 1], 0).into(), dir };
        for _ in 0..1000 {
            std::thread::sleep(Duration::from_millis(20));
            if let Some(address) = worker.ready() {
                worker.address = address;
                return Ok(worker);
            }
        }
        anyhow::bail!("the worker is not ready within 20 s")
    }

    fn ready(&self) -> Option<SocketAddr> {
        use std::io::{Read as _, Write as _};
        let status: serde_json::Value =
            serde_json::from_slice(&std::fs::read(self.dir.join("status.json")).ok()?).ok()?;
        let address = status["address"].as_str()?.parse().ok()?;
        let mut stream = std::net::TcpStream::connect(address).ok()?;
        stream.write_all(b"GET /v2/health/ready HTTP/1.1\r\nhost: w\r\nconnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.starts_with("HTTP/1.1 200").then_some(address)
    }

    /// The time that it has computed, by all of its threads.
    fn cpu(&self) -> anyhow::Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let fields: Vec<&str> = stat.rsplit_once(") ").context("no stat")?.1.split(' ').collect();
        let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
        Ok(Duration::from_millis(ticks * 10))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        std::fs::remove_dir_all(&self.dir).ok();
    }
}
