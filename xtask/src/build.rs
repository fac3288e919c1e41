//! Builds the three programs that a stack consists of.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

use crate::console::Console;
use crate::workspace;

const CONTROL_PLANE: &str = "modelyard-control-plane";
const SIMULATION: &str = "modelyard-simulation";
const PACKAGES: [&str; 3] = [CONTROL_PLANE, "modelyard-gateway", "modelyard-worker"];

/// How programs are built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    Dev,
    Release,
}

/// Builds control plane, gateway and worker; returns the directory that holds them. Dropping the future ends cargo.
pub(crate) async fn binaries(profile: Profile, console: Console) -> Result<PathBuf> {
    console.say("building control plane, gateway and worker (the first time takes some minutes)");
    build(profile, &PACKAGES).await
}

/// Builds all programs together with all tests; returns the directory that holds them. Programs that were built by themselves
/// would share little with the tests: dependencies have other features there, and the heavy ones would be built twice.
pub(crate) async fn with_tests(console: Console) -> Result<PathBuf> {
    console.say("building all programs and tests (the first time takes a quarter of an hour)");
    // Not our own, which would be replaced while it runs.
    let bins = PACKAGES.iter().flat_map(|package| ["--bin", package]);
    run(Profile::Dev, &["--workspace", "--tests"].into_iter().chain(bins).collect::<Vec<_>>()).await
}

/// Builds the control plane alone, and says nothing on standard output; returns its path.
pub(crate) async fn control_plane(profile: Profile) -> Result<PathBuf> {
    Ok(build(profile, &[CONTROL_PLANE]).await?.join(CONTROL_PLANE))
}

/// Builds the simulation of rollouts, and says nothing on standard output; returns its path.
pub(crate) async fn simulation(profile: Profile) -> Result<PathBuf> {
    Ok(build(profile, &[SIMULATION]).await?.join(SIMULATION))
}

/// Builds programs of these packages, and says nothing on standard output; returns the directory that holds them.
pub(crate) async fn some(profile: Profile, packages: &[&str]) -> Result<PathBuf> {
    build(profile, packages).await
}

async fn build(profile: Profile, packages: &[&str]) -> Result<PathBuf> {
    let packages = packages.iter().flat_map(|package| ["--package", package]);
    run(profile, &["--bins"].into_iter().chain(packages).collect::<Vec<_>>()).await
}

async fn run(profile: Profile, args: &[&str]) -> Result<PathBuf> {
    let mut command = Command::from(workspace::cargo());
    command.arg("build").args(args).kill_on_drop(true);
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
