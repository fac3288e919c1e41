//! The proxies beside which the gateway is measured, each told to split traffic 90 to 10, with connections kept on both
//! sides and no access log. They are found on the path, or unpacked: nothing is installed.

mod envoy;
mod haproxy;
mod nginx;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::process::Program;
use crate::console::Console;
use crate::{debian, workspace};

/// Where a proxy listens, what it sends to, how many threads it may have, and where its files may lie.
#[derive(Debug, Clone)]
pub(super) struct Setup<'a> {
    pub(super) listen: SocketAddr,
    /// Of the version that gets 90 %, and of the one that gets 10 %.
    pub(super) backends: [SocketAddr; 2],
    pub(super) threads: usize,
    pub(super) dir: &'a Path,
    pub(super) cores: &'static str,
}

/// The proxies' programs.
#[derive(Debug)]
pub(super) struct Proxies {
    envoy: PathBuf,
    nginx: PathBuf,
    haproxy: PathBuf,
    /// Libraries of what was unpacked.
    libraries: PathBuf,
}

pub(super) const NAMES: [&str; 3] = ["envoy", "nginx", "haproxy"];

impl Proxies {
    pub(super) fn find(console: Console) -> Result<Self> {
        let dir = workspace::target_directory()?.join("modelyard-peers");
        let unpacked = dir.join("debian");
        let (found_nginx, found_haproxy) = (debian::on_path("nginx"), debian::on_path("haproxy"));
        if (found_nginx.is_none() || found_haproxy.is_none()) && !unpacked.is_dir() {
            console.say("unpacking nginx and haproxy from Debian's packages (once, some 5 MB)");
            let packages =
                ["nginx", "haproxy", "liblua5.3-0", "libopentracing-c-wrapper0", "libopentracing1", "libpcre2-8-0"];
            debian::unpack(&packages, &unpacked).context("nginx and haproxy are not on the path, and")?;
        }
        Ok(Self {
            envoy: envoy::find(&dir, console)?,
            nginx: found_nginx.unwrap_or_else(|| unpacked.join("usr/sbin/nginx")),
            haproxy: found_haproxy.unwrap_or_else(|| unpacked.join("usr/sbin/haproxy")),
            libraries: unpacked.join("usr/lib/x86_64-linux-gnu"),
        })
    }

    /// Writes the proxy's configuration; what to run.
    pub(super) fn program(&self, name: &str, setup: &Setup<'_>) -> Result<Program> {
        let program = match name {
            "envoy" => envoy::program(&self.envoy, setup)?,
            "nginx" => nginx::program(&self.nginx, setup)?,
            _ => haproxy::program(&self.haproxy, setup)?,
        };
        Ok(program.env("LD_LIBRARY_PATH", &self.libraries))
    }
}

fn write(setup: &Setup<'_>, name: &str, text: &str) -> Result<PathBuf> {
    let path = setup.dir.join(name);
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}
