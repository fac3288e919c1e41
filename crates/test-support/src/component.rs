//! Parts of the cluster that are away for a while, and processes of pods that are stopped. Only where the cluster is one that
//! `cargo xtask kube up` made of processes of this machine.

use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::Value;

use crate::stack::signal;

/// A component of the cluster that was stopped. It is started again at the latest when this is dropped, so that a test that
/// fails leaves a cluster for the next one.
pub struct Stopped {
    xtask: String,
    component: &'static str,
}

impl Stopped {
    /// Whether components of this cluster can be stopped; says so where they cannot.
    pub fn is_possible() -> bool {
        let is_possible = std::env::var_os("MODELYARD_TEST_XTASK").is_some();
        if !is_possible {
            eprintln!(
                "NOT TESTED: this cluster is not one that `cargo xtask kube up` made, so none of it can be stopped"
            );
        }
        is_possible
    }

    /// `cargo xtask kube stop`
    ///
    /// # Panics
    /// If it cannot be stopped.
    pub async fn stop(component: &'static str) -> Self {
        Self::by(component, &[]).await
    }

    /// `cargo xtask kube stop --freeze`: it exists, and answers nothing.
    ///
    /// # Panics
    /// If it cannot be suspended.
    pub async fn freeze(component: &'static str) -> Self {
        Self::by(component, &["--freeze"]).await
    }

    async fn by(component: &'static str, how: &[&str]) -> Self {
        let stopped = Self { xtask: crate::cluster::required("MODELYARD_TEST_XTASK"), component };
        let mut command = stopped.command("stop");
        command.args(how);
        let output =
            tokio::task::spawn_blocking(move || command.output()).await.expect("no panic").expect("xtask runs");
        assert!(output.status.success(), "the {component} does not stop: {output:?}");
        stopped
    }

    /// `cargo xtask kube start`. Returns when it answers, which is before it does all its work again.
    ///
    /// # Panics
    /// If it does not.
    pub async fn start(self) {
        let (mut command, component) = (self.command("start"), self.component);
        let output =
            tokio::task::spawn_blocking(move || command.output()).await.expect("no panic").expect("xtask runs");
        assert!(output.status.success(), "the {component} does not start: {output:?}");
        std::mem::forget(self);
    }

    fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(&self.xtask);
        command.args(["kube", verb, self.component]).stdin(Stdio::null());
        command
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        self.command("start").output().ok();
    }
}

/// The process of a pod's worker, as this machine sees it.
#[derive(Debug, Clone, Copy)]
pub struct WorkerProcess(u32);

impl WorkerProcess {
    /// `None`, and says so, where the node is another machine.
    pub fn of(pod: &Value) -> Option<Self> {
        let uid = pod["metadata"]["uid"].as_str()?;
        // The kubelet names the cgroup by the uid, and systemd's way of it has no dashes.
        let names = [uid.to_owned(), uid.replace('-', "_")];
        let processes = std::fs::read_dir("/proc").expect("a process table").flatten();
        let found = processes.filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let read = |file: &str| std::fs::read_to_string(entry.path().join(file)).ok();
            let is_in_pod = names.iter().any(|name| read("cgroup").is_some_and(|cgroup| cgroup.contains(name)));
            (is_in_pod && read("cmdline")?.contains("modelyard-worker\0serve")).then_some(Self(pid))
        });
        let found = found.min_by_key(|process| process.0);
        if found.is_none() {
            eprintln!("NOT TESTED: no process of this machine is the worker of pod {}", pod["metadata"]["name"]);
        }
        found
    }

    pub fn signal(self, how: Signal) {
        signal(self.0, how);
    }
}
