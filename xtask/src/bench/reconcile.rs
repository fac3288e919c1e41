//! `bench reconcile`: many deployments at once on a real cluster. How long until all their objects are written, with how
//! many calls; what steady state costs; what a restart writes. Beside it, `kubectl apply --server-side` of the same
//! objects into another namespace, in the same run.
//!
//! The deployments have no replicas: what is measured is the control plane, not the machine's room for pods.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use modelyard_api::Client;
use modelyard_api::types::{Bundle, BundleFile};
use modelyard_core::Digest;
use modelyard_postgres_local::Cluster;
use serde::Serialize;
use serde_json::{Value, json};

use crate::build::{self, Profile};
use crate::console::Console;
use crate::interrupt::Interrupt;
use crate::{kube, ports, workspace};

const PATIENCE: Duration = Duration::from_secs(600);
/// How long steady state is watched.
const STEADY: Duration = Duration::from_secs(60);
const SETTLING: Duration = Duration::from_secs(10);
const TOKEN_SECRET: &str = "modelyard-admin-token";
/// What the control plane reads or writes; nothing else in an idle cluster lists or gets these.
const RESOURCES: [&str; 7] = [
    "deployments",
    "services",
    "poddisruptionbudgets",
    "horizontalpodautoscalers",
    "networkpolicies",
    "configmaps",
    "secrets",
];
/// As `apiserver_request_total` names them. Watches are what steady state is made of, and do not count.
const WRITES: [&str; 6] = ["APPLY", "PATCH", "POST", "PUT", "DELETE", "DELETECOLLECTION"];
const READS: [&str; 2] = ["LIST", "GET"];

#[derive(Debug, Serialize)]
struct Figures {
    deployments: u32,
    /// From the apply to the last object.
    seconds: f64,
    kubectl_seconds: f64,
    writes_per_object: f64,
    steady_calls_per_minute: f64,
    restart_writes: u64,
    rss_mib: f64,
    // Not asked for by anyone, and told because they explain the others.
    objects: usize,
    calls_per_deployment: f64,
    apply_seconds: f64,
    cpu_seconds: f64,
    steady_cpu_share: f64,
    restart_seconds: f64,
}

/// The figures, as JSON and in words.
pub(super) async fn measure(
    deployments: u32,
    profile: Profile,
    console: Console,
    interrupt: &mut Interrupt,
) -> Result<(String, Vec<String>)> {
    let (_, kubeconfig) = tokio::task::spawn_blocking(move || kube::ensure_up(console)).await??;
    let programs = build::binaries(profile, console).await?;
    let postgres = tokio::task::spawn_blocking(move || Cluster::temporary(&|line| console.say(line))).await??;
    let bench = Bench::new(kubeconfig, programs, postgres.url("postgres"))?;
    let measured = tokio::select! {
        measured = bench.run(deployments, console) => measured,
        _ = interrupt.wait() => Err(anyhow::anyhow!("interrupted")),
    };
    drop(bench);
    tokio::task::spawn_blocking(move || postgres.stop()).await??;
    let figures = measured?;
    let ratio = figures.kubectl_seconds / figures.seconds;
    let text = vec![
        format!(
            "{} deployments, {} objects: written within {:.1} s (of it {:.1} s for the apply to be accepted); kubectl apply \
             --server-side of the same objects: {:.1} s, {ratio:.1} times as long",
            figures.deployments, figures.objects, figures.seconds, figures.apply_seconds, figures.kubectl_seconds
        ),
        format!(
            "writes per object {:.3}   API calls per deployment {:.2}",
            figures.writes_per_object, figures.calls_per_deployment
        ),
        format!(
            "steady state: {:.1} list, get and write calls a minute, {:.1} % of a core",
            figures.steady_calls_per_minute,
            figures.steady_cpu_share * 100.0
        ),
        format!("restart: ready after {:.1} s, {} writes", figures.restart_seconds, figures.restart_writes),
        format!("control plane: {:.0} MiB, {:.1} s of CPU in all until then", figures.rss_mib, figures.cpu_seconds),
    ];
    Ok((serde_json::to_string(&figures)?, text))
}

/// Two namespaces, and a control plane for the first. Dropping it takes all of them away.
struct Bench {
    kubectl: kube::Kubectl,
    kubeconfig: PathBuf,
    programs: PathBuf,
    database_url: String,
    ours: String,
    theirs: String,
    dir: PathBuf,
    listen: std::net::SocketAddr,
    /// How often this program has counted objects itself.
    looks: std::cell::Cell<f64>,
}

