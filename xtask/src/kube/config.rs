//! The configuration files of a node: kubeconfigs, containerd, the pod network, kubelet and kube-proxy. Written anew at
//! every start, so that a new version of this program applies its own.

use std::fs;

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::network::{BRIDGE, GATEWAY, PODS};
use super::pause;
use super::pki::{DOMAIN, NODE};
use super::state::{State, write};

/// Plug-ins of Debian's package containernetworking-plugins.
pub(super) const CNI_PLUGINS: &str = "/usr/lib/cni";
pub(super) const CONTAINERD: &str = "containerd.toml";
pub(super) const KUBELET: &str = "kubelet.json";
pub(super) const PROXY: &str = "kube-proxy.json";

/// Writes a kubeconfig for each of `clients` (names of certificates) into `etc`, and the administrator's at the top.
pub(super) fn kubeconfigs(state: &State, server: &str, clients: &[&str]) -> Result<()> {
    for client in clients {
        write(&state.etc(&format!("{client}.kubeconfig")), kubeconfig(state, server, client)?)?;
    }
    write(&state.kubeconfig(), kubeconfig(state, server, "admin")?)
}

/// JSON is YAML, too. The keys are within: the file works wherever it is copied.
fn kubeconfig(state: &State, server: &str, client: &str) -> Result<String> {
    let data = |file: &str| -> Result<String> {
        let path = state.pki(file);
        Ok(STANDARD.encode(fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?))
    };
    pretty(&json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "modelyard", "cluster": {
            "server": server,
            "certificate-authority-data": data("ca.crt")?,
        }}],
        "users": [{"name": client, "user": {
            "client-certificate-data": data(&format!("{client}.crt"))?,
            "client-key-data": data(&format!("{client}.key"))?,
        }}],
        "contexts": [{"name": "modelyard", "context": {"cluster": "modelyard", "user": client}}],
        "current-context": "modelyard",
    }))
}

/// Writes what containerd, the pod network, kubelet and kube-proxy read.
pub(super) fn node(state: &State) -> Result<()> {
    write(&state.etc(CONTAINERD), containerd(state))?;
    write(&state.etc("cni/10-modelyard.conflist"), pretty(&pod_network(state))?)?;
    write(&state.etc(KUBELET), pretty(&kubelet(state))?)?;
    write(&state.etc(PROXY), pretty(&proxy(state))?)
}

/// Everything that containerd keeps lies below our directory: a containerd of the system is not touched.
///
/// `restrict_oom_score_adj`: without it every sandbox fails where CAP_SYS_RESOURCE is missing, as in many containers.
fn containerd(state: &State) -> String {
    format!(
        r#"version = 2
root = "{root}"
state = "{run}"
[grpc]
  address = "{socket}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{opt}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{sandbox}"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  disable_apparmor = true
  tolerate_missing_hugetlb_controller = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{CNI_PLUGINS}"
    conf_dir = "{cni}"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
"#,
        root = state.text("containerd/root"),
        run = state.text("containerd/state"),
        opt = state.text("containerd/opt"),
        socket = state.containerd_socket().display(),
        sandbox = pause::REFERENCE,
        cni = state.text("etc/cni"),
    )
}

fn pod_network(state: &State) -> Value {
    json!({"cniVersion": "0.4.0", "name": "modelyard", "plugins": [{
        "type": "bridge",
        "bridge": BRIDGE,
        "isGateway": true,
        "hairpinMode": true,
        "ipam": {
            "type": "host-local",
            "dataDir": state.text("cni"),
            "ranges": [[{"subnet": PODS, "gateway": GATEWAY}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }]})
}

/// No eviction and no image collection: a full disk of a developer must not empty the node. Low thresholds of everything
/// that would make a test wait.
fn kubelet(state: &State) -> Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": GATEWAY,
        "port": 10250,
        "readOnlyPort": 0,
        "healthzBindAddress": "127.0.0.1",
        "healthzPort": 10248,
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": state.text("pki/ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": state.text("pki/kubelet-server.crt"),
        "tlsPrivateKeyFile": state.text("pki/kubelet-server.key"),
        "cgroupDriver": "cgroupfs",
        "failSwapOn": false,
        "clusterDomain": DOMAIN,
        "clusterDNS": [GATEWAY],
        "nodeStatusUpdateFrequency": "4s",
        "syncFrequency": "10s",
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "evictionHard": {
            "memory.available": "0%",
            "nodefs.available": "0%",
            "nodefs.inodesFree": "0%",
            "imagefs.available": "0%",
        },
        "maxPods": 110,
        // Its sockets would lie in /var/lib/kubelet, whatever `--root-dir` says.
        "featureGates": {"DevicePlugins": false},
        "registryPullQPS": 0,
        "eventRecordQPS": 0,
        "kubeAPIQPS": 50,
        "kubeAPIBurst": 100,
        "serializeImagePulls": false,
        "volumePluginDir": state.text("kubelet/volume-plugins"),
    })
}

/// Limits of connection tracking are left as this machine has them.
fn proxy(state: &State) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": state.text("etc/proxy.kubeconfig")},
        "hostnameOverride": NODE,
        "mode": "iptables",
        "clusterCIDR": PODS,
        "bindAddress": GATEWAY,
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "iptables": {"syncPeriod": "30s", "minSyncPeriod": "100ms"},
    })
}

fn pretty(value: &Value) -> Result<String> {
    serde_json::to_string_pretty(value).context("cannot write JSON")
}
