//! The cluster's addresses, its bridge, and the kernel settings that a node changes.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::command::{output, succeeds, system};
use super::state::{self, State};

/// Pods are connected to this bridge.
pub(super) const BRIDGE: &str = "modelyard0";
/// The bridge's address: here the API server, the kubelet and DNS listen, for pods and for this machine only.
pub(super) const GATEWAY: &str = "10.201.0.1";
pub(super) const PODS: &str = "10.201.0.0/23";
const PREFIX_LENGTH: u8 = 23;
pub(super) const SERVICES: &str = "10.202.0.0/20";
/// The first address of `SERVICES`: the API server's own.
pub(super) const API_SERVICE: &str = "10.202.0.1";

/// What kubelet, kube-proxy and the bridge plug-in set in the kernel.
const SETTINGS: [&str; 9] = [
    "net/ipv4/ip_forward",
    "net/ipv4/conf/all/route_localnet",
    "net/bridge/bridge-nf-call-iptables",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
];

/// Makes the bridge, if it is not there.
pub(super) fn create_bridge() -> Result<()> {
    if !exists() {
        refuse_taken(&output(system("ip").args(["-o", "-4", "route", "show"]))?)?;
        output(system("ip").args(["link", "add", BRIDGE, "type", "bridge"]))?;
    }
    let address = format!("{GATEWAY}/{PREFIX_LENGTH}");
    let shown = output(system("ip").args(["-o", "-4", "address", "show", "dev", BRIDGE]))?;
    if !shown.contains(&format!(" {address} ")) {
        output(system("ip").args(["address", "add", &address, "dev", BRIDGE]))?;
    }
    output(system("ip").args(["link", "set", BRIDGE, "up"])).map(|_| ())
}

pub(super) fn exists() -> bool {
    Path::new("/sys/class/net").join(BRIDGE).exists()
}

/// Deletes the bridge and the interfaces that are connected to it.
pub(super) fn delete_bridge() -> Result<()> {
    if !exists() {
        return Ok(());
    }
    let members =
        fs::read_dir(Path::new("/sys/class/net").join(BRIDGE).join("brif")).context("cannot read the bridge")?;
    for member in members.flatten() {
        // One whose pod has just ended vanishes by itself.
        succeeds(system("ip").args(["link", "delete"]).arg(member.file_name()));
    }
    output(system("ip").args(["link", "delete", BRIDGE])).map(|_| ())
}

/// Fails if this machine already sends the cluster's addresses elsewhere.
fn refuse_taken(routes: &str) -> Result<()> {
    let taken = |route: &&str| route.starts_with("10.201.") || route.starts_with("10.202.");
    match routes.lines().find(taken) {
        None => Ok(()),
        Some(route) => {
            bail!("this machine already has a route for the cluster's addresses ({PODS}, {SERVICES}): {}", route.trim())
        }
    }
}

fn kept(state: &State) -> PathBuf {
    state.dir().join("kernel-settings")
}

/// Keeps the kernel settings as they were before the first start.
pub(super) fn keep_settings(state: &State) -> Result<()> {
    let file = kept(state);
    if file.exists() {
        return Ok(());
    }
    let lines = SETTINGS.iter().filter_map(|name| {
        let value = fs::read_to_string(Path::new("/proc/sys").join(name)).ok()?;
        Some(format!("{name} {}\n", value.trim()))
    });
    state::write(&file, lines.collect::<String>())
}

/// Puts the kernel settings back, as far as they are still known.
pub(super) fn restore_settings(state: &State) {
    let text = fs::read_to_string(kept(state)).unwrap_or_default();
    for (name, value) in text.lines().filter_map(|line| line.split_once(' ')) {
        let path = Path::new("/proc/sys").join(name);
        let now = fs::read_to_string(&path).unwrap_or_default();
        if SETTINGS.contains(&name) && now.trim() != value {
            // A setting that may not be written here was not changed by the node either.
            let _ = fs::write(path, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_whose_routes_overlap_is_refused() {
        let fine = "default via 192.0.2.1 dev eth0 \n192.0.2.0/24 dev eth0 proto kernel scope link src 192.0.2.2 \n";
        refuse_taken(fine).unwrap();
        let error = refuse_taken("10.201.0.0/16 dev vpn0 scope link \n").unwrap_err().to_string();
        assert!(error.contains("vpn0"), "{error}");
    }
}
