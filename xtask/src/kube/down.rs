//! `kube down`: ends the cluster and takes away all that it left on this machine. Works from what it finds, not from what
//! was noted, so that it also cleans up after a crash, and after itself.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::Pid;

use super::command::{output, system};
use super::components::PROGRAMS;
use super::provider::{self, Kubeconfig, Provider};
use super::state::State;
use super::steps::Steps;
use super::{docker, iptables, network, process};

const POLL: Duration = Duration::from_millis(50);
const PODS_WITHIN: Duration = Duration::from_secs(20);
const UNMOUNT_ROUNDS: usize = 3;
const CGROUPS: &str = "/sys/fs/cgroup";
/// Where the kubelet keeps logs of pods, whatever it is told.
const POD_LOGS: [&str; 2] = ["/var/log/pods", "/var/log/containers"];
/// Directories that the node's programs make outside the state directory; deleted where they are empty.
const PERHAPS_EMPTY: [&str; 9] = [
    "/var/lib/cni/results",
    "/var/lib/cni/cache",
    "/var/lib/cni",
    "/run/containerd/fifo",
    "/run/containerd/s",
    "/run/containerd/runc/k8s.io",
    "/run/containerd/runc",
    "/run/containerd",
    "/run/netns",
];

pub(super) fn down(state: &State, steps: Steps) -> Result<()> {
    let _lock = state.lock()?;
    if provider::kubeconfig(state) == Kubeconfig::Answers && !state.exists() {
        steps.say("KUBECONFIG names a cluster that is not of `kube up`: it stays as it is");
    }
    match Provider::recorded(state) {
        Some(Provider::Kind) => steps.run("kind cluster", docker::kind_down)?,
        Some(Provider::K3d) => steps.run("k3d cluster", docker::k3d_down)?,
        Some(Provider::Binaries(_)) => steps.run("components", || end_components(state, &PROGRAMS))?,
        // Without a record, too: what a lost record left is looked for.
        Some(Provider::Given | Provider::Debian) | None => node(state, steps)?,
    }
    if !state.exists() {
        steps.say("there is no cluster of `kube up` on this machine");
        return Ok(());
    }
    steps.run("state directory", || remove_all(state.dir()))?;
    steps.say(format_args!("the cluster is gone, after {}; the programs stay in the cache", steps.total()));
    Ok(())
}

fn end_components(state: &State, programs: &[&str]) -> Result<()> {
    process::end(&process::strays(state, programs))
}

fn node(state: &State, steps: Steps) -> Result<()> {
    if !network::exists() && !state.exists() {
        return end_components(state, &PROGRAMS);
    }
    if !rustix::process::geteuid().is_root() {
        bail!("there is a cluster on this machine itself, which only root can take away");
    }
    if let Some(pid) = process::foreign_kubelet(state) {
        let pid = pid.as_raw_nonzero();
        bail!(
            "a kubelet of another cluster runs here (pid {pid}): its pods and firewall rules cannot be told from ours"
        );
    }
    // The kubelet goes before the pods, or it would start them again; containerd after them, as its shims watch over them.
    let (shims, others): (Vec<&str>, Vec<&str>) = PROGRAMS.iter().partition(|name| name.starts_with("containerd"));
    steps.run("components", || end_components(state, &others))?;
    steps.run("pods", end_pods)?;
    steps.run("containerd and its shims", || end_components(state, &shims))?;
    let outside = outside(state);
    steps.run("mounts", || unmount(state))?;
    steps.run("network interfaces and firewall rules", || {
        network::delete_bridge()?;
        iptables::clean()
    })?;
    steps.run("cgroups, logs of pods, kernel settings", || {
        remove_cgroups()?;
        remove_files(&outside)?;
        network::restore_settings(state);
        Ok(())
    })
}

/// The directories named `kubepods`: one per hierarchy in version 1, one in version 2.
fn cgroups() -> Vec<PathBuf> {
    let hierarchies = fs::read_dir(CGROUPS).into_iter().flatten().flatten().map(|entry| entry.path());
    hierarchies.chain([PathBuf::from(CGROUPS)]).map(|dir| dir.join("kubepods")).filter(|dir| dir.is_dir()).collect()
}

/// A cgroup and all below it, the deepest first.
fn with_children(dir: &Path) -> Vec<PathBuf> {
    let below =
        fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).filter(|path| path.is_dir());
    below.flat_map(|child| with_children(&child)).chain([dir.to_owned()]).collect()
}

