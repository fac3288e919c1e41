//! `test`: prepares what the tests need (models, programs, a database, a cluster) and runs them with nextest, or with cargo's own
//! runner where nextest is not installed. Prints nothing after the runner has spoken.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use modelyard_postgres_local::Cluster;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;

use crate::build;
use crate::console::Console;
use crate::interrupt::Interrupt;
use crate::{debian, image, kube, models, workspace};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Leave out what needs a Kubernetes cluster
    #[arg(long)]
    fast: bool,
    /// Passed on to the test runner
    #[arg(last = true, value_name = "ARGS")]
    runner: Vec<String>,
}

pub(crate) async fn run(args: Args) -> Result<()> {
    let mut interrupt = Interrupt::listen()?;
    let console = Console::new(false);
    let (runner, mut database, cluster) = tokio::select! {
        prepared = prepare(&args, console) => prepared?,
        _ = interrupt.wait() => bail!("interrupted"),
    };
    let passed = run_tests(runner, &mut interrupt).await;
    // Blocking is fine: nothing else runs any more.
    if let Some(database) = database.take() {
        database.stop().context("the tests have ended, but not their database")?;
    }
    if cluster.is_some_and(|cluster| cluster.is_ours) {
        kube::run(kube::Command::Down).context("the tests have ended, but not their cluster")?;
    }
    if passed? { Ok(()) } else { bail!("the tests failed") }
}

/// The runner, with what the tests need in its environment, and the database that must outlive it.
async fn prepare(args: &Args, console: Console) -> Result<(Command, Option<Cluster>, Option<Kubernetes>)> {
    let models =
        tokio::task::spawn_blocking(move || models::prepare(console)).await.context("preparing panicked")??;
    let clients = tokio::task::spawn_blocking(move || models::clients::prepare(console))
        .await
        .context("preparing panicked")??;
    let prometheus = tokio::task::spawn_blocking(move || debian::prometheus::find(console))
        .await
        .context("preparing panicked")??;
    let binaries = build::with_tests(console).await?;
    let kubernetes = if args.fast { None } else { kubernetes(&binaries, console).await? };
    let (url, cluster) = database(console).await?;

    let mut runner = Command::from(workspace::cargo());
    if has_nextest().await {
        runner.args(["nextest", "run", "--workspace"]);
        if kubernetes.is_none() {
            runner.args(["--filterset", "not binary(/^cluster/)"]);
        }
    } else {
        console.say("cargo-nextest is not installed: using cargo test");
        runner.args(["test", "--workspace"]);
    }
    runner
        .args(&args.runner)
        .env("MODELYARD_TEST_DATABASE_URL", url)
        .env("MODELYARD_TEST_MODELS", models.dir)
        .env("MODELYARD_TEST_PYTHON", models.python)
        .env("MODELYARD_TEST_KSERVE_PYTHON", clients.kserve)
        .env("MODELYARD_TEST_MLSERVER_PYTHON", clients.mlserver)
        .env("MODELYARD_TEST_ONNXRUNTIME", models.onnxruntime)
        .env("MODELYARD_TEST_BIN_DIR", binaries)
        .envs(prometheus.map(|program| ("MODELYARD_TEST_PROMETHEUS", program)));
    match &kubernetes {
        Some(kubernetes) => {
            runner
                .env("MODELYARD_TEST_KUBECONFIG", &kubernetes.kubeconfig)
                .env("MODELYARD_TEST_KUBECTL", kube::Kubectl::program()?)
                .env("MODELYARD_TEST_IMAGE", &kubernetes.image);
            // By which tests stop parts of a cluster; one that was given is nobody's to break.
            if kube::is_of_kube_up(&kubernetes.kubeconfig)? {
                let xtask = std::env::current_exe().context("cannot find out which program this is")?;
                runner.env("MODELYARD_TEST_XTASK", xtask);
            }
        }
        // cargo's own runner has no filter for whole binaries.
        None => {
            runner.env("MODELYARD_TEST_FAST", "1");
        }
    }
    Ok((runner, cluster, kubernetes))
}

/// The cluster that tests run on.
struct Kubernetes {
    kubeconfig: PathBuf,
    /// That workers run, where nodes have it or find it.
    image: String,
    /// Whether it was started for the tests, and ends with them.
    is_ours: bool,
}

/// How the programs under test come to the pods of a cluster.
#[derive(Debug, PartialEq, Eq)]
enum Images {
    /// As an image that is loaded into its nodes.
    Loaded,
    /// As one of that name, which somebody has pushed to where the cluster pulls from.
    Pushed(String),
    /// Not at all: it runs no pods.
    NoPods,
}

