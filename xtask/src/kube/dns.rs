//! Names of services, for pods: a follower of the API server that writes a hosts file for dnsmasq. It stands in for
//! CoreDNS, whose image cannot be had without a registry. Headless services have no names here.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;

use super::command::output;
use super::pki::DOMAIN;
use super::process;
use super::state::{State, write};
use crate::console;

const RETRY: Duration = Duration::from_millis(500);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    state_dir: PathBuf,
    kubectl: PathBuf,
}

/// Namespace and name of each service, and its address.
type Services = BTreeMap<(String, String), String>;

#[derive(Deserialize)]
struct List {
    metadata: ListMetadata,
    items: Vec<Service>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListMetadata {
    resource_version: String,
}

#[derive(Deserialize)]
struct Event {
    #[serde(rename = "type")]
    kind: String,
    object: Service,
}

#[derive(Deserialize)]
struct Service {
    metadata: Metadata,
    spec: Spec,
}

#[derive(Deserialize)]
struct Metadata {
    namespace: String,
    name: String,
}

#[derive(Deserialize)]
struct Spec {
    #[serde(rename = "clusterIP", default)]
    cluster_ip: String,
}

pub(super) fn hosts_file(state: &State) -> PathBuf {
    state.etc("services.hosts")
}

/// Follows services until it is killed. What goes wrong is told in the log, and tried again.
pub(super) fn follow(args: Args) -> Result<()> {
    let state = State::at(args.state_dir);
    loop {
        if let Err(error) = follow_once(&state, &args.kubectl) {
            console::complain(&error);
        }
        sleep(RETRY);
    }
}

/// A list, then a watch from there on, until the API server ends it.
fn follow_once(state: &State, kubectl: &Path) -> Result<()> {
    let get = |path: &str| {
        let mut command = Command::new(kubectl);
        command.arg("--kubeconfig").arg(state.kubeconfig()).args(["get", "--raw", path]);
        command
    };
    let list: List = serde_json::from_str(&output(&mut get("/api/v1/services"))?).context("cannot read services")?;
    let mut services = Services::new();
    for service in list.items {
        set(&mut services, service);
    }
    publish(state, &services)?;

    let path = format!("/api/v1/services?watch=1&resourceVersion={}", list.metadata.resource_version);
    let mut watch = get(&path).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot run kubectl")?;
    let stream = watch.stdout.take().context("kubectl has no output")?;
    let followed = follow_events(state, &mut services, BufReader::new(stream));
    // It may have ended by itself.
    let _ = watch.kill();
    watch.wait().context("cannot wait for kubectl")?;
    followed
}

fn follow_events(state: &State, services: &mut Services, stream: impl BufRead) -> Result<()> {
    for line in stream.lines() {
        let line = line.context("cannot read kubectl's output")?;
        // An ERROR (the version is too old, for one) carries no service: list again.
        let event: Event = serde_json::from_str(&line).with_context(|| format!("not a change of a service: {line}"))?;
        let before = services.clone();
        match event.kind.as_str() {
            "ADDED" | "MODIFIED" => set(services, event.object),
            "DELETED" => {
                services.remove(&(event.object.metadata.namespace, event.object.metadata.name));
            }
            other => bail!("unexpected change of a service: {other}"),
        }
        if *services != before {
            publish(state, services)?;
        }
    }
    Ok(())
}

fn set(services: &mut Services, service: Service) {
    let key = (service.metadata.namespace, service.metadata.name);
    match service.spec.cluster_ip.as_str() {
        "" | "None" => services.remove(&key),
        address => services.insert(key, address.to_owned()),
    };
}

/// Writes the hosts file in one step, and tells dnsmasq to read it.
fn publish(state: &State, services: &Services) -> Result<()> {
    let (file, unfinished) = (hosts_file(state), state.etc("services.hosts.unfinished"));
    write(&unfinished, hosts(services))?;
    fs::rename(&unfinished, &file).with_context(|| format!("cannot write {}", file.display()))?;
    let pid = fs::read_to_string(state.pid_file("dnsmasq")).ok().and_then(|text| Pid::from_raw(text.parse().ok()?));
    // One that does not run, or has only just been started, reads the file when it starts; the latter would die of it.
    if let Some(pid) = pid.filter(|pid| process::hears(*pid, state, Signal::HUP)) {
        let _ = kill_process(pid, Signal::HUP);
    }
    Ok(())
}

fn hosts(services: &Services) -> String {
    services.iter().map(|((namespace, name), address)| format!("{address} {name}.{namespace}.svc.{DOMAIN}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(namespace: &str, name: &str, address: &str) -> String {
        format!(r#"{{"metadata":{{"namespace":"{namespace}","name":"{name}"}},"spec":{{"clusterIP":"{address}"}}}}"#)
    }

    #[test]
    fn names_follow_services_and_headless_ones_have_none() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::at(dir.path().join("kube"));
        state.create().unwrap();
        let events = [
            ("ADDED", service("default", "a", "10.0.0.1")),
            ("ADDED", service("default", "b", "10.0.0.2")),
            ("ADDED", service("x", "headless", "None")),
            ("MODIFIED", service("default", "b", "10.0.0.3")),
            ("DELETED", service("default", "a", "10.0.0.1")),
        ];
        let stream: String =
            events.iter().map(|(kind, object)| format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n")).collect();
        follow_events(&state, &mut Services::new(), stream.as_bytes()).unwrap();
        assert_eq!(fs::read_to_string(hosts_file(&state)).unwrap(), "10.0.0.3 b.default.svc.cluster.local\n");
    }

    #[test]
    fn an_error_of_the_watch_ends_it() {
        let state = State::at("/nowhere".into());
        let gone = r#"{"type":"ERROR","object":{"kind":"Status","code":410}}"#;
        assert!(follow_events(&state, &mut Services::new(), gone.as_bytes()).is_err());
    }
}
