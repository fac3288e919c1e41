//! Kubernetes on a bare Debian machine: packages of the distribution, and the programs of Kubernetes built from its source
//! package. They are kept in the cache; a second cluster needs no build. The machine's package sources are not changed.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::command::{find, output, search_path, system};
use super::process::tail;
use super::state::{cache, create_dir, write};
use super::steps::Steps;

const VERSION: &str = "1.20.2";
/// The commit of that version, which the build writes into the programs.
const COMMIT: &str = "faecb196815e248d3ecfb03c680a4507229c2a56";
const PROGRAMS: [&str; 6] =
    ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl"];

/// A program that must be there, or a file, and the package that brings it.
type Needed = (&'static str, &'static str);

const TO_RUN: [Needed; 12] = [
    ("etcd", "etcd-server"),
    ("containerd", "containerd"),
    ("runc", "runc"),
    ("/usr/lib/cni/bridge", "containernetworking-plugins"),
    ("iptables", "iptables"),
    ("ip", "iproute2"),
    ("mount", "mount"),
    ("conntrack", "conntrack"),
    ("dnsmasq", "dnsmasq-base"),
    ("openssl", "openssl"),
    ("cc", "gcc"),
    ("/usr/include/stdlib.h", "libc6-dev"),
];
const TO_BUILD: [Needed; 6] = [
    ("/usr/lib/go/bin/go", "golang-go"),
    ("make", "make"),
    ("rsync", "rsync"),
    ("jq", "jq"),
    ("dpkg-source", "dpkg-dev"),
    ("xz", "xz-utils"),
];

/// Installs and builds what is missing; returns the directory that holds the programs of Kubernetes.
pub(super) fn prepare(steps: Steps) -> Result<PathBuf> {
    install(steps, &TO_RUN)?;
    if let Some(programs) = cached() {
        return Ok(programs);
    }
    install(steps, &TO_BUILD)?;
    let programs = cache()?.join(format!("kubernetes-{VERSION}"));
    let work = cache()?.join(format!("kubernetes-{VERSION}-build"));
    create_dir(&work)?;
    steps.run("source package of Kubernetes", || fetch(&work))?;
    steps.say(format_args!("building needs some 4 GB in {}, until it is done", work.display()));
    steps.run_long("building kube-apiserver (5 minutes or more)", || make(&work, &PROGRAMS[..1]))?;
    steps.run_long("building the other five programs (2 minutes or more)", || make(&work, &PROGRAMS[1..]))?;
    keep(&work, &programs)?;
    fs::remove_dir_all(&work).with_context(|| format!("cannot delete {}", work.display()))?;
    Ok(programs)
}

/// The programs of an earlier build.
pub(super) fn cached() -> Option<PathBuf> {
    let dir = cache().ok()?.join(format!("kubernetes-{VERSION}"));
    PROGRAMS.iter().all(|program| dir.join(program).is_file()).then_some(dir)
}

/// Installs the packages of those programs that are missing.
fn install(steps: Steps, needed: &[Needed]) -> Result<()> {
    let missing = |(what, _): &&Needed| match what.starts_with('/') {
        true => !Path::new(what).exists(),
        false => find(what, None).is_none(),
    };
    let packages: Vec<&str> = needed.iter().filter(missing).map(|(_, package)| *package).collect();
    if packages.is_empty() {
        return Ok(());
    }
    if find("apt-get", None).is_none() {
        bail!("apt-get is missing, so these must be installed by other means: {}", packages.join(", "));
    }
    steps.run_long(&format!("installing {}", packages.join(", ")), || {
        output(apt().arg("update"))?;
        output(apt().args(["install", "-y", "--no-install-recommends"]).args(packages)).map(|_| ())
    })
}

fn apt() -> Command {
    let mut apt = system("apt-get");
    apt.env("DEBIAN_FRONTEND", "noninteractive").args(["-q", "-o", "DPkg::Lock::Timeout=300"]);
    apt
}

