//! `bench gateway`: what a request costs the gateway, beside Envoy, nginx and haproxy in the same run.
//!
//! All split traffic 90 to 10 over the same two backends, and take turns of a few seconds; each figure is a median of
//! rounds. With one thread, proxies have a core of their own, and the load and the backends the other; with two, all share both.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use super::figures::{Figures, rounded};
use super::process::{Process, Program};
use super::proxies::{NAMES, Proxies, Setup};
use crate::build::{self, Profile};
use crate::console::Console;
use crate::ports;

const DEPLOYMENT: &str = "linear";
const OURS: &str = "modelyard";
const ANSWER: usize = 200;
/// About 300 bytes, as a client sends them.
const SMALL: &str = r#"{"id":"bench","inputs":[{"name":"x","shape":[8,2],"datatype":"FP32","data":[3.5,4.25,0.125,-1.75,2.5,3.0,-0.5,1.0,3.5,4.25,0.125,-1.75,2.5,3.0,-0.5,1.0]}],"outputs":[{"name":"y"}],"parameters":{"priority":1,"sequence":"0001-0002-0003-0004-0005-0006-0007-0008-0009"}}"#;
const LARGE: usize = 1 << 20;
/// The connections that ratios are told at.
const MAIN: usize = 32;
const PROXY_CORE: &str = "0";
const OTHER_CORE: &str = "1";
const ALL_CORES: &str = "0,1";

/// Ratios are ours / theirs, by the peer's name.
#[derive(Debug, Serialize)]
struct Ratios {
    cpu_ratio: BTreeMap<&'static str, f64>,
    p99_ratio: BTreeMap<&'static str, f64>,
    throughput_ratio: BTreeMap<&'static str, f64>,
}

#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    one_thread: Ratios,
    two_threads: Ratios,
    large_bodies: Ratios,
    /// With a new route table every 100 ms / without.
    swaps_cpu_ratio: f64,
    failed: u64,
}

/// One kind of load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Case {
    threads: usize,
    connections: usize,
    large: bool,
}

/// The figures, as JSON and in words.
pub(super) async fn measure(rounds: u32, profile: Profile, console: Console) -> Result<(String, Vec<String>)> {
    let proxies = Proxies::find(console)?;
    console.say("building the gateway and the load");
    let binaries = build::some(profile, &["modelyard-gateway", "modelyard-bench"]).await?;
    let dir = tempfile::tempdir().context("no directory for configurations")?;
    std::fs::write(dir.path().join("small"), SMALL)?;
    std::fs::write(dir.path().join("large"), vec![b'x'; LARGE])?;
    let bench = Bench { binaries, proxies, dir: dir.path(), rounds, console };
    let mut measured = BTreeMap::new();
    let one = |connections, large| Case { threads: 1, connections, large };
    let two = |connections| Case { threads: 2, connections, large: false };
    bench.cases(1, &[one(1, false), one(MAIN, false), one(128, false), one(8, true)], &mut measured).await?;
    bench.cases(2, &[two(MAIN), two(128)], &mut measured).await?;
    let swaps_cpu_ratio = rounded(bench.swaps().await?);
    let report = Report {
        one_thread: ratios(&measured, one(MAIN, false)),
        two_threads: ratios(&measured, two(MAIN)),
        large_bodies: ratios(&measured, one(8, true)),
        swaps_cpu_ratio,
        failed: measured.values().map(Figures::failed).sum(),
    };
    Ok((serde_json::to_string(&report)?, words(&measured, &report)))
}

type Measured = BTreeMap<(Case, &'static str), Figures>;

fn ratios(measured: &Measured, case: Case) -> Ratios {
    let of = |figure: fn(&Figures) -> f64| {
        let value = |name| measured.get(&(case, name)).map_or(f64::NAN, figure);
        NAMES.map(|peer| (peer, rounded(value(OURS) / value(peer)))).into()
    };
    Ratios { cpu_ratio: of(|f| f.cpu_us), p99_ratio: of(|f| f.p99_us), throughput_ratio: of(|f| f.good_per_second) }
}

struct Bench<'a> {
    binaries: PathBuf,
    proxies: Proxies,
    dir: &'a Path,
    rounds: u32,
    console: Console,
}

/// What stands behind and around the proxies.
struct Surroundings {
    backends: [SocketAddr; 2],
    _processes: [Process; 2],
}

