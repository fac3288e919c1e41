//! Which Kubernetes is used: the first of several that this machine can offer.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use super::command::{find, succeeds};
use super::state::State;

/// Where kubebuilder's test binaries are installed by custom.
const KUBEBUILDER: &str = "/usr/local/kubebuilder/bin";

/// A way to a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Provider {
    /// The one that KUBECONFIG names: used as it is, never changed.
    Given,
    Kind,
    K3d,
    /// Started from programs in this directory.
    Binaries(PathBuf),
    /// Started from programs built from Debian's source package.
    Debian,
}

/// What KUBECONFIG says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kubeconfig {
    /// It is not set, or names the cluster of `kube up` itself.
    NotGiven,
    Answers,
    Silent,
}

/// What this machine has.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) kubeconfig: Kubeconfig,
    /// A Docker engine runs; its client alone does not count.
    pub(super) docker: bool,
    pub(super) kind: bool,
    pub(super) k3d: bool,
    /// A directory that holds etcd and the API server.
    pub(super) binaries: Option<PathBuf>,
    /// The release's name, if this is Debian: `bookworm`.
    pub(super) debian: Option<String>,
    pub(super) root: bool,
}

/// The release whose source package was tried.
const RELEASE: &str = "bookworm";

/// The first way that is open; if none is, what each would take.
pub(super) fn choose(facts: &Facts) -> Result<Provider> {
    if facts.kubeconfig == Kubeconfig::Answers {
        return Ok(Provider::Given);
    }
    if facts.docker && facts.kind {
        return Ok(Provider::Kind);
    }
    if facts.docker && facts.k3d {
        return Ok(Provider::K3d);
    }
    if let Some(dir) = &facts.binaries {
        return Ok(Provider::Binaries(dir.clone()));
    }
    if facts.root && facts.debian.as_deref() == Some(RELEASE) {
        return Ok(Provider::Debian);
    }
    bail!("no way to a Kubernetes cluster on this machine:\n{}", lacking(facts))
}

/// A line for each way that is closed, with what would open it.
fn lacking(facts: &Facts) -> String {
    let kubeconfig = match facts.kubeconfig {
        Kubeconfig::Silent => "KUBECONFIG is set, but no API server answers there: start it, or name another",
        _ => "KUBECONFIG is not set: name a cluster that may be used for tests",
    };
    let docker = match (facts.docker, facts.kind || facts.k3d) {
        (true, _) => "a Docker engine runs, but neither kind nor k3d is installed: install one",
        (false, true) => "kind or k3d is installed, but no Docker engine runs: start it",
        (false, false) => "neither a Docker engine runs, nor is kind or k3d installed",
    };
    let binaries = format!(
        "no etcd and kube-apiserver in KUBEBUILDER_ASSETS or {KUBEBUILDER}: `setup-envtest use` fetches them (a control \
         plane only: no pods)"
    );
    let debian = match (&facts.debian, facts.root) {
        (Some(release), true) => format!("this is Debian {release}: building Kubernetes was tried on {RELEASE} only"),
        (Some(_), false) => {
            "this is Debian, but not root: as root, Kubernetes is built from Debian's own source".into()
        }
        (None, _) => {
            format!("this is not Debian {RELEASE}, where Kubernetes could be built from the system's own source")
        }
    };
    [kubeconfig, docker, &binaries, &debian].map(|line| format!("  - {line}")).join("\n")
}

/// Looks at this machine.
pub(super) fn facts(state: &State) -> Facts {
    let on_path = |program| find(program, None).is_some();
    Facts {
        kubeconfig: kubeconfig(state),
        docker: succeeds(Command::new("docker").args(["version", "--format", "{{.Server.Version}}"])),
        kind: on_path("kind"),
        k3d: on_path("k3d"),
        binaries: binaries(),
        debian: std::fs::read_to_string("/etc/os-release").ok().and_then(|text| debian(&text)),
        root: rustix::process::geteuid().is_root(),
    }
}

