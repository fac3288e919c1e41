//! Clusters in Docker, by kind or k3d, where a Docker engine runs.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::command::{output, succeeds};
use super::state::{State, write};
use super::steps::Steps;

const CLUSTER: &str = "modelyard";

/// Makes a kind cluster, or starts the one there is.
pub(super) fn kind_up(state: &State, steps: Steps) -> Result<()> {
    let kubeconfig = state.kubeconfig();
    if output(Command::new("kind").args(["get", "clusters"]))?.lines().any(|name| name == CLUSTER) {
        return steps.run("kind cluster, which exists", || {
            let containers = output(Command::new("kind").args(["get", "nodes", "--name", CLUSTER]))?;
            output(Command::new("docker").arg("start").args(containers.lines()))?;
            let export = ["export", "kubeconfig", "--name", CLUSTER, "--kubeconfig"];
            output(Command::new("kind").args(export).arg(&kubeconfig)).map(|_| ())
        });
    }
    steps.run_long("creating a kind cluster", || {
        let create = ["create", "cluster", "--name", CLUSTER, "--wait", "180s", "--kubeconfig"];
        output(Command::new("kind").args(create).arg(&kubeconfig)).map(|_| ())
    })
}

/// Makes a k3d cluster, or starts the one there is.
pub(super) fn k3d_up(state: &State, steps: Steps) -> Result<()> {
    if succeeds(Command::new("k3d").args(["cluster", "get", CLUSTER])) {
        steps.run("k3d cluster, which exists", || {
            output(Command::new("k3d").args(["cluster", "start", CLUSTER, "--wait"])).map(|_| ())
        })?;
    } else {
        steps.run_long("creating a k3d cluster", || {
            let create = ["cluster", "create", CLUSTER, "--wait", "--timeout", "180s"];
            let quietly = ["--kubeconfig-update-default=false", "--kubeconfig-switch-context=false"];
            output(Command::new("k3d").args(create).args(quietly)).map(|_| ())
        })?;
    }
    write(&state.kubeconfig(), output(Command::new("k3d").args(["kubeconfig", "get", CLUSTER]))?)
}

pub(super) fn kind_down() -> Result<()> {
    output(Command::new("kind").args(["delete", "cluster", "--name", CLUSTER])).map(|_| ())
}

pub(super) fn k3d_down() -> Result<()> {
    output(Command::new("k3d").args(["cluster", "delete", CLUSTER])).map(|_| ())
}

pub(super) fn kind_load(archive: &Path) -> Result<()> {
    output(Command::new("kind").args(["load", "image-archive", "--name", CLUSTER]).arg(archive)).map(|_| ())
}

pub(super) fn k3d_load(archive: &Path) -> Result<()> {
    output(Command::new("k3d").args(["image", "import", "--cluster", CLUSTER]).arg(archive)).map(|_| ())
}
