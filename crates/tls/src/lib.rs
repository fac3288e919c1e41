//! TLS for our listeners: a certificate and its key from files, read again when they change.
//!
//! Mounted Secrets change by the swap of a symlink, which no watch of the file itself sees: the content is compared,
//! every second. New handshakes use the new certificate; connections that run live on by the old one. A pair that
//! cannot be used is refused with the reason in the log, and the old one kept.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
pub use tokio_rustls::server::TlsStream;

/// For a client to shake hands. One that says nothing holds up nobody but itself.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What our listeners speak: one of these each.
const HTTP1: &[u8] = b"http/1.1";
const HTTP2: &[u8] = b"h2";

/// Where certificate and key are.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct TlsFiles {
    /// Serve TLS with this certificate: a PEM file with its chain, the server's own first. Read again when it changes.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// The certificate's private key, a PEM file.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read {}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{} and {} are no certificate and key: {reason}", certificate.display(), key.display())]
    Unusable { certificate: PathBuf, key: PathBuf, reason: String },
}

/// The server's side of TLS.
pub struct ServerTls {
    certificate: PathBuf,
    key: PathBuf,
    current: ArcSwap<Loaded>,
}

struct Loaded {
    pem: Pem,
    configs: Configs,
}

/// The same certificate, for what a listener speaks.
struct Configs {
    http1: Arc<ServerConfig>,
    http2: Arc<ServerConfig>,
    /// Whichever of both the client prefers.
    either: Arc<ServerConfig>,
}

#[derive(Clone, PartialEq, Eq)]
struct Pem {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl ServerTls {
    /// `None` where no files are named: plaintext.
    ///
    /// # Errors
    /// Files that cannot be read, or that are no certificate and its key.
    pub fn load(files: &TlsFiles) -> Result<Option<Arc<Self>>, TlsError> {
        let (Some(certificate), Some(key)) = (&files.tls_cert, &files.tls_key) else { return Ok(None) };
        let pem = read(certificate, key)?;
        let configs = configs(&pem).map_err(|reason| unusable(certificate, key, reason))?;
        let current = ArcSwap::from_pointee(Loaded { pem, configs });
        Ok(Some(Arc::new(Self { certificate: certificate.clone(), key: key.clone(), current })))
    }

    /// Shakes hands with a client that is to speak HTTP/1.1, by the certificate of now.
    ///
    /// # Errors
    /// A client that breaks off, wants what is not offered, or takes longer than ten seconds.
    pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> io::Result<TlsStream<S>> {
        let acceptor = TlsAcceptor::from(self.current.load().configs.http1.clone());
        tokio::time::timeout(HANDSHAKE_WITHIN, acceptor.accept(stream)).await?
    }

    /// As [`ServerTls::accept`], for HTTP/2.
    ///
    /// # Errors
    /// As there.
    pub async fn accept_http2<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> io::Result<TlsStream<S>> {
        let acceptor = TlsAcceptor::from(self.current.load().configs.http2.clone());
        tokio::time::timeout(HANDSHAKE_WITHIN, acceptor.accept(stream)).await?
    }

    /// As [`ServerTls::accept`], for HTTP/2 or HTTP/1.1: how the client begins tells which.
    ///
    /// # Errors
    /// As there.
    pub async fn accept_either<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> io::Result<TlsStream<S>> {
        let acceptor = TlsAcceptor::from(self.current.load().configs.either.clone());
        tokio::time::timeout(HANDSHAKE_WITHIN, acceptor.accept(stream)).await?
    }

    /// Looks for a changed certificate, for ever.
    pub async fn keep_current(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // What was seen last, and has been decided about. Two looks must see the same: files are not swapped together.
        let mut seen = self.current.load().pem.clone();
        let mut decided = seen.clone();
        loop {
            ticks.tick().await;
            let pem = match read(&self.certificate, &self.key) {
                Ok(pem) => pem,
                Err(error) => {
                    tracing::warn!(%error, "the certificate stays as it is");
                    continue;
                }
            };
            let is_settled = pem == seen;
            seen = pem;
            if is_settled && seen != decided {
                self.replace(&seen);
                decided.clone_from(&seen);
            }
        }
    }

    fn replace(&self, pem: &Pem) {
        match configs(pem) {
            Ok(configs) => {
                self.current.store(Arc::new(Loaded { pem: pem.clone(), configs }));
                tracing::info!(certificate = %self.certificate.display(), "a new certificate is in use");
            }
            Err(reason) => {
                let error = unusable(&self.certificate, &self.key, reason);
                tracing::error!(%error, "the new certificate is refused; the old one stays in use");
            }
        }
    }
}

fn read(certificate: &Path, key: &Path) -> Result<Pem, TlsError> {
    let read = |path: &Path| std::fs::read(path).map_err(|source| TlsError::File { path: path.to_owned(), source });
    Ok(Pem { certificate: read(certificate)?, key: read(key)? })
}

fn unusable(certificate: &Path, key: &Path, reason: String) -> TlsError {
    TlsError::Unusable { certificate: certificate.to_owned(), key: key.to_owned(), reason }
}

/// Also checks that the key is the certificate's.
fn configs(pem: &Pem) -> Result<Configs, String> {
    let chain = CertificateDer::pem_slice_iter(&pem.certificate).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| format!("the certificate: {error}"))?;
    let key = PrivateKeyDer::from_pem_slice(&pem.key).map_err(|error| format!("the key: {error}"))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| error.to_string())?.with_no_client_auth();
    let mut http1 = builder.with_single_cert(chain, key).map_err(|error| error.to_string())?;
    let mut http2 = http1.clone();
    let mut either = http1.clone();
    http1.alpn_protocols = vec![HTTP1.to_vec()];
    http2.alpn_protocols = vec![HTTP2.to_vec()];
    either.alpn_protocols = vec![HTTP2.to_vec(), HTTP1.to_vec()];
    Ok(Configs { http1: Arc::new(http1), http2: Arc::new(http2), either: Arc::new(either) })
}