/// The API server's own count of calls.
#[derive(Debug, Clone, Copy, Default)]
struct Calls {
    writes: f64,
    reads: f64,
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

impl Bench {
    fn new(kubeconfig: PathBuf, programs: PathBuf, database_url: String) -> Result<Self> {
        let id = std::process::id();
        let dir = std::env::temp_dir().join(format!("modelyard-bench-{id}"));
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let bench = Self {
            kubectl: kube::Kubectl::new(&kubeconfig),
            kubeconfig,
            programs,
            database_url,
            ours: format!("modelyard-bench-{id}"),
            theirs: format!("kubectl-bench-{id}"),
            dir,
            listen: ports::free()?,
            looks: std::cell::Cell::default(),
        };
        for namespace in [&bench.ours, &bench.theirs] {
            bench.kubectl.run(&["create", "namespace", namespace])?;
        }
        Ok(bench)
    }

    async fn run(&self, deployments: u32, console: Console) -> Result<Figures> {
        let control_plane = self.start()?;
        let client = self.client().await?;
        let before = self.calls()?;
        console.say(format_args!("applying {deployments} deployments"));
        let begun = Instant::now();
        apply(&client, deployments).await?;
        let apply_seconds = begun.elapsed().as_secs_f64();
        self.until_written(deployments).await?;
        let seconds = begun.elapsed().as_secs_f64();
        let after = self.calls()?;
        let looks = self.looks.get();
        let (manifest, objects) = self.objects_as_manifest()?;
        ensure!(objects == 2 * deployments as usize, "{objects} objects of {deployments} deployments are there");
        let cpu_seconds = cpu(control_plane.0.id())?;
        let writes = after.writes - before.writes;

        console.say(format_args!("watching steady state for {} s", STEADY.as_secs()));
        tokio::time::sleep(SETTLING).await;
        let (calls, cpu_before) = (self.calls()?, cpu(control_plane.0.id())?);
        tokio::time::sleep(STEADY).await;
        let (steady, cpu_after) = (self.calls()?, cpu(control_plane.0.id())?);
        let rss_mib = rss(control_plane.0.id())?;

        console.say("restarting the control plane");
        drop(control_plane);
        let calls = (calls, self.calls()?);
        let restarted = Instant::now();
        let again = self.start()?;
        self.client().await?;
        let restart_seconds = restarted.elapsed().as_secs_f64();
        tokio::time::sleep(SETTLING).await;
        let restart = self.calls()?.writes - calls.1.writes;
        drop(again);

        console.say("applying the same objects with kubectl");
        let begun = Instant::now();
        let path = manifest.display().to_string();
        self.kubectl.run(&["apply", "--server-side", "--namespace", &self.theirs, "-f", &path])?;
        let kubectl_seconds = begun.elapsed().as_secs_f64();
        Ok(Figures {
            deployments,
            seconds,
            kubectl_seconds,
            writes_per_object: writes / as_f64(objects),
            steady_calls_per_minute: (steady.writes + steady.reads - calls.0.writes - calls.0.reads) * 60.0
                / STEADY.as_secs_f64(),
            restart_writes: whole(restart),
            rss_mib,
            objects,
            calls_per_deployment: (writes + after.reads - before.reads - looks) / f64::from(deployments),
            apply_seconds,
            cpu_seconds,
            steady_cpu_share: (cpu_after - cpu_before) / STEADY.as_secs_f64(),
            restart_seconds,
        })
    }

