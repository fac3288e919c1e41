//! `kube up`: chooses a way to a cluster and makes it run; mends what has died; does nothing where all is well.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::command::{output, succeeds, system};
use super::components::Layout;
use super::network::{self, API_SERVICE, BRIDGE};
use super::pki::NODE;
use super::process::{self, Component};
use super::provider::{self, Kubeconfig, Provider};
use super::state::{State, write};
use super::steps::Steps;
use super::{config, debian, dns, docker, iptables, pause, pki};

const POLL: Duration = Duration::from_millis(100);
const COMPONENT_WITHIN: Duration = Duration::from_secs(60);
/// The first start of an API server on a busy machine takes its time.
const CLUSTER_WITHIN: Duration = Duration::from_secs(180);
/// The clients whose kubeconfigs the components read.
const CLIENTS: [&str; 4] = ["controller-manager", "scheduler", "proxy", "kubelet"];

/// Makes a cluster run; returns how it was made, and the kubeconfig to use.
pub(super) fn up(state: &State, steps: Steps) -> Result<(Provider, PathBuf)> {
    let _lock = state.lock()?;
    let provider = choose(state, steps)?;
    if provider == Provider::Given {
        steps.say("KUBECONFIG names a cluster that answers: using it, changing nothing");
        return Ok((provider, std::env::var_os("KUBECONFIG").unwrap_or_default().into()));
    }
    let layout = match &provider {
        Provider::Kind | Provider::K3d | Provider::Given => None,
        Provider::Binaries(dir) => Some(Layout { bin: dir.clone(), node: false }),
        Provider::Debian => debian::cached().map(|bin| Layout { bin, node: true }),
    };
    if layout.is_some_and(|layout| is_well(state, &layout)) {
        steps.say(format_args!("the cluster is up and well ({})", provider.describe()));
        return Ok((provider, state.kubeconfig()));
    }
    steps.say(format_args!("using {}", provider.describe()));
    if let (Provider::Debian, Some(pid)) = (&provider, process::foreign_kubelet(state)) {
        let pid = pid.as_raw_nonzero();
        bail!("a kubelet runs here (pid {pid}): this is a node of another cluster already; name that in KUBECONFIG");
    }
    state.create()?;
    write(&state.dir().join("provider"), provider.word())?;
    match &provider {
        Provider::Given => {}
        Provider::Kind => docker::kind_up(state, steps)?,
        Provider::K3d => docker::k3d_up(state, steps)?,
        Provider::Binaries(bin) => start(state, &Layout { bin: bin.clone(), node: false }, steps)?,
        Provider::Debian => start(state, &Layout { bin: debian::prepare(steps)?, node: true }, steps)?,
    }
    steps.say(format_args!("the cluster is up, after {}", steps.total()));
    Ok((provider, state.kubeconfig()))
}

/// Another's cluster first; else the way that was gone before; else the first that is open.
pub(super) fn choose(state: &State, steps: Steps) -> Result<Provider> {
    let recorded = Provider::recorded(state);
    let given = match recorded {
        Some(_) => provider::kubeconfig(state),
        None => {
            let facts = provider::facts(state);
            if facts.kubeconfig == Kubeconfig::Silent {
                steps.say("KUBECONFIG is set, but no API server answers there: looking for another way");
            }
            return provider::choose(&facts);
        }
    };
    Ok(match (given, recorded) {
        (Kubeconfig::Answers, _) | (_, None) => Provider::Given,
        (_, Some(recorded)) => recorded,
    })
}

/// Whether every component runs and answers, the API server is ready, and the node, too.
fn is_well(state: &State, layout: &Layout) -> bool {
    let Ok(components) = layout.components(state) else { return false };
    components.iter().all(|component| component.works(state))
        && is_ready(state, layout)
        && (!layout.node || (network::exists() && node_is_ready(state, layout)))
}

