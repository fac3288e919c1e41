//! Where a cluster keeps its things. There is one such cluster per machine, so there is one such place.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The directory of the cluster: `$XDG_STATE_HOME/modelyard/kube`, or `~/.local/state/modelyard/kube`.
///
/// | in it | |
/// | --- | --- |
/// | `provider` | how the cluster was made |
/// | `kubeconfig` | the administrator's |
/// | `run/NAME.pid` | the process id of each component; `run/containerd.sock` |
/// | `logs/NAME.log` | what it said |
/// | `pki/`, `etc/` | certificates and configuration |
/// | `etcd/`, `containerd/`, `kubelet/`, `cni/` | their data |
#[derive(Debug, Clone)]
pub(crate) struct State {
    dir: PathBuf,
}

/// Held by whoever changes the cluster.
#[derive(Debug)]
pub(super) struct Lock {
    _parent: File,
}

impl State {
    pub(crate) fn of_this_machine() -> Result<Self> {
        Ok(Self { dir: base("XDG_STATE_HOME", ".local/state")?.join("kube") })
    }

    pub(super) fn at(dir: PathBuf) -> Self {
        Self { dir }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn exists(&self) -> bool {
        self.dir.exists()
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }

    pub(super) fn pid_file(&self, component: &str) -> PathBuf {
        self.dir.join("run").join(format!("{component}.pid"))
    }

    pub(super) fn log(&self, component: &str) -> PathBuf {
        self.dir.join("logs").join(format!("{component}.log"))
    }

    pub(super) fn containerd_socket(&self) -> PathBuf {
        self.dir.join("run/containerd.sock")
    }

    pub(super) fn pki(&self, file: &str) -> PathBuf {
        self.dir.join("pki").join(file)
    }

    pub(super) fn etc(&self, file: &str) -> PathBuf {
        self.dir.join("etc").join(file)
    }

    /// A path below the directory, as text for command lines and configuration.
    pub(super) fn text(&self, path: &str) -> String {
        self.dir.join(path).display().to_string()
    }

    /// Makes the directories; the topmost is for its owner only, as it holds keys.
    pub(super) fn create(&self) -> Result<()> {
        use std::os::unix::fs::PermissionsExt;
        for part in ["run", "logs", "etc/cni", "etcd", "containerd", "kubelet", "cni"] {
            create_dir(&self.dir.join(part))?;
        }
        for (part, mode) in [("", 0o700), ("etcd", 0o700)] {
            let path = self.dir.join(part);
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))
                .with_context(|| format!("cannot protect {}", path.display()))?;
        }
        Ok(())
    }

    /// Waits for no one: somebody else who is at it is named. The lock is on the directory above, which stays.
    pub(super) fn lock(&self) -> Result<Lock> {
        let parent = self.dir.parent().context("the state directory has no parent")?;
        create_dir(parent)?;
        let file = File::open(parent).with_context(|| format!("cannot open {}", parent.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(Lock { _parent: file }),
            Err(std::fs::TryLockError::WouldBlock) => {
                bail!("another `cargo xtask kube` is at work on {}: wait for it", self.dir.display())
            }
            Err(std::fs::TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("cannot lock {}", parent.display()))
            }
        }
    }
}

/// Where built programs are kept from one cluster to the next.
pub(super) fn cache() -> Result<PathBuf> {
    base("XDG_CACHE_HOME", ".cache")
}

fn base(variable: &str, below_home: &str) -> Result<PathBuf> {
    let set = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = set(variable).or_else(|| set("HOME").map(|home| home.join(below_home)));
    Ok(base.with_context(|| format!("neither {variable} nor HOME is set"))?.join("modelyard"))
}

pub(super) fn create_dir(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).with_context(|| format!("cannot create {}", path.display()))
}

pub(super) fn write(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    std::fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
}
