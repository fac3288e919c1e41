//! Builds the three programs that a stack consists of.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

use crate::console::Console;
use crate::workspace;

const PACKAGES: [&str; 3] = ["modelyard-control-plane", "modelyard-gateway", "modelyard-worker"];

/// How programs are built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    Dev,
    Release,
}

/// Builds control plane, gateway and worker; returns the directory that holds them. Dropping the future ends cargo.
pub(crate) async fn binaries(profile: Profile, console: Console) -> Result<PathBuf> {
    console.say("building control plane, gateway and worker (the first time takes some minutes)");
    let mut command = Command::from(workspace::cargo());
    command.args(["build", "--bins"]).kill_on_drop(true);
    for package in PACKAGES {
        command.args(["--package", package]);
    }
    if profile == Profile::Release {
        command.arg("--release");
    }
    let status = command.status().await.context("cannot run cargo build")?;
    ensure!(status.success(), "cargo build failed ({status})");
    let folder = match profile {
        Profile::Dev => "debug",
        Profile::Release => "release",
    };
    Ok(workspace::target_directory()?.join(folder))
}
