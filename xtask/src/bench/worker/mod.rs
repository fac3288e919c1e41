//! `bench worker`: what the worker leaves of the engine's speed, beside its limits and its peers in the same run.
//!
//! One limit is the engine alone, in a process with the same threads; the other an HTTP server that echoes the same bytes.
//! The peers are MLServer, in the better of two configurations, and LitServe. All take turns of a few seconds on the same
//! cores, and share them with the load; each figure is a median of rounds.

mod peers;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use modelyard_core::Digest;
use serde::{Deserialize, Serialize};

use super::figures::{Figures, median, rounded};
use super::process::{Process, Program};
use crate::build::{self, Profile};
use crate::console::Console;
use crate::models::{self, Models};
use crate::{ports, workspace};
use peers::Peers;

const CORES: &str = "0,1";
const THREADS: &str = "2";
const NAMES: [&str; 5] = ["linear", "mlp", "silero", "magika", "forest"];
const MAKE: &str = include_str!("models.py");
/// The connections that ratios are told at.
const MAIN: usize = 16;
const MANY: [usize; 2] = [64, 256];
const READY_WITHIN: Duration = Duration::from_secs(90);

type ByModel = BTreeMap<&'static str, f64>;

/// Ratios are ours / theirs.
#[derive(Debug, Default, Serialize)]
struct Report {
    throughput_ratio: BTreeMap<&'static str, ByModel>,
    /// CPU per request / (of an echo of the same bytes + of the engine).
    cpu_over_floor: BTreeMap<&'static str, ByModel>,
    /// Throughput at 64 and 256 connections / at 16.
    held: BTreeMap<usize, ByModel>,
    /// Throughput of the MLP at 64 connections with batches / without.
    batching: ByModel,
    /// Of the worker with the linear model, before it was asked, in MiB; beyond a process with the engine: see `engine_mib`.
    idle_mib: f64,
    engine_mib: f64,
    /// From start to ready, with magika's 3 MB, in milliseconds.
    ready_ms: f64,
    failed: u64,
}

/// What `modelyard-bench engine` prints.
#[derive(Debug, Deserialize)]
struct InProcess {
    per_second: f64,
    cpu_us: f64,
    memory: f64,
}

/// The figures, as JSON and in words.
pub(super) async fn measure(rounds: u32, profile: Profile, console: Console) -> Result<(String, Vec<String>)> {
    let models = models::prepare(console)?;
    let peers = Peers::find(console)?;
    console.say("building the worker and the load");
    let binaries = build::some(profile, &["modelyard-worker", "modelyard-bench"]).await?;
    let dir = tempfile::tempdir().context("no directory for models")?;
    let files = make(dir.path(), &models)?;
    let http = reqwest::Client::builder().no_proxy().build()?;
    let bench = Bench { binaries, models, peers, dir: dir.path(), files, rounds, console, http };
    let mut report = Report::default();
    let mut lines = Vec::new();
    for name in NAMES {
        bench.model(name, &mut report, &mut lines).await?;
    }
    bench.batching(&mut report, &mut lines).await?;
    bench.start(&mut report, &mut lines).await?;
    lines.extend(words(&report));
    Ok((serde_json::to_string(&report)?, lines))
}

/// Makes models and requests; where each model lies.
fn make(dir: &Path, models: &Models) -> Result<BTreeMap<&'static str, PathBuf>> {
    let theirs = |file: &str| models.dir.join(file);
    let files: BTreeMap<_, _> = [
        ("linear", workspace::root().join("manifests/examples/linear-1.onnx")),
        ("silero", theirs("silero_vad_16k_op15.onnx")),
        ("magika", theirs("magika_standard_v3_3.onnx")),
        ("mlp", dir.join("mlp.onnx")),
        ("forest", dir.join("forest.onnx")),
    ]
    .into();
    let given = files.iter().filter(|(_, file)| !file.starts_with(dir)).map(|(name, file)| {
        let mut argument = OsString::from(format!("{name}="));
        argument.push(file);
        argument
    });
    let output = Command::new(&models.python).args(["-c", MAKE]).arg(dir).args(given).output();
    let output = output.context("cannot run Python")?;
    ensure!(output.status.success(), "the models were not made: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(files)
}

