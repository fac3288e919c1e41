//! The Python servers beside which the worker is measured, each with the same models on the same ONNX Runtime.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::bench::process::Program;
use crate::console::Console;
use crate::models::make_venv;
use crate::{ports, workspace};

const INSTALLED: [&str; 4] = ["mlserver==1.7.1", "uvloop<0.22", "litserve==0.2.19", "onnxruntime==1.32.0"];
const MLSERVER_RUNTIME: &str = include_str!("mlserver_onnx.py");
const LITSERVE_PROGRAM: &str = include_str!("litserve_onnx.py");

/// A Python that has both servers.
#[derive(Debug)]
pub(super) struct Peers {
    python: PathBuf,
}

impl Peers {
    /// Installs them where they are missing.
    pub(super) fn find(console: Console) -> Result<Self> {
        let dir = workspace::target_directory()?.join("modelyard-peers");
        let (venv, stamp) = (dir.join("servers"), dir.join("servers.stamp"));
        let python = venv.join("bin/python");
        let pins = INSTALLED.join("\n");
        if python.is_file() && std::fs::read_to_string(&stamp).is_ok_and(|made| made == pins) {
            return Ok(Self { python });
        }
        console.say("fetching MLServer and LitServe with pip (once, some 150 MB)");
        std::fs::create_dir_all(&dir)?;
        make_venv(&venv, console)?;
        let pip = ["-m", "pip", "--quiet", "--disable-pip-version-check", "install", "--only-binary", ":all:"];
        let output = Command::new(&python).args(pip).args(INSTALLED).output().context("cannot run pip")?;
        ensure!(output.status.success(), "pip failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        std::fs::write(&stamp, pins)?;
        Ok(Self { python })
    }

    /// MLServer with so many worker processes; 0: inference in the server's own.
    pub(super) fn mlserver(
        &self,
        dir: &Path,
        name: &str,
        model: &Path,
        listen: SocketAddr,
        workers: u32,
        cores: &'static str,
    ) -> Result<Program> {
        let dir = dir.join(format!("mlserver-{name}-{workers}"));
        std::fs::create_dir_all(&dir)?;
        let settings = json!({
            "host": "127.0.0.1", "http_port": listen.port(), "grpc_port": ports::free()?.port(),
            "metrics_port": ports::free()?.port(), "parallel_workers": workers, "debug": false,
            "metrics_dir": dir.join("metrics"), "environments_dir": dir.join("envs"),
        });
        let model = json!({
            "name": name, "implementation": "mlserver_onnx.OnnxModel", "parameters": {"uri": model},
        });
        std::fs::create_dir_all(dir.join("metrics"))?;
        std::fs::write(dir.join("settings.json"), settings.to_string())?;
        std::fs::write(dir.join("model-settings.json"), model.to_string())?;
        std::fs::write(dir.join("mlserver_onnx.py"), MLSERVER_RUNTIME)?;
        let program = Program::new(&self.python, cores).args(["-m", "mlserver.cli.main", "start"]);
        Ok(program.args([&dir]).env("PYTHONPATH", &dir))
    }

    pub(super) fn litserve(
        &self,
        dir: &Path,
        model: &Path,
        listen: SocketAddr,
        cores: &'static str,
    ) -> Result<Program> {
        let file = dir.join("litserve_onnx.py");
        std::fs::write(&file, LITSERVE_PROGRAM)?;
        let arguments = [file.into_os_string(), model.as_os_str().to_owned(), listen.port().to_string().into()];
        Ok(Program::new(&self.python, cores).args(arguments))
    }
}
