//! Certificates for tests: a CA of the test's own, and a directory as Kubernetes mounts a Secret of type
//! `kubernetes.io/tls`, which changes by the swap of a symlink.

use std::cell::Cell;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;

pub struct TestCertificate {
    dir: TempDir,
    names: Vec<String>,
    ca: CertifiedIssuer<'static, KeyPair>,
    version: Cell<u32>,
}

impl TestCertificate {
    /// For 127.0.0.1 and localhost.
    pub fn create() -> Self {
        Self::naming(&["127.0.0.1", "localhost"])
    }

    /// For hosts of these names or addresses.
    pub fn naming(names: &[&str]) -> Self {
        let mut params = CertificateParams::new([]).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a CA");
        let dir = tempfile::tempdir().expect("a directory");
        let names = names.iter().map(ToString::to_string).collect();
        let certificate = Self { dir, names, ca, version: Cell::new(0) };
        for name in ["tls.crt", "tls.key"] {
            std::os::unix::fs::symlink(format!("..data/{name}"), certificate.dir.path().join(name)).expect("a link");
        }
        std::fs::write(certificate.ca(), certificate.ca_pem()).expect("a file");
        certificate.renew();
        certificate
    }

    /// Puts a new certificate, with a key of its own, in place of the one before. Returns it as DER.
    pub fn renew(&self) -> Vec<u8> {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(self.names.clone()).expect("parameters");
        let certificate = params.signed_by(&key, &self.ca).expect("a certificate");
        self.mount(&certificate.pem(), &key.serialize_pem());
        certificate.der().to_vec()
    }

    /// Puts any content there, as Kubernetes does: a new directory, then the swap of `..data`.
    pub fn mount(&self, certificate: &str, key: &str) {
        let version = format!("..{}", self.version.replace(self.version.get() + 1));
        let dir = self.dir.path().join(&version);
        std::fs::create_dir(&dir).expect("a directory");
        std::fs::write(dir.join("tls.crt"), certificate).expect("a file");
        std::fs::write(dir.join("tls.key"), key).expect("a file");
        let next = self.dir.path().join("..data_tmp");
        std::os::unix::fs::symlink(version, &next).expect("a link");
        std::fs::rename(&next, self.dir.path().join("..data")).expect("a swap");
    }

    pub fn certificate(&self) -> PathBuf {
        self.dir.path().join("tls.crt")
    }

    pub fn key(&self) -> PathBuf {
        self.dir.path().join("tls.key")
    }

    /// The CA's certificate, as a file.
    pub fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.crt")
    }

    pub fn ca_pem(&self) -> String {
        self.ca.pem()
    }

    /// `--tls-cert FILE --tls-key FILE`
    pub fn arguments(&self) -> Vec<String> {
        let text = |path: &Path| path.display().to_string();
        vec!["--tls-cert".into(), text(&self.certificate()), "--tls-key".into(), text(&self.key())]
    }

    /// A client that trusts the CA, and nothing else.
    pub fn client(&self) -> reqwest::Client {
        self.client_builder().build().expect("a client")
    }

    pub fn client_builder(&self) -> reqwest::ClientBuilder {
        let ca = reqwest::Certificate::from_pem(self.ca_pem().as_bytes()).expect("a certificate");
        reqwest::Client::builder().no_proxy().tls_certs_only([ca]).tls_info(true)
    }
}
