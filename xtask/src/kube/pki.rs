//! Keys and certificates of the cluster, made by `openssl`, once per cluster and valid for as long as it may live.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::command::output;
use super::network::{API_SERVICE, GATEWAY};
use super::state::{State, create_dir, write};

/// The name that the node goes by.
pub(super) const NODE: &str = "modelyard";
pub(super) const DOMAIN: &str = "cluster.local";
const DAYS: &str = "3650";

/// Who is certified as a client: file, common name, organization (a group, to Kubernetes).
const CLIENTS: [(&str, &str, Option<&str>); 8] = [
    ("admin", "admin", Some("system:masters")),
    ("controller-manager", "system:kube-controller-manager", None),
    ("scheduler", "system:kube-scheduler", None),
    ("kubelet", "system:node:modelyard", Some("system:nodes")),
    ("proxy", "system:kube-proxy", None),
    ("etcd-client", "kube-apiserver", None),
    ("kubelet-client", "kube-apiserver", Some("system:masters")),
    ("front-proxy", "front-proxy", None),
];

/// Whatever the system's own configuration says does not matter.
const AUTHORITY: &str = "[req]
distinguished_name = name
x509_extensions = authority
[name]
[authority]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign,digitalSignature
subjectKeyIdentifier = hash
";

/// Makes all keys and certificates, unless they are there.
pub(super) fn create(state: &State) -> Result<()> {
    let done = state.dir().join("pki");
    if done.exists() {
        return Ok(());
    }
    // Half of them would be worse than none: they appear together.
    let unfinished = state.dir().join("pki.unfinished");
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).with_context(|| format!("cannot delete {}", unfinished.display()))?;
    }
    create_dir(&unfinished)?;
    generate(&unfinished)?;
    fs::rename(&unfinished, &done).with_context(|| format!("cannot rename {}", unfinished.display()))
}

fn generate(dir: &Path) -> Result<()> {
    write(&dir.join("openssl.cnf"), AUTHORITY)?;
    key(dir, "ca")?;
    let authority = ["-config", "openssl.cnf", "-key", "ca.key", "-subj", "/CN=modelyard", "-out", "ca.crt"];
    openssl(dir, &[&["req", "-x509", "-new", "-days", DAYS][..], &authority].concat())?;

    let service = format!("DNS:kubernetes.default.svc.{DOMAIN}");
    let (gateway, api_service) = (format!("IP:{GATEWAY}"), format!("IP:{API_SERVICE}"));
    let node = format!("DNS:{NODE}");
    let api = [
        &gateway,
        &api_service,
        "IP:127.0.0.1",
        "DNS:localhost",
        "DNS:kubernetes",
        "DNS:kubernetes.default",
        "DNS:kubernetes.default.svc",
        &service,
    ];
    issue(dir, "apiserver", "/CN=kube-apiserver", &api.join(","))?;
    issue(dir, "etcd", "/CN=etcd", "IP:127.0.0.1,DNS:localhost")?;
    issue(dir, "kubelet-server", "/CN=kubelet", &[gateway.as_str(), &node].join(","))?;
    for (name, common_name, organization) in CLIENTS {
        let group = organization.map(|group| format!("/O={group}")).unwrap_or_default();
        issue(dir, name, &format!("{group}/CN={common_name}"), "")?;
    }

    key(dir, "service-accounts")?;
    openssl(dir, &["pkey", "-in", "service-accounts.key", "-pubout", "-out", "service-accounts.pub"])
}

/// A private key, readable by its owner only.
fn key(dir: &Path, name: &str) -> Result<()> {
    let file = format!("{name}.key");
    openssl(dir, &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", &file])
}

/// A key and its certificate: of a client if there are no `hosts`. A server may also call others.
fn issue(dir: &Path, name: &str, subject: &str, hosts: &str) -> Result<()> {
    key(dir, name)?;
    let [key, request, extensions, certificate] = ["key", "csr", "ext", "crt"].map(|part| format!("{name}.{part}"));
    let usage = match hosts {
        "" => "extendedKeyUsage = clientAuth\n".to_owned(),
        hosts => format!("extendedKeyUsage = serverAuth,clientAuth\nsubjectAltName = {hosts}\n"),
    };
    write(&dir.join(&extensions), format!("keyUsage = critical,digitalSignature\n{usage}"))?;
    openssl(dir, &["req", "-new", "-config", "openssl.cnf", "-key", &key, "-subj", subject, "-out", &request])?;
    let by = ["-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", DAYS, "-extfile", &extensions];
    openssl(dir, &[&["x509", "-req", "-in", &request, "-out", &certificate][..], &by].concat())?;
    for file in [request, extensions] {
        fs::remove_file(dir.join(&file)).with_context(|| format!("cannot delete {file}"))?;
    }
    Ok(())
}

fn openssl(dir: &Path, args: &[&str]) -> Result<()> {
    output(Command::new("openssl").args(args).current_dir(dir)).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_issued_verifies_against_the_authority_and_appears_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::at(dir.path().join("kube"));
        state.create().unwrap();
        create(&state).unwrap();
        for name in ["apiserver", "admin"] {
            let file = format!("{name}.crt");
            openssl(&state.dir().join("pki"), &["verify", "-CAfile", "ca.crt", &file]).unwrap();
        }
        let before = fs::read(state.pki("ca.crt")).unwrap();
        create(&state).unwrap();
        assert_eq!(fs::read(state.pki("ca.crt")).unwrap(), before);
    }
}