/// `pushed` is what `MODELYARD_TEST_IMAGE` says.
fn images(provider: &kube::Provider, pushed: Option<String>) -> Result<Images> {
    match provider {
        kube::Provider::Kind | kube::Provider::K3d | kube::Provider::Debian => Ok(Images::Loaded),
        kube::Provider::Binaries(_) => Ok(Images::NoPods),
        kube::Provider::Given => pushed.filter(|image| !image.is_empty()).map(Images::Pushed).context(
            "nothing can be loaded into the cluster that KUBECONFIG names: push the image of `cargo xtask image --debug` to \
             where that cluster pulls from, and set MODELYARD_TEST_IMAGE to its name (docs/development-cluster.md)",
        ),
    }
}

/// A cluster with pods, or `None`, and said so, where this machine has none.
async fn kubernetes(binaries: &Path, console: Console) -> Result<Option<Kubernetes>> {
    let binaries = binaries.to_owned();
    let bring_up = move || {
        let was_up = kube::is_up()?;
        let remedy = "no cluster to test on; `cargo xtask test --fast` leaves out what needs one";
        let pushed = std::env::var("MODELYARD_TEST_IMAGE").ok();
        let images = images(&kube::choose(console).context(remedy)?, pushed)?;
        if images == Images::NoPods {
            console.say(
                "NOT TESTED on Kubernetes: its programs are here, but no node that runs pods; going on as with --fast",
            );
            return Ok(None);
        }
        let (provider, kubeconfig) = kube::ensure_up(console).context(remedy)?;
        let image = match images {
            Images::Pushed(image) => image,
            Images::Loaded | Images::NoPods => {
                let (path, archive) = image::write(&binaries)?;
                kube::load_image(Some(&provider), &path, console)?;
                // The name that its content gives: an image of an earlier run is never taken for this one.
                archive.references.last().cloned().context("the image has no name")?
            }
        };
        Ok(Some(Kubernetes { kubeconfig, image, is_ours: !was_up }))
    };
    tokio::task::spawn_blocking(bring_up).await.context("bringing up a cluster panicked")?
}

/// `DATABASE_URL`, or the URL of a throw-away server. Tests make databases of their own on it.
async fn database(console: Console) -> Result<(String, Option<Cluster>)> {
    if let Some(url) = std::env::var("DATABASE_URL").ok().filter(|url| !url.is_empty()) {
        console.say("testing with the database that DATABASE_URL names");
        return Ok((url, None));
    }
    let start = move || Cluster::temporary(&|line| console.say(line));
    let cluster = tokio::task::spawn_blocking(start).await.context("starting PostgreSQL panicked")??;
    console.say(format_args!("testing with {}", cluster.summary()));
    Ok((cluster.url("postgres"), Some(cluster)))
}

async fn has_nextest() -> bool {
    let mut probe = Command::from(workspace::cargo());
    probe.args(["nextest", "--version"]).stdout(Stdio::null()).stderr(Stdio::null());
    probe.status().await.is_ok_and(|status| status.success())
}

/// Whether the tests passed. An interrupt is left to the runner, which ends its tests and then itself.
async fn run_tests(mut runner: Command, interrupt: &mut Interrupt) -> Result<bool> {
    let mut child = runner.kill_on_drop(true).spawn().context("cannot run the tests")?;
    let status = tokio::select! {
        status = child.wait() => status,
        signal = interrupt.wait() => {
            // The terminal has sent Ctrl-C to the runner too; any other signal came to us alone.
            if signal != Signal::INT
                && let Some(pid) = child.id().and_then(|id| Pid::from_raw(id.cast_signed()))
            {
                let _ = kill_process(pid, signal);
            }
            child.wait().await
        }
    };
    Ok(status.context("cannot wait for the tests")?.success())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::Provider;

    #[test]
    fn the_image_under_test_is_loaded_where_nodes_are_ours_and_named_where_they_are_not() {
        for ours in [Provider::Kind, Provider::K3d, Provider::Debian] {
            assert_eq!(images(&ours, Some("registry/other:1".into())).unwrap(), Images::Loaded, "{ours:?}");
        }
        let pushed = images(&Provider::Given, Some("registry/modelyard:1".into())).unwrap();
        assert_eq!(pushed, Images::Pushed("registry/modelyard:1".into()));
        for missing in [None, Some(String::new())] {
            let error = images(&Provider::Given, missing).unwrap_err().to_string();
            assert!(error.contains("set MODELYARD_TEST_IMAGE"), "{error}");
        }
        assert_eq!(images(&Provider::Binaries("/assets".into()), None).unwrap(), Images::NoPods);
    }
}