/// Fetches and unpacks the source package into `work/source`, from the mirror that the machine uses anyway.
fn fetch(work: &Path) -> Result<()> {
    let (source, unfinished) = (work.join("source"), work.join("source.unfinished"));
    if source.exists() {
        return Ok(());
    }
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).with_context(|| format!("cannot delete {}", unfinished.display()))?;
    }
    create_dir(&unfinished)?;
    create_dir(&work.join("lists/partial"))?;
    let targets = ["indextargets", "--format", "$(CREATED_BY) $(CODENAME) $(COMPONENT) $(REPO_URI)"];
    let targets = output(apt().args(targets))?;
    let mirror =
        mirror(&targets).context("no package source of Debian bookworm (main) is set up for apt: see /etc/apt")?;
    let sources = work.join("deb-src.list");
    write(&sources, format!("deb-src {mirror} bookworm main\n"))?;
    // Lists of its own: the machine's are left as they are.
    let options: [(&str, OsString); 4] = [
        ("Dir::Etc::SourceList=", sources.into()),
        ("Dir::Etc::SourceParts=", "-".into()),
        ("Dir::State::Lists=", work.join("lists").into()),
        ("APT::Sandbox::User=", "root".into()),
    ];
    let with_source = || {
        let mut apt = apt();
        for (name, value) in &options {
            let mut option = OsString::from(name);
            option.push(value);
            apt.arg("-o").arg(option);
        }
        apt
    };
    output(with_source().arg("update"))?;
    output(with_source().args(["source", "kubernetes"]).current_dir(&unfinished))?;
    fs::rename(&unfinished, &source).with_context(|| format!("cannot rename {}", unfinished.display()))
}

/// From lines of "Packages CODENAME COMPONENT URI".
fn mirror(targets: &str) -> Option<&str> {
    targets.lines().find_map(|line| line.strip_prefix("Packages bookworm main "))
}

/// Builds programs in GOPATH mode, which wants the tree at its import path. What was built before is not built again.
fn make(work: &Path, programs: &[&str]) -> Result<()> {
    let (gopath, log) = (work.join("go"), work.join("build.log"));
    let tree = gopath.join("src/k8s.io/kubernetes");
    if !tree.exists() {
        create_dir(&gopath.join("src/k8s.io"))?;
        std::os::unix::fs::symlink(unpacked(work)?, &tree)
            .with_context(|| format!("cannot link {}", tree.display()))?;
    }
    let what: Vec<String> = programs.iter().map(|program| format!("cmd/{program}")).collect();
    let said = fs::OpenOptions::new().create(true).append(true).open(&log);
    let said = said.with_context(|| format!("cannot open {}", log.display()))?;
    let errors = said.try_clone().with_context(|| format!("cannot open {}", log.display()))?;
    let (major, rest) = VERSION.split_once('.').context("the version has parts")?;
    let status = Command::new("make")
        .arg(format!("WHAT={}", what.join(" ")))
        .current_dir(&tree)
        .env("PATH", search_path(Some(Path::new("/usr/lib/go/bin"))))
        .env("GOPATH", &gopath)
        .env("GOCACHE", work.join("go-cache"))
        .env("GO111MODULE", "off")
        .env("GOFLAGS", "")
        .env("GOTOOLCHAIN", "local")
        .env("CGO_ENABLED", "0")
        .env("KUBE_GIT_COMMIT", COMMIT)
        .env("KUBE_GIT_TREE_STATE", "clean")
        .env("KUBE_GIT_VERSION", format!("v{VERSION}"))
        .env("KUBE_GIT_MAJOR", major)
        .env("KUBE_GIT_MINOR", rest.split('.').next().unwrap_or_default())
        .stdin(Stdio::null())
        .stdout(said)
        .stderr(errors)
        .status()
        .context("cannot run make")?;
    if !status.success() {
        bail!("building {} failed ({status}); the end of {}:\n{}", programs.join(", "), log.display(), tail(&log));
    }
    Ok(())
}

/// The tree in `work/source`.
fn unpacked(work: &Path) -> Result<PathBuf> {
    let source = work.join("source");
    let entries = fs::read_dir(&source).with_context(|| format!("cannot read {}", source.display()))?;
    let mut trees = entries.flatten().map(|entry| entry.path()).filter(|path| path.join("cmd/kubelet").is_dir());
    trees.next().with_context(|| format!("no Kubernetes in {}", source.display()))
}

/// Copies the programs into the cache: all or none.
fn keep(work: &Path, programs: &Path) -> Result<()> {
    let unfinished = work.join("programs");
    create_dir(&unfinished)?;
    for program in PROGRAMS {
        let built = unpacked(work)?.join("_output/bin").join(program);
        fs::copy(&built, unfinished.join(program)).with_context(|| format!("cannot copy {}", built.display()))?;
    }
    if programs.exists() {
        fs::remove_dir_all(programs).with_context(|| format!("cannot delete {}", programs.display()))?;
    }
    fs::rename(&unfinished, programs).with_context(|| format!("cannot rename {}", unfinished.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_the_one_of_the_release_itself() {
        let targets = "Packages bookworm-security main https://mirror.test/debian-security/\n\
                       Translations bookworm main https://wrong.test/debian/\n\
                       Packages bookworm main https://mirror.test/debian/\n";
        assert_eq!(mirror(targets), Some("https://mirror.test/debian/"));
        assert_eq!(mirror(""), None);
    }
}
