//! The components of a cluster and their command lines.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::command::{find, output};
use super::network::{GATEWAY, SERVICES};
use super::pki::{DOMAIN, NODE};
use super::process::{Answers, Component};
use super::state::State;
use super::{config, dns};

/// Programs that a cluster consists of, as their command lines name them. `xtask` is the follower of services, and
/// `kubectl` what it follows them by: that does not notice when the API server's address goes away.
pub(super) const PROGRAMS: [&str; 11] = [
    "xtask",
    "kubectl",
    "dnsmasq",
    "kube-proxy",
    "kubelet",
    "kube-scheduler",
    "kube-controller-manager",
    "kube-apiserver",
    "containerd",
    "containerd-shim-runc-v2",
    "etcd",
];

const API_PORT: u16 = 6443;
const ETCD_PORT: u16 = 12379;
const ETCD_PEER_PORT: u16 = 12380;

/// What a cluster is made from.
#[derive(Debug)]
pub(super) struct Layout {
    /// Holds Kubernetes' programs, and perhaps etcd.
    pub(super) bin: PathBuf,
    /// With nodes, or a control plane alone.
    pub(super) node: bool,
}

impl Layout {
    /// The API server's address: the bridge's, where pods reach it; of the loopback if there are none.
    fn host(&self) -> &'static str {
        if self.node { GATEWAY } else { "127.0.0.1" }
    }

    pub(super) fn server(&self) -> String {
        format!("https://{}:{API_PORT}", self.host())
    }

    /// A program: of the layout's own directory, else of the system.
    pub(super) fn program(&self, name: &str) -> Option<PathBuf> {
        find(name, Some(&self.bin))
    }

    fn needed(&self, name: &str) -> Result<PathBuf> {
        self.program(name).with_context(|| format!("{name} is neither in {} nor on PATH", self.bin.display()))
    }

    pub(super) fn kubectl(&self, state: &State) -> Result<Command> {
        let mut command = Command::new(self.needed("kubectl")?);
        for proxy in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"] {
            command.env_remove(proxy);
        }
        command.arg("--kubeconfig").arg(state.kubeconfig()).arg("--request-timeout=5s");
        Ok(command)
    }

    /// Of etcd, the API server and what else there is, in the order in which they start.
    pub(super) fn components(&self, state: &State) -> Result<Vec<Component>> {
        let mut all = vec![self.etcd(state)?, self.apiserver(state)?];
        all.extend(self.controller_manager(state));
        all.extend(self.scheduler(state));
        if self.node {
            all.extend([self.containerd(state)?, self.kubelet(state)?, self.kube_proxy(state)?]);
            all.extend([self.dnsmasq(state)?, self.dns_follow(state)?]);
        }
        Ok(all)
    }

    fn etcd(&self, state: &State) -> Result<Component> {
        let (client, peer) = (format!("https://127.0.0.1:{ETCD_PORT}"), format!("http://127.0.0.1:{ETCD_PEER_PORT}"));
        Ok(Component {
            name: "etcd",
            program: self.needed("etcd")?,
            args: vec![
                format!("--name={NODE}"),
                format!("--data-dir={}", state.text("etcd")),
                format!("--listen-client-urls={client}"),
                format!("--advertise-client-urls={client}"),
                format!("--listen-peer-urls={peer}"),
                format!("--initial-advertise-peer-urls={peer}"),
                format!("--initial-cluster={NODE}={peer}"),
                "--client-cert-auth".into(),
                format!("--trusted-ca-file={}", state.text("pki/ca.crt")),
                format!("--cert-file={}", state.text("pki/etcd.crt")),
                format!("--key-file={}", state.text("pki/etcd.key")),
            ],
            answers: loopback(ETCD_PORT),
        })
    }

    fn apiserver(&self, state: &State) -> Result<Component> {
        let pki = |file: &str| state.text(&format!("pki/{file}"));
        let host = self.host();
        // Without nodes nobody follows this one, but a loopback address is refused: it is one of those for documentation.
        let advertised = if self.node { GATEWAY } else { "192.0.2.1" };
        Ok(Component {
            name: "apiserver",
            program: self.needed("kube-apiserver")?,
            args: vec![
                format!("--bind-address={host}"),
                format!("--advertise-address={advertised}"),
                format!("--secure-port={API_PORT}"),
                format!("--etcd-servers=https://127.0.0.1:{ETCD_PORT}"),
                format!("--etcd-cafile={}", pki("ca.crt")),
                format!("--etcd-certfile={}", pki("etcd-client.crt")),
                format!("--etcd-keyfile={}", pki("etcd-client.key")),
                "--authorization-mode=Node,RBAC".into(),
                "--enable-admission-plugins=NodeRestriction".into(),
                "--allow-privileged=true".into(),
                format!("--client-ca-file={}", pki("ca.crt")),
                format!("--tls-cert-file={}", pki("apiserver.crt")),
                format!("--tls-private-key-file={}", pki("apiserver.key")),
                format!("--service-account-issuer=https://kubernetes.default.svc.{DOMAIN}"),
                format!("--service-account-key-file={}", pki("service-accounts.pub")),
                format!("--service-account-signing-key-file={}", pki("service-accounts.key")),
                format!("--service-cluster-ip-range={SERVICES}"),
                format!("--kubelet-certificate-authority={}", pki("ca.crt")),
                format!("--kubelet-client-certificate={}", pki("kubelet-client.crt")),
                format!("--kubelet-client-key={}", pki("kubelet-client.key")),
                "--kubelet-preferred-address-types=InternalIP".into(),
                format!("--requestheader-client-ca-file={}", pki("ca.crt")),
                "--requestheader-allowed-names=front-proxy".into(),
                "--requestheader-username-headers=X-Remote-User".into(),
                "--requestheader-group-headers=X-Remote-Group".into(),
                "--requestheader-extra-headers-prefix=X-Remote-Extra-".into(),
                format!("--proxy-client-cert-file={}", pki("front-proxy.crt")),
                format!("--proxy-client-key-file={}", pki("front-proxy.key")),
                // A test that applies a thousand deployments measures Modelyard, not the limits of this server.
                "--max-requests-inflight=2000".into(),
                "--max-mutating-requests-inflight=1000".into(),
            ],
            answers: at(host, API_PORT),
        })
    }

    fn controller_manager(&self, state: &State) -> Option<Component> {
        let mut args = self.of_a_controller(state, "controller-manager");
        args.extend([
            format!("--service-account-private-key-file={}", state.text("pki/service-accounts.key")),
            format!("--root-ca-file={}", state.text("pki/ca.crt")),
            format!("--cluster-signing-cert-file={}", state.text("pki/ca.crt")),
            format!("--cluster-signing-key-file={}", state.text("pki/ca.key")),
            "--use-service-account-credentials".into(),
            // Tests stop the kubelet and watch what follows.
            "--node-monitor-grace-period=20s".into(),
            "--horizontal-pod-autoscaler-sync-period=5s".into(),
            "--kube-api-qps=100".into(),
            "--kube-api-burst=200".into(),
            format!("--flex-volume-plugin-dir={}", state.text("kubelet/volume-plugins")),
        ]);
        let program = self.program("kube-controller-manager")?;
        Some(Component { name: "controller-manager", program, args, answers: loopback(10257) })
    }

    fn scheduler(&self, state: &State) -> Option<Component> {
        let args = self.of_a_controller(state, "scheduler");
        let program = self.program("kube-scheduler")?;
        Some(Component { name: "scheduler", program, args, answers: loopback(10259) })
    }

    fn of_a_controller(&self, state: &State, name: &str) -> Vec<String> {
        let kubeconfig = state.etc(&format!("{name}.kubeconfig"));
        let mut args: Vec<String> = ["kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"]
            .map(|flag| format!("--{flag}={}", kubeconfig.display()))
            .into();
        args.extend(["--bind-address=127.0.0.1".into(), "--leader-elect=false".into()]);
        args.push(format!("--cert-dir={}", state.etc(&format!("{name}-serving")).display()));
        // Until 1.23 there was an open port beside the one that asks who is there; the flag went in 1.24.
        if minor(&self.bin).is_some_and(|minor| minor < 24) {
            args.push("--port=0".into());
        }
        args
    }

    fn containerd(&self, state: &State) -> Result<Component> {
        Ok(Component {
            name: "containerd",
            program: self.needed("containerd")?,
            args: vec!["--config".into(), state.etc(config::CONTAINERD).display().to_string()],
            answers: Answers::OnSocket(state.containerd_socket()),
        })
    }

    fn kubelet(&self, state: &State) -> Result<Component> {
        Ok(Component {
            name: "kubelet",
            program: self.needed("kubelet")?,
            args: vec![
                format!("--config={}", state.etc(config::KUBELET).display()),
                format!("--kubeconfig={}", state.etc("kubelet.kubeconfig").display()),
                format!("--root-dir={}", state.text("kubelet")),
                format!("--cert-dir={}", state.text("kubelet/pki")),
                "--container-runtime=remote".into(),
                format!("--container-runtime-endpoint=unix://{}", state.containerd_socket().display()),
                format!("--hostname-override={NODE}"),
                format!("--node-ip={GATEWAY}"),
            ],
            answers: loopback(10248),
        })
    }

    fn kube_proxy(&self, state: &State) -> Result<Component> {
        Ok(Component {
            name: "kube-proxy",
            program: self.needed("kube-proxy")?,
            args: vec![format!("--config={}", state.etc(config::PROXY).display())],
            answers: loopback(10256),
        })
    }

    fn dnsmasq(&self, state: &State) -> Result<Component> {
        Ok(Component {
            name: "dnsmasq",
            program: self.needed("dnsmasq")?,
            args: vec![
                "--keep-in-foreground".into(),
                "--conf-file=/dev/null".into(),
                "--user=root".into(),
                "--pid-file=".into(),
                "--log-facility=-".into(),
                format!("--listen-address={GATEWAY}"),
                "--bind-interfaces".into(),
                "--no-hosts".into(),
                format!("--addn-hosts={}", dns::hosts_file(state).display()),
                format!("--local=/{DOMAIN}/"),
            ],
            answers: at(GATEWAY, 53),
        })
    }

    fn dns_follow(&self, state: &State) -> Result<Component> {
        Ok(Component {
            name: "dns-follow",
            program: std::env::current_exe().context("cannot find out which program this is")?,
            args: vec![
                "kube".into(),
                "dns-follow".into(),
                state.dir().display().to_string(),
                self.needed("kubectl")?.display().to_string(),
            ],
            answers: Answers::ByRunning,
        })
    }
}

fn loopback(port: u16) -> Answers {
    Answers::At(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
}

fn at(host: &str, port: u16) -> Answers {
    let host = host.parse().unwrap_or(Ipv4Addr::LOCALHOST);
    Answers::At(SocketAddr::from((host, port)))
}

/// The minor version of the programs in a directory.
fn minor(bin: &Path) -> Option<u32> {
    minor_of(&output(Command::new(bin.join("kube-apiserver")).arg("--version")).ok()?)
}

/// `Kubernetes v1.20.2` is 20.
fn minor_of(version: &str) -> Option<u32> {
    version.trim().split_once("v1.")?.1.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_minor_version_is_read() {
        assert_eq!(minor_of("Kubernetes v1.20.2\n"), Some(20));
        assert_eq!(minor_of("Kubernetes v1.34.0-alpha.1+abc"), Some(34));
        assert_eq!(minor_of("etcd Version: 3.4.23"), None);
    }
}