    fn start(&self) -> Result<Running> {
        let log = std::fs::File::options().create(true).append(true).open(self.dir.join("log"))?;
        let mut command = Command::new(self.programs.join("modelyard-control-plane"));
        command
            .args(["serve", "--runtime", "kubernetes", "--worker-image", "modelyard.dev/modelyard:bench"])
            .args(["--database-url", &self.database_url, "--listen", &self.listen.to_string()])
            .args(["--namespace", &self.ours, "--identity", "bench"])
            .arg("--require-tokens")
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .arg("--state-dir")
            .arg(&self.dir)
            .arg("--worker-binary")
            .arg(self.programs.join("modelyard-worker"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        Ok(Running(command.spawn().context("the control plane does not start")?))
    }

    /// Once the control plane is ready.
    async fn client(&self) -> Result<Client> {
        let begun = Instant::now();
        let template = "go-template={{.data.token | base64decode}}";
        loop {
            let secret = ["get", "secret", TOKEN_SECRET, "--namespace", &self.ours, "-o", template];
            if let Ok(token) = self.kubectl.run(&secret) {
                let client = Client::new(&format!("http://{}", self.listen), Some(token), None);
                if client.ready().await {
                    return Ok(client);
                }
            }
            if begun.elapsed() > PATIENCE {
                let log = std::fs::read_to_string(self.dir.join("log")).unwrap_or_default();
                bail!("the control plane is not ready: {}", log.lines().last().unwrap_or_default());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn until_written(&self, deployments: u32) -> Result<()> {
        let begun = Instant::now();
        while self.count("/apis/apps/v1", "deployments")? < deployments.into()
            || self.count("/api/v1", "services")? < deployments.into()
        {
            ensure!(begun.elapsed() < PATIENCE, "not all was written within {} s", PATIENCE.as_secs());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// How many there are, for the price of one.
    fn count(&self, api: &str, resource: &str) -> Result<u64> {
        self.looks.set(self.looks.get() + 1.0);
        let path = format!("{api}/namespaces/{}/{resource}?limit=1", self.ours);
        let list: Value = serde_json::from_str(&self.kubectl.run(&["get", "--raw", &path])?)?;
        let first = u64::from(list["items"].as_array().is_some_and(|items| !items.is_empty()));
        Ok(first + list["metadata"]["remainingItemCount"].as_u64().unwrap_or_default())
    }

    /// What is there, as kubectl would be given it, in a file; and how much it is.
    fn objects_as_manifest(&self) -> Result<(PathBuf, usize)> {
        let ours = ["get", "deployments,services", "--namespace", &self.ours, "-o", "json"];
        let list: Value = serde_json::from_str(&self.kubectl.run(&ours)?)?;
        let items: Vec<Value> = list["items"].as_array().cloned().unwrap_or_default().into_iter().map(bare).collect();
        let count = items.len();
        let path = self.dir.join("objects.json");
        std::fs::write(&path, json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string())?;
        Ok((path, count))
    }

    fn calls(&self) -> Result<Calls> {
        let metrics = self.kubectl.run(&["get", "--raw", "/metrics"])?;
        let mut calls = Calls::default();
        for line in metrics.lines().filter_map(|line| line.strip_prefix("apiserver_request_total{")) {
            let Some((labels, count)) = line.rsplit_once("} ") else { continue };
            let label = |name: &str| {
                let from = labels.find(&format!("{name}=\""))? + name.len() + 2;
                labels.get(from..)?.split('"').next()
            };
            let ours = label("resource").is_some_and(|resource| RESOURCES.contains(&resource));
            // What its controllers say of a Deployment's progress is theirs.
            if !ours || label("subresource").is_some_and(|part| !part.is_empty()) {
                continue;
            }
            let (verb, count) = (label("verb").unwrap_or_default(), count.trim().parse::<f64>().unwrap_or_default());
            if WRITES.contains(&verb) {
                calls.writes += count;
            } else if READS.contains(&verb) {
                calls.reads += count;
            }
        }
        Ok(calls)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        for namespace in [&self.ours, &self.theirs] {
            self.kubectl.run(&["delete", "namespace", namespace, "--wait=false"]).ok();
        }
        std::fs::remove_dir_all(&self.dir).ok();
    }
}

/// One model, one version, many deployments of it, in one apply.
async fn apply(client: &Client, deployments: u32) -> Result<()> {
    let artifact = "linear-1.onnx".to_owned();
    let path = workspace::root().join("manifests/examples").join(&artifact);
    let digest = Digest::of(&std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?);
    client.upload(&path, &digest, |_| {}).await?;
    let mut text = format!(
        "apiVersion: modelyard.dev/v1\nkind: Model\nmetadata: {{name: linear}}\n---\n\
         apiVersion: modelyard.dev/v1\nkind: ModelVersion\nmetadata: {{name: linear-1}}\n\
         spec: {{model: linear, version: \"1\", format: onnx, artifact: {{uri: {artifact}}}}}\n"
    );
    for n in 0..deployments {
        write!(
            text,
            "---\napiVersion: modelyard.dev/v1\nkind: ModelDeployment\nmetadata: {{name: linear-{n}}}\n\
             spec: {{model: linear, version: \"1\", replicas: 0}}\n"
        )?;
    }
    let file = BundleFile { name: "bench.yaml".into(), text, artifacts: BTreeMap::from([(artifact, digest)]) };
    client.apply(&Bundle { files: vec![file] }, false, None).await?;
    Ok(())
}

/// An object without what only the cluster gives it.
fn bare(mut object: Value) -> Value {
    let Some(fields) = object.as_object_mut() else { return object };
    fields.remove("status");
    if let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.retain(|key, _| ["name", "labels", "annotations"].contains(&key.as_str()));
    }
    if let Some(spec) = fields.get_mut("spec").and_then(Value::as_object_mut) {
        spec.retain(|key, _| !["clusterIP", "clusterIPs"].contains(&key.as_str()));
    }
    object
}

/// Seconds of CPU that a process has used.
fn cpu(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"))?;
    let fields: Vec<_> = stat.rsplit_once(')').context("a strange stat")?.1.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|text| text.parse::<f64>().ok()).unwrap_or_default();
    // utime and stime (proc(5)), in hundredths of a second.
    Ok((ticks(11) + ticks(12)) / 100.0)
}

/// Mebibytes of memory that a process has in use.
fn rss(pid: u32) -> Result<f64> {
    let status = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn as_f64(count: usize) -> f64 {
    count as f64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count, which is whole")]
fn whole(count: f64) -> u64 {
    count.max(0.0).round() as u64
}