impl Bench<'_> {
    fn program(&self, name: &str, cores: &'static str) -> Program {
        Program::new(self.binaries.join(name), cores)
    }

    /// Each case, by all proxies in turn, round after round.
    async fn cases(&self, threads: usize, cases: &[Case], measured: &mut Measured) -> Result<()> {
        let (cores, others) = if threads == 1 { (PROXY_CORE, OTHER_CORE) } else { (ALL_CORES, ALL_CORES) };
        let surroundings = self.surroundings(others).await?;
        let mut proxies = Vec::new();
        for name in NAMES {
            let listen = ports::free()?;
            let setup = Setup { listen, backends: surroundings.backends, threads, dir: self.dir, cores };
            let mut process = self.proxies.program(name, &setup)?.start(self.dir.join(format!("{name}.log")))?;
            process.listens(listen).await?;
            proxies.push((name, listen, vec![process]));
        }
        let (listen, processes) = self.gateway(threads, cores, others, &surroundings, None).await?;
        proxies.push((OURS, listen, processes));
        for case in cases {
            let mut rounds: BTreeMap<&'static str, Vec<Figures>> = BTreeMap::new();
            for round in 0..self.rounds {
                // Nobody is always the first.
                let count = proxies.len();
                for index in (0..count).map(|n| (n + round as usize) % count) {
                    let Some((name, listen, processes)) = proxies.get(index) else { continue };
                    let pid = processes.first().map_or(0, |process| process.pid);
                    let figures = self.load(*listen, pid, others, *case).await?;
                    self.console.say(format_args!(
                        "{name:>10} {:>4} connections: {:6.1} µs of CPU, {:8.0} a second",
                        case.connections, figures.cpu_us, figures.good_per_second
                    ));
                    rounds.entry(*name).or_default().push(figures);
                }
            }
            for (name, rounds) in rounds {
                measured.insert((*case, name), Figures::median(&rounds));
            }
        }
        Ok(())
    }

    async fn surroundings(&self, cores: &'static str) -> Result<Surroundings> {
        let start = async || {
            let listen = ports::free()?;
            let program = self.program("modelyard-bench", cores).args(["backend", "--body-bytes"]);
            let program = program.args([ANSWER.to_string(), "--listen".into(), listen.to_string()]);
            let mut process = program.start(self.dir.join("backend.log"))?;
            process.listens(listen).await?;
            anyhow::Ok((listen, process))
        };
        let ((stable, one), (canary, other)) = (start().await?, start().await?);
        Ok(Surroundings { backends: [stable, canary], _processes: [one, other] })
    }

    /// The gateway first, then its control plane.
    async fn gateway(
        &self,
        threads: usize,
        cores: &'static str,
        others: &'static str,
        surroundings: &Surroundings,
        swap_every: Option<&str>,
    ) -> Result<(SocketAddr, Vec<Process>)> {
        let control = ports::free()?;
        let [stable, canary] = surroundings.backends.map(|address| address.to_string());
        let mut program = self.program("modelyard-bench", others);
        program = program.args(["control", "--deployment", DEPLOYMENT, "--listen"]).args([control.to_string()]);
        program = program.args(["--backends".to_owned(), stable, canary]);
        program = program.args(swap_every.iter().flat_map(|every| ["--swap-every", every]));
        let mut control_plane = program.start(self.dir.join("control.log"))?;
        control_plane.listens(control).await?;
        let listen = ports::free()?;
        let gateway = self.program("modelyard-gateway", cores).args([
            "--listen".to_owned(),
            listen.to_string(),
            "--control-plane".into(),
            format!("http://{control}"),
            "--threads".into(),
            threads.to_string(),
        ]);
        let mut gateway = gateway.start(self.dir.join("gateway.log"))?;
        gateway.listens(listen).await?;
        Ok((listen, vec![gateway, control_plane]))
    }

    async fn load(&self, listen: SocketAddr, pid: u32, cores: &'static str, case: Case) -> Result<Figures> {
        let body = self.dir.join(if case.large { "large" } else { "small" });
        let load = self.program("modelyard-bench", cores).args([
            "load".to_owned(),
            "--url".into(),
            format!("http://{listen}/v2/models/{DEPLOYMENT}/infer"),
            "--connections".into(),
            case.connections.to_string(),
            "--cpu-of".into(),
            pid.to_string(),
            "--header".into(),
            "content-type: application/json".into(),
            "--for".into(),
            "2s".into(),
            "--warm-up".into(),
            "300ms".into(),
            "--body".into(),
        ]);
        let figures: Figures = load.args([body]).figures().await?;
        ensure!(figures.good > 0, "no request was answered with 2xx");
        Ok(figures)
    }

    /// CPU per request while the route table is replaced every 100 ms, and while it is not: the ratio.
    async fn swaps(&self) -> Result<f64> {
        let surroundings = self.surroundings(OTHER_CORE).await?;
        let case = Case { threads: 1, connections: MAIN, large: false };
        let (mut with, mut without) = (Vec::new(), Vec::new());
        let swapping = self.gateway(1, PROXY_CORE, OTHER_CORE, &surroundings, Some("100ms")).await?;
        let steady = self.gateway(1, PROXY_CORE, OTHER_CORE, &surroundings, None).await?;
        for _ in 0..self.rounds {
            for ((listen, processes), figures) in [(&swapping, &mut with), (&steady, &mut without)] {
                let pid = processes.first().map_or(0, |process| process.pid);
                figures.push(self.load(*listen, pid, OTHER_CORE, case).await?);
            }
        }
        Ok(Figures::median(&with).cpu_us / Figures::median(&without).cpu_us)
    }
}

fn words(measured: &Measured, report: &Report) -> Vec<String> {
    let mut lines = Vec::new();
    let mut last = None;
    for ((case, name), figures) in measured {
        if last.replace(*case) != Some(*case) {
            let body = if case.large { "1 MiB" } else { "300 B" };
            lines.push(format!("{} thread(s), {} connections, {body} in:", case.threads, case.connections));
        }
        lines.push(format!(
            "  {name:<10} {:7.1} µs of CPU a request   {:7.0} requests/s   p50 {:6.0} µs   p99 {:6.0} µs",
            figures.cpu_us, figures.good_per_second, figures.p50_us, figures.p99_us
        ));
    }
    let told = |name: &str, ratios: &Ratios| {
        let each = |of: &BTreeMap<&'static str, f64>| {
            of.iter().map(|(peer, ratio)| format!("{peer} {ratio:.2}")).collect::<Vec<_>>().join(", ")
        };
        format!(
            "ours / theirs, {name}: CPU {}; p99 {}; throughput {}",
            each(&ratios.cpu_ratio),
            each(&ratios.p99_ratio),
            each(&ratios.throughput_ratio)
        )
    };
    lines.push(told("one thread, 32 connections", &report.one_thread));
    lines.push(told("two threads, 32 connections", &report.two_threads));
    lines.push(told("1 MiB bodies, 8 connections", &report.large_bodies));
    lines.push(format!("a new route table every 100 ms / none: CPU {:.3}", report.swaps_cpu_ratio));
    lines.push(format!("failed: {}", report.failed));
    lines
}