/// Kills every process of every pod, until none is left.
fn end_pods() -> Result<()> {
    let deadline = Instant::now() + PODS_WITHIN;
    loop {
        let mut pids = BTreeSet::new();
        for dir in cgroups().iter().flat_map(|dir| with_children(dir)) {
            let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
            pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
        }
        if pids.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("processes of pods do not end: {pids:?}");
        }
        for pid in pids.into_iter().filter_map(Pid::from_raw) {
            // Gone already is what we want.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        sleep(POLL);
    }
}

fn remove_cgroups() -> Result<()> {
    for dir in cgroups().iter().flat_map(|dir| with_children(dir)) {
        fs::remove_dir(&dir).with_context(|| format!("cannot delete the cgroup {}", dir.display()))?;
    }
    Ok(())
}

/// Unmounts everything below the state directory, the deepest first.
fn unmount(state: &State) -> Result<()> {
    let find = || -> Result<Vec<PathBuf>> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").context("cannot read the mounts of this machine")?;
        Ok(mount_points(&mounts, state.dir()))
    };
    let mut complaint = Ok(String::new());
    // One may take others with it, whose turn then fails: what counts is that none is left.
    for _ in 0..UNMOUNT_ROUNDS {
        for point in find()? {
            complaint = output(system("umount").args(["--lazy", "--no-canonicalize"]).arg(&point));
        }
        if find()?.is_empty() {
            return Ok(());
        }
    }
    complaint?;
    bail!("mounts below {} come back: who mounts there?", state.dir().display())
}

/// The mount points below `dir` in a `mountinfo`, the last mounted first. The fifth field is the mount point, with spaces
/// and the like in octal.
fn mount_points(mountinfo: &str, dir: &Path) -> Vec<PathBuf> {
    let points = mountinfo.lines().filter_map(|line| line.split(' ').nth(4));
    let mut points: Vec<PathBuf> =
        points.map(|point| PathBuf::from(unescape(point))).filter(|point| point.starts_with(dir)).collect();
    points.reverse();
    points
}

fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (code, character)| text.replace(code, character))
}

/// What containerd's helpers keep of our containers outside the state directory, in directories that all containerds of a
/// machine share: sockets of shims (each container's directory notes its own), states of runc, results of plug-ins.
fn outside(state: &State) -> Vec<PathBuf> {
    let containers = state.dir().join("containerd/state/io.containerd.runtime.v2.task/k8s.io");
    let mut found = Vec::new();
    for container in fs::read_dir(containers).into_iter().flatten().flatten() {
        let note = fs::read_to_string(container.path().join("address")).unwrap_or_default();
        found.extend(note.trim().strip_prefix("unix://").map(PathBuf::from));
        let id = container.file_name().to_string_lossy().into_owned();
        found.push(Path::new("/run/containerd/runc/k8s.io").join(&id));
        let result = |name: String| Path::new("/var/lib/cni/results").join(name);
        found.extend([result(format!("modelyard-{id}-eth0")), result(format!("cni-loopback-{id}-lo"))]);
    }
    found
}

fn remove_files(outside: &[PathBuf]) -> Result<()> {
    for path in POD_LOGS.iter().map(Path::new).chain(outside.iter().map(PathBuf::as_path)) {
        if path.is_dir() {
            remove_all(path)?;
        } else if path.exists() {
            fs::remove_file(path).with_context(|| format!("cannot delete {}", path.display()))?;
        }
    }
    for dir in PERHAPS_EMPTY {
        // Not there, or not empty and so not ours alone.
        let _ = fs::remove_dir(dir);
    }
    Ok(())
}

fn remove_all(dir: &Path) -> Result<()> {
    fs::remove_dir_all(dir).with_context(|| format!("cannot delete {}", dir.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mounts_below_the_directory_are_found_the_last_first() {
        let mountinfo = "\
            22 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
            30 22 0:30 / /x/kube/kubelet/pods/1/volumes/token rw - tmpfs tmpfs rw\n\
            31 22 0:31 / /x/kubernetes rw - tmpfs tmpfs rw\n\
            32 22 0:32 / /x/kube/with\\040space rw - overlay overlay rw\n";
        let found = mount_points(mountinfo, Path::new("/x/kube"));
        assert_eq!(found, ["/x/kube/with space", "/x/kube/kubelet/pods/1/volumes/token"].map(PathBuf::from));
    }

    #[test]
    fn children_come_before_their_parents() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("burstable/pod1")).unwrap();
        let found = with_children(dir.path());
        assert_eq!(found, [dir.path().join("burstable/pod1"), dir.path().join("burstable"), dir.path().to_owned()]);
    }
}