/// Whether KUBECONFIG names a cluster of somebody else, and that answers.
pub(super) fn kubeconfig(state: &State) -> Kubeconfig {
    let Some(value) = std::env::var_os("KUBECONFIG").filter(|value| !value.is_empty()) else {
        return Kubeconfig::NotGiven;
    };
    if Path::new(&value) == state.kubeconfig() {
        return Kubeconfig::NotGiven;
    }
    let kubectl = find("kubectl", super::debian::cached().as_deref()).unwrap_or_else(|| "kubectl".into());
    match succeeds(Command::new(kubectl).args(["get", "--raw", "/version", "--request-timeout=5s"])) {
        true => Kubeconfig::Answers,
        false => Kubeconfig::Silent,
    }
}

fn binaries() -> Option<PathBuf> {
    let named = std::env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from);
    let has_both = |dir: &PathBuf| dir.join("etcd").is_file() && dir.join("kube-apiserver").is_file();
    named.into_iter().chain([PathBuf::from(KUBEBUILDER)]).find(has_both)
}

/// The name of the release in `/etc/os-release`, if it is Debian itself and not a relative.
fn debian(os_release: &str) -> Option<String> {
    let value = |key: &str| {
        let line = os_release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
        Some(line.trim_matches('"').to_owned())
    };
    (value("ID")? == "debian").then(|| value("VERSION_CODENAME"))?
}

impl Provider {
    /// As the file `provider` keeps it.
    pub(super) fn word(&self) -> String {
        match self {
            Self::Given => "kubeconfig".into(),
            Self::Kind => "kind".into(),
            Self::K3d => "k3d".into(),
            Self::Binaries(dir) => format!("binaries {}", dir.display()),
            Self::Debian => "debian".into(),
        }
    }

    /// The way in which the cluster of this machine was made, if there is one.
    pub(super) fn recorded(state: &State) -> Option<Self> {
        match std::fs::read_to_string(state.dir().join("provider")).ok()?.trim() {
            "kind" => Some(Self::Kind),
            "k3d" => Some(Self::K3d),
            "debian" => Some(Self::Debian),
            other => other.strip_prefix("binaries ").map(|dir| Self::Binaries(dir.into())),
        }
    }

    /// For people.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Given => "the cluster that KUBECONFIG names".into(),
            Self::Kind => "kind, in Docker".into(),
            Self::K3d => "k3d, in Docker".into(),
            Self::Binaries(dir) => format!("a control plane from the programs in {}", dir.display()),
            Self::Debian => "Kubernetes built from Debian's source package, on this machine itself".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine that offers everything.
    fn rich() -> Facts {
        Facts {
            kubeconfig: Kubeconfig::Answers,
            docker: true,
            kind: true,
            k3d: true,
            binaries: Some("/assets".into()),
            debian: Some("bookworm".into()),
            root: true,
        }
    }

    #[test]
    fn the_ways_are_tried_in_their_order() {
        let mut facts = rich();
        assert_eq!(choose(&facts).unwrap(), Provider::Given);
        facts.kubeconfig = Kubeconfig::Silent;
        assert_eq!(choose(&facts).unwrap(), Provider::Kind);
        facts.kind = false;
        assert_eq!(choose(&facts).unwrap(), Provider::K3d);
        facts.docker = false;
        assert_eq!(choose(&facts).unwrap(), Provider::Binaries("/assets".into()));
        facts.binaries = None;
        assert_eq!(choose(&facts).unwrap(), Provider::Debian);
        facts.root = false;
        let error = choose(&facts).unwrap_err().to_string();
        for part in ["no API server answers", "no Docker engine runs: start it", "setup-envtest", "but not root"] {
            assert!(error.contains(part), "{part}: {error}");
        }
    }

    #[test]
    fn debian_is_told_from_its_relatives() {
        assert_eq!(debian("ID=debian\nVERSION_CODENAME=bookworm\n").as_deref(), Some("bookworm"));
        assert_eq!(debian("ID=\"debian\"\nVERSION_CODENAME=\"trixie\"\n").as_deref(), Some("trixie"));
        assert_eq!(debian("ID=ubuntu\nID_LIKE=debian\nVERSION_CODENAME=noble\n"), None);
    }

    #[test]
    fn the_way_is_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::at(dir.path().to_owned());
        assert_eq!(Provider::recorded(&state), None);
        for provider in [Provider::Kind, Provider::K3d, Provider::Debian, Provider::Binaries("/a b".into())] {
            std::fs::write(dir.path().join("provider"), provider.word()).unwrap();
            assert_eq!(Provider::recorded(&state), Some(provider));
        }
    }
}