fn start(state: &State, layout: &Layout, steps: Steps) -> Result<()> {
    if layout.node {
        steps.run("network of the pods", || {
            network::keep_settings(state)?;
            network::create_bridge()?;
            iptables::let_pods_out()
        })?;
    }
    steps.run("certificates and configuration", || configure(state, layout))?;
    // What was found frozen or dead is woken or started; what runs is left alone.
    let components = layout.components(state)?;
    let find = |name: &str| components.iter().find(|component| component.name == name);
    let (apart, rest): (Vec<_>, Vec<_>) =
        components.iter().partition(|component| matches!(component.name, "etcd" | "containerd"));
    for component in apart {
        component.start(state)?;
    }
    if let Some(etcd) = find("etcd") {
        steps.run("etcd", || etcd.wait(state, COMPONENT_WITHIN))?;
    }
    if let Some(apiserver) = find("apiserver") {
        apiserver.start(state)?;
        if let Some(containerd) = find("containerd") {
            steps.run("containerd, with the image of the pause program", || sandbox_image(state, containerd))?;
        }
        steps.run("API server", || {
            apiserver.wait(state, CLUSTER_WITHIN)?;
            until("the API server is not ready", apiserver, state, || is_ready(state, layout))
        })?;
    }
    let names: Vec<_> = rest.iter().map(|component| component.name).filter(|name| *name != "apiserver").collect();
    if !names.is_empty() {
        steps.run(&names.join(", "), || {
            rest.iter().try_for_each(|component| component.start(state).map(|_| ()))?;
            rest.iter().try_for_each(|component| component.wait(state, COMPONENT_WITHIN))
        })?;
    }
    match find("kubelet") {
        Some(kubelet) => steps.run("node, and the first service", || usable(state, layout, kubelet)),
        None => {
            let missing: Vec<_> = ["kube-controller-manager", "kube-scheduler", "kubelet"]
                .into_iter()
                .filter(|program| *program == "kubelet" || layout.program(program).is_none())
                .collect();
            steps.say(format_args!("lacking: {}. Objects are stored, but no pod ever runs", missing.join(", ")));
            Ok(())
        }
    }
}

fn configure(state: &State, layout: &Layout) -> Result<()> {
    pki::create(state)?;
    config::kubeconfigs(state, &layout.server(), &CLIENTS)?;
    if layout.node {
        config::node(state)?;
        let hosts = dns::hosts_file(state);
        if !hosts.exists() {
            write(&hosts, "")?;
        }
    }
    Ok(())
}

/// Pods, their network and the names of services work: the node is ready, pods may be created, the API server is reached
/// by the address of its service, and DNS knows it.
fn usable(state: &State, layout: &Layout, kubelet: &Component) -> Result<()> {
    until("the node is not ready", kubelet, state, || node_is_ready(state, layout))?;
    until("there is no service account for pods", kubelet, state, || {
        layout.kubectl(state).is_ok_and(|mut kubectl| {
            succeeds(kubectl.args(["get", "serviceaccount", "default", "--namespace=default"]))
        })
    })?;
    let address: SocketAddr =
        format!("{API_SERVICE}:443").parse().context("the API server's service has an address")?;
    until("services cannot be reached", kubelet, state, || {
        TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_ok()
    })?;
    until("DNS knows no service", kubelet, state, || {
        std::fs::read_to_string(dns::hosts_file(state)).is_ok_and(|hosts| hosts.contains(API_SERVICE))
    })
}

/// Waits for a condition; `component` is the one whose log tells why it does not come.
fn until(otherwise: &str, component: &Component, state: &State, holds: impl Fn() -> bool) -> Result<()> {
    let deadline = Instant::now() + CLUSTER_WITHIN;
    while !holds() {
        let runs = matches!(component.condition(state), process::Condition::Running(_));
        if !runs || Instant::now() > deadline {
            let log = state.log(component.name);
            bail!("{otherwise}; the end of {}:\n{}", log.display(), process::tail(&log));
        }
        sleep(POLL);
    }
    Ok(())
}

fn is_ready(state: &State, layout: &Layout) -> bool {
    layout.kubectl(state).is_ok_and(|mut kubectl| succeeds(kubectl.args(["get", "--raw", "/readyz"])))
}

fn node_is_ready(state: &State, layout: &Layout) -> bool {
    let status = r#"jsonpath={.status.conditions[?(@.type=="Ready")].status}"#;
    let said = layout.kubectl(state).and_then(|mut kubectl| output(kubectl.args(["get", "node", NODE, "-o", status])));
    said.is_ok_and(|said| said == "True")
}

/// Without this image no pod starts.
fn sandbox_image(state: &State, containerd: &Component) -> Result<()> {
    containerd.wait(state, COMPONENT_WITHIN)?;
    let images = output(ctr(state).args(["images", "list", "--quiet"]))?;
    if images.lines().any(|image| image == pause::REFERENCE) {
        return Ok(());
    }
    let archive = state.dir().join("pause.tar");
    pause::write_image(state.dir(), &archive)?;
    import(state, &archive)
}

/// Gives an image archive to the node's containerd.
pub(super) fn import(state: &State, archive: &Path) -> Result<()> {
    output(ctr(state).args(["images", "import"]).arg(archive)).map(|_| ()).context("cannot import the image")
}

fn ctr(state: &State) -> Command {
    let mut ctr = system("ctr");
    ctr.arg("--address").arg(state.containerd_socket()).args(["--namespace", "k8s.io"]);
    ctr
}

/// What is said at the end.
pub(super) fn epilogue(kubeconfig: &Path, state: &State) -> String {
    let mut text = format!("\nexport KUBECONFIG={}", kubeconfig.display());
    if kubeconfig == state.kubeconfig() && network::exists() {
        text.push_str(&format!("\npods see this machine as {} (bridge {BRIDGE})", network::GATEWAY));
    }
    text
}
