//! Where artifacts come from that the control plane reads itself.
//!
//! Where the API answers to tokens, whoever applies is not the one who owns this machine: what only the control plane can
//! see (its files, its own and its machine's services) is not to be had through it.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use modelyard_core::manifest::ArtifactUri;
use object_store::ObjectStoreExt;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use tokio_util::io::ReaderStream;
use url::Host;

use crate::bucket::Bucket;

pub(crate) type Content = BoxStream<'static, Result<Bytes, String>>;

const CONNECTS_WITHIN: Duration = Duration::from_secs(10);
const MOST_REDIRECTS: usize = 10;

pub struct Sources {
    files: Files,
    http: reqwest::Client,
    /// Whether whoever applies may only have what others outside this machine can have, too.
    is_guarded: bool,
}

/// Which files of this machine may become artifacts.
enum Files {
    All,
    Below(PathBuf),
    None,
}

impl Sources {
    /// `asks_for_tokens`: whether the API does. `directory`: the files that may be registered even so.
    ///
    /// # Errors
    /// A directory that is not there.
    pub fn new(asks_for_tokens: bool, directory: Option<&Path>) -> anyhow::Result<Self> {
        let files = match directory {
            Some(directory) => Files::Below(canonical(directory).map_err(anyhow::Error::msg)?),
            None if asks_for_tokens => Files::None,
            None => Files::All,
        };
        let http = reqwest::Client::builder().connect_timeout(CONNECTS_WITHIN);
        let http = if asks_for_tokens { http.dns_resolver(Arc::new(Outside)).redirect(outside()) } else { http };
        Ok(Self { files, http: http.build()?, is_guarded: asks_for_tokens })
    }

    /// The content behind a URI. Errors are told to whoever applies.
    pub(super) async fn open(&self, uri: &ArtifactUri) -> Result<Content, String> {
        match uri {
            ArtifactUri::Relative(path) | ArtifactUri::File(path) => self.file(path).await,
            ArtifactUri::Http(url) => self.fetch(url).await,
            ArtifactUri::Bucket(url) => {
                let bucket = Bucket::at(url).map_err(|e| format!("cannot reach {url}: {e}"))?;
                let found = bucket.store.get(&bucket.key).await.map_err(|e| format!("cannot fetch {url}: {e}"))?;
                Ok(found.into_stream().map_err(|e| e.to_string()).boxed())
            }
        }
    }

    async fn file(&self, path: &str) -> Result<Content, String> {
        let path = match &self.files {
            Files::All => PathBuf::from(path),
            Files::None => {
                return Err(
                    "files of the control plane's machine are not for those who apply with a token: upload it \
                            (a path relative to the manifest), or start the control plane with --file-artifacts DIR"
                        .into(),
                );
            }
            // Whether there is such a file elsewhere is not told either.
            Files::Below(directory) => match canonical(Path::new(path)) {
                Ok(found) if found.starts_with(directory) => found,
                _ => {
                    return Err(format!("there is no {path} in {}, which --file-artifacts names", directory.display()));
                }
            },
        };
        let file = tokio::fs::File::open(&path).await.map_err(|e| format!("cannot read {}: {e}", path.display()))?;
        Ok(ReaderStream::with_capacity(file, 256 * 1024).map_err(|e| e.to_string()).boxed())
    }

    async fn fetch(&self, url: &str) -> Result<Content, String> {
        let parsed = url::Url::parse(url).map_err(|error| format!("{url}: {error}"))?;
        if self.is_guarded && is_inside(&parsed) {
            return Err(format!("cannot fetch {url}: {INSIDE}"));
        }
        let response = self.http.get(parsed).send().await.map_err(|e| format!("cannot fetch {url}: {}", cause(&e)))?;
        if !response.status().is_success() {
            return Err(format!("cannot fetch {url}: it answered {}", response.status()));
        }
        Ok(response.bytes_stream().map_err(|e| cause(&e)).boxed())
    }
}

fn canonical(path: &Path) -> Result<PathBuf, String> {
    path.canonicalize().map_err(|error| format!("cannot read {}: {error}", path.display()))
}

fn cause(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(next) = innermost.source() {
        innermost = next;
    }
    innermost.to_string()
}

const INSIDE: &str = "it leads to the control plane's own machine, or to what its machine alone may ask";

/// Loopback and link-local addresses: the latter are those of clouds' metadata services. Private networks are where
/// artifacts mostly are, and stay open.
fn is_inside_address(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_unspecified() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unspecified() || ip.is_unicast_link_local(),
    }
}

/// Of a host that is an address: names are looked at when they are resolved.
fn is_inside(url: &url::Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => is_inside_address(ip.into()),
        Some(Host::Ipv6(ip)) => is_inside_address(ip.into()),
        Some(Host::Domain(_)) | None => false,
    }
}

fn outside() -> Policy {
    Policy::custom(|attempt| {
        if attempt.previous().len() > MOST_REDIRECTS {
            attempt.error("too many redirects")
        } else if is_inside(attempt.url()) {
            attempt.error(INSIDE)
        } else {
            attempt.follow()
        }
    })
}

/// Resolves names to addresses that are not this machine's own.
struct Outside;

impl Resolve for Outside {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let outside: Vec<_> = found.filter(|address| !is_inside_address(address.ip())).collect();
            if outside.is_empty() {
                return Err(INSIDE.into());
            }
            Ok(Box::new(outside.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn refusal(sources: &Sources, uri: ArtifactUri) -> String {
        sources.open(&uri).await.err().expect("a refusal")
    }

    #[tokio::test]
    async fn with_tokens_no_file_of_the_machine_is_an_artifact() {
        let sources = Sources::new(true, None).expect("sources");
        let refused = refusal(&sources, ArtifactUri::File("/proc/self/environ".into())).await;
        assert!(refused.contains("--file-artifacts"), "{refused}");
    }

    #[tokio::test]
    async fn a_directory_of_artifacts_is_not_left() {
        let dir = tempfile::tempdir().expect("a directory");
        let (models, secret) = (dir.path().join("models"), dir.path().join("secret"));
        std::fs::create_dir(&models).expect("a directory");
        std::fs::write(&secret, "x").expect("a file");
        std::fs::write(models.join("m.onnx"), "x").expect("a file");
        std::os::unix::fs::symlink(&secret, models.join("link")).expect("a link");
        let sources = Sources::new(true, Some(&models)).expect("sources");
        let uri = |path: PathBuf| ArtifactUri::File(path.display().to_string());
        assert!(sources.open(&uri(models.join("m.onnx"))).await.is_ok());
        for path in [secret, models.join("../secret"), models.join("link"), models.join("none")] {
            let refused = refusal(&sources, uri(path)).await;
            assert!(refused.starts_with("there is no "), "{refused}");
        }
    }

    #[tokio::test]
    async fn with_tokens_the_machines_own_services_are_not_fetched() {
        let sources = Sources::new(true, None).expect("sources");
        for host in ["127.0.0.1", "localhost", "169.254.169.254", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "[fe80::1]"]
        {
            let refused = refusal(&sources, ArtifactUri::Http(format!("http://{host}:9/m.onnx"))).await;
            assert!(refused.ends_with(INSIDE), "{host}: {refused}");
        }
    }
}