struct Bench<'a> {
    binaries: PathBuf,
    models: Models,
    peers: Peers,
    dir: &'a Path,
    files: BTreeMap<&'static str, PathBuf>,
    rounds: u32,
    console: Console,
    http: reqwest::Client,
}

/// A server under load.
struct Server {
    process: Process,
    url: String,
}

impl Bench<'_> {
    fn program(&self, name: &str) -> Program {
        Program::new(self.binaries.join(name), CORES)
    }

    fn file(&self, name: &str) -> Result<&Path> {
        self.files.get(name).map(PathBuf::as_path).with_context(|| format!("there is no model {name}"))
    }

    fn log(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.log"))
    }

    async fn model(&self, name: &'static str, report: &mut Report, lines: &mut Vec<String>) -> Result<()> {
        let ours = self.worker(name, &[]).await?;
        let echo = self.echo().await?;
        let (mlserver, workers) = self.mlserver(name).await?;
        let litserve = self.litserve(name).await?;
        let mut rounds: BTreeMap<&'static str, Vec<Figures>> = BTreeMap::new();
        let mut engine = Vec::new();
        for _ in 0..self.rounds {
            engine.push(self.in_process(name).await?);
            let loads = [
                ("ours, JSON", &ours, MAIN, false),
                ("ours, binary", &ours, MAIN, true),
                ("echo, JSON", &echo, MAIN, false),
                ("echo, binary", &echo, MAIN, true),
                ("ours, 64", &ours, MANY[0], false),
                ("ours, 256", &ours, MANY[1], false),
                ("MLServer", &mlserver, MAIN, false),
                ("LitServe", &litserve, MAIN, false),
            ];
            for (what, server, connections, is_binary) in loads {
                let figures = self.load(server, name, connections, is_binary).await?;
                self.console.say(format_args!(
                    "{name:>7} {what:<13} {:9.0} requests/s {:8.1} µs of CPU",
                    figures.good_per_second, figures.cpu_us
                ));
                rounds.entry(what).or_default().push(figures);
            }
        }
        let of = |what: &str| rounds.get(what).map(|rounds| Figures::median(rounds)).unwrap_or_default();
        let (per_second, engine_cpu) =
            (median(engine.iter().map(|e| e.per_second).collect()), median(engine.iter().map(|e| e.cpu_us).collect()));
        let (json, binary) = (of("ours, JSON"), of("ours, binary"));
        let mut ratio = |peer, theirs: f64| {
            report.throughput_ratio.entry(peer).or_default().insert(name, rounded(json.good_per_second / theirs));
        };
        ratio("in_process", per_second);
        ratio("mlserver", of("MLServer").good_per_second);
        ratio("litserve", of("LitServe").good_per_second);
        let mut over = |form, ours: f64, echo: f64| {
            report.cpu_over_floor.entry(form).or_default().insert(name, rounded(ours / (echo + engine_cpu)));
        };
        over("json", json.cpu_us, of("echo, JSON").cpu_us);
        over("binary", binary.cpu_us, of("echo, binary").cpu_us);
        for (connections, what) in MANY.into_iter().zip(["ours, 64", "ours, 256"]) {
            let held = rounded(of(what).good_per_second / json.good_per_second);
            report.held.entry(connections).or_default().insert(name, held);
        }
        report.failed +=
            ["ours, JSON", "ours, binary", "ours, 64", "ours, 256"].map(|what| of(what).failed()).iter().sum::<u64>();
        lines.push(format!("{name}: in process {per_second:.0} calls/s, {engine_cpu:.1} µs of CPU each; MLServer with {workers} workers"));
        for (what, figures) in rounds.iter().map(|(what, rounds)| (what, Figures::median(rounds))) {
            lines.push(format!(
                "  {what:<13} {:9.0} requests/s   {:8.1} µs of CPU   p50 {:7.0} µs   p99 {:7.0} µs",
                figures.good_per_second, figures.cpu_us, figures.p50_us, figures.p99_us
            ));
        }
        Ok(())
    }

    async fn in_process(&self, name: &str) -> Result<InProcess> {
        let request = self.dir.join(format!("{name}.json"));
        let arguments: [OsString; 8] = [
            "engine".into(),
            "--model".into(),
            self.file(name)?.into(),
            "--onnxruntime".into(),
            self.models.onnxruntime.clone().into(),
            "--request".into(),
            request.into(),
            format!("--threads={THREADS}").into(),
        ];
        self.program("modelyard-bench").args(arguments).figures().await
    }

    async fn worker(&self, name: &str, more: &[&str]) -> Result<Server> {
        let file = self.file(name)?;
        let digest = Digest::of(&std::fs::read(file)?);
        let listen = ports::free()?;
        let arguments: Vec<OsString> = vec![
            "serve".into(),
            "--format=onnx".into(),
            format!("--sha256={digest}").into(),
            "--artifact".into(),
            file.into(),
            "--instance-dir".into(),
            self.dir.join(format!("worker-{}", listen.port())).into(),
            format!("--model-name={name}").into(),
            "--model-version=1".into(),
            format!("--listen={listen}").into(),
            format!("--threads={THREADS}").into(),
            "--queue=1024".into(),
            "--onnxruntime".into(),
            self.models.onnxruntime.clone().into(),
        ];
        let program = self.program("modelyard-worker").args(arguments).args(more.iter().copied());
        self.ready(program, "worker", listen, "/v2/health/ready", &format!("/v2/models/{name}/infer")).await
    }

    /// Starts a server, and waits until it says that it is ready.
    async fn ready(&self, program: Program, log: &str, listen: SocketAddr, ready: &str, path: &str) -> Result<Server> {
        let mut process = program.start(self.log(log))?;
        process.listens(listen).await?;
        let began = Instant::now();
        let url = format!("http://{listen}{ready}");
        while !self.http.get(&url).send().await.is_ok_and(|answer| answer.status().is_success()) {
            ensure!(began.elapsed() < READY_WITHIN, "{log} is not ready after {} s", READY_WITHIN.as_secs());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(Server { process, url: format!("http://{listen}{path}") })
    }

    async fn echo(&self) -> Result<Server> {
        let listen = ports::free()?;
        let mut process = self
            .program("modelyard-bench")
            .args(["echo".into(), format!("--listen={listen}")])
            .start(self.log("echo"))?;
        process.listens(listen).await?;
        Ok(Server { process, url: format!("http://{listen}/") })
    }

    /// The better of inference in the server's process and in two of its own; how many those were.
    async fn mlserver(&self, name: &str) -> Result<(Server, u32)> {
        let mut found: Option<(f64, Server, u32)> = None;
        for workers in [0, 2] {
            let listen = ports::free()?;
            let program = self.peers.mlserver(self.dir, name, self.file(name)?, listen, workers, CORES)?;
            let path = format!("/v2/models/{name}/infer");
            let server = self.ready(program, "mlserver", listen, "/v2/health/ready", &path).await?;
            let figures = self.load(&server, name, MAIN, false).await?;
            if found.as_ref().is_none_or(|(best, ..)| figures.good_per_second > *best) {
                found = Some((figures.good_per_second, server, workers));
            }
        }
        found.map(|(_, server, workers)| (server, workers)).context("MLServer was not measured")
    }

    async fn litserve(&self, name: &str) -> Result<Server> {
        let listen = ports::free()?;
        let program = self.peers.litserve(self.dir, self.file(name)?, listen, CORES)?;
        self.ready(program, "litserve", listen, "/health", "/predict").await
    }

    async fn load(&self, server: &Server, name: &str, connections: usize, is_binary: bool) -> Result<Figures> {
        let body = self.dir.join(format!("{name}.{}", if is_binary { "bin" } else { "json" }));
        let header = if is_binary {
            let length = std::fs::read_to_string(self.dir.join(format!("{name}.length")))?;
            format!("inference-header-content-length: {length}")
        } else {
            "content-type: application/json".into()
        };
        let arguments: [OsString; 14] = [
            "load".into(),
            "--url".into(),
            server.url.clone().into(),
            "--connections".into(),
            connections.to_string().into(),
            "--cpu-of".into(),
            server.process.pid.to_string().into(),
            "--header".into(),
            header.into(),
            "--for=2s".into(),
            "--warm-up=500ms".into(),
            "--body".into(),
            body.into(),
            "--deadline=1h".into(),
        ];
        let figures: Figures = self.program("modelyard-bench").args(arguments).figures().await?;
        ensure!(figures.good > 0, "{name}: no request was answered with 2xx by {}", server.url);
        Ok(figures)
    }

    async fn batching(&self, report: &mut Report, lines: &mut Vec<String>) -> Result<()> {
        let name = "mlp";
        let alone = self.worker(name, &[]).await?;
        let together = self.worker(name, &["--max-batch-size=64", "--max-batch-delay=1ms"]).await?;
        for (form, is_binary) in [("json", false), ("binary", true)] {
            let (mut with, mut without) = (Vec::new(), Vec::new());
            for _ in 0..self.rounds {
                without.push(self.load(&alone, name, MANY[0], is_binary).await?);
                with.push(self.load(&together, name, MANY[0], is_binary).await?);
            }
            let (with, without) = (Figures::median(&with), Figures::median(&without));
            report.batching.insert(form, rounded(with.good_per_second / without.good_per_second));
            lines.push(format!(
                "mlp, {form}, 64 connections: {:.0} requests/s in batches, {:.0} without",
                with.good_per_second, without.good_per_second
            ));
        }
        Ok(())
    }

    /// How soon it is ready, and what it holds then.
    async fn start(&self, report: &mut Report, lines: &mut Vec<String>) -> Result<()> {
        let mut times = Vec::new();
        for _ in 0..self.rounds.max(3) {
            let began = Instant::now();
            let worker = self.worker("magika", &[]).await?;
            times.push(began.elapsed().as_secs_f64() * 1000.0);
            drop(worker);
        }
        report.ready_ms = rounded(median(times));
        let idle = self.worker("linear", &[]).await?;
        report.idle_mib = rounded(memory_mib(idle.process.pid));
        report.engine_mib = rounded(self.in_process("linear").await?.memory / f64::from(1 << 20));
        lines.push(format!(
            "ready after {:.0} ms (magika); {:.1} MiB idle, a process with the engine alone {:.1} MiB",
            report.ready_ms, report.idle_mib, report.engine_mib
        ));
        Ok(())
    }
}

/// Resident.
fn memory_mib(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<f64>().ok()).unwrap_or_default() / 1024.0
}

fn words(report: &Report) -> Vec<String> {
    let each =
        |of: &ByModel| of.iter().map(|(name, ratio)| format!("{name} {ratio:.2}")).collect::<Vec<_>>().join(", ");
    let throughput =
        report.throughput_ratio.iter().map(|(peer, of)| format!("throughput, ours / {peer}: {}", each(of)));
    let cpu =
        report.cpu_over_floor.iter().map(|(form, of)| format!("CPU, ours / (echo + engine), {form}: {}", each(of)));
    let held = report.held.iter().map(|(n, of)| format!("throughput at {n} connections / at {MAIN}: {}", each(of)));
    let batching = std::iter::once(format!("throughput of the MLP in batches / without: {}", each(&report.batching)));
    throughput.chain(cpu).chain(held).chain(batching).chain([format!("failed: {}", report.failed)]).collect()
}
