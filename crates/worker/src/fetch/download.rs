//! One attempt to bring what is missing of an artifact.
//!
//! The credentials go to the host of the URL only: it may send us on to a bucket, by an address that is signed.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use modelyard_core::Digest;
use reqwest::header::{CONTENT_RANGE, RANGE};
use reqwest::{Certificate, Client, Response, StatusCode, Url};
use tokio::runtime::Handle;

use super::cache::Cache;
use super::part::Part;
use super::{FetchError, Source};
use crate::progress::{Progress, Stage};
use crate::size::ByteSize;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// For the next bytes to come. There is no limit to the whole: artifacts may be large, and links slow.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
const LOG_EVERY: Duration = Duration::from_secs(10);
/// Of an error's body, for the message.
const LONGEST_ANSWER: usize = 500;

/// Why an attempt brought no artifact.
pub(super) enum Failure {
    /// Another attempt may do better.
    Passing(String),
    WrongContent {
        found: Digest,
    },
    Final(FetchError),
}

impl From<FetchError> for Failure {
    fn from(error: FetchError) -> Self {
        Self::Final(error)
    }
}

pub(super) struct Downloader {
    http: Client,
    url: Url,
    token_file: Option<PathBuf>,
    runtime: Handle,
}

impl Downloader {
    pub(super) fn new(source: &Source, runtime: Handle) -> Result<Self, FetchError> {
        let builder = || {
            Client::builder()
                .connect_timeout(CONNECT_TIMEOUT)
                .read_timeout(STALL_TIMEOUT)
                // A bucket need not learn where it was sent from.
                .referer(false)
                .user_agent(concat!("modelyard-worker/", env!("CARGO_PKG_VERSION")))
        };
        let own = own_certificates(source)?;
        // Without any certificates (a bare image) there still is http.
        let http = builder().tls_certs_merge(own).build().or_else(|_| builder().tls_certs_only([]).build());
        let http = http.map_err(|error| FetchError::Client(words(&error)))?;
        Ok(Self { http, url: source.url.clone(), token_file: source.token_file.clone(), runtime })
    }

    /// The URL without what may be secret in it.
    pub(super) fn place(&self) -> String {
        place(&self.url)
    }

    /// Completes `part`, from where it ends.
    pub(super) fn download(
        &self,
        part: &mut Part,
        cache: &Cache,
        digest: Digest,
        progress: &Progress,
    ) -> Result<(), Failure> {
        // Whoever had the turn before us died between its last byte and the end.
        if part.length() > 0 && part.digest() == digest {
            return Ok(());
        }
        progress.set(Stage::Downloading { received: part.length(), total: None });
        let mut response = self.ask(part)?;
        let total = response.content_length().map(|rest| part.length() + rest);
        if let Some(total) = total {
            cache.make_room(total - part.length())?;
        }
        tracing::info!(
            from = place(response.url()),
            size = total.map(|total| ByteSize(total).to_string()),
            resumed_at = part.length(),
            "downloading the artifact"
        );
        let mut logged = Instant::now();
        while let Some(chunk) = self.next(&mut response)? {
            part.append(&chunk)?;
            let stage = Stage::Downloading { received: part.length(), total };
            if logged.elapsed() >= LOG_EVERY {
                logged = Instant::now();
                tracing::info!("{stage}");
            }
            progress.set(stage);
        }
        let found = part.digest();
        if found == digest { Ok(()) } else { Err(Failure::WrongContent { found }) }
    }

    /// Asks for what is missing. What is answered goes to the end of `part`.
    fn ask(&self, part: &mut Part) -> Result<Response, Failure> {
        let mut request = self.http.get(self.url.clone());
        if let Some(token) = self.token()? {
            request = request.bearer_auth(token);
        }
        if part.length() > 0 {
            request = request.header(RANGE, format!("bytes={}-", part.length()));
        }
        let sent = self.runtime.block_on(request.send());
        let response = sent.map_err(|error| Failure::Passing(format!("{}: {}", self.place(), words(&error))))?;
        match response.status() {
            StatusCode::PARTIAL_CONTENT if starts_at(&response) == Some(part.length()) => Ok(response),
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => {
                part.restart()?;
                Err(Failure::Passing(format!("{} does not go on from where the last attempt ended", self.place())))
            }
            StatusCode::OK => {
                // Ranges are not known there: all over again.
                if part.length() > 0 {
                    part.restart()?;
                }
                Ok(response)
            }
            status => Err(self.refused(status, response)),
        }
    }

    /// Read at each attempt: a token that expired is replaced in place.
    fn token(&self) -> Result<Option<String>, Failure> {
        let Some(path) = &self.token_file else { return Ok(None) };
        let waiting = |why: &str| Failure::Passing(format!("waiting for a token in {}: {why}", path.display()));
        match fs::read_to_string(path) {
            Ok(text) if text.trim().is_empty() => Err(waiting("it is empty")),
            Ok(text) => Ok(Some(text.trim().to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(waiting("there is no such file yet")),
            Err(error) => Err(waiting(&error.to_string())),
        }
    }

    fn next(&self, response: &mut Response) -> Result<Option<bytes::Bytes>, Failure> {
        let next = self.runtime.block_on(response.chunk());
        next.map_err(|error| {
            Failure::Passing(format!("the download from {} broke off: {}", place(response.url()), words(&error)))
        })
    }

    fn refused(&self, status: StatusCode, response: Response) -> Failure {
        let url = place(response.url());
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            let waits = match &self.token_file {
                Some(path) => format!("waiting for a token in {} that is accepted", path.display()),
                None => "waiting for it to be allowed; no --token-file was given".into(),
            };
            return Failure::Passing(format!("{url} answered {}: {waits}", status.as_u16()));
        }
        let passes = status.is_server_error()
            || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS | StatusCode::CONFLICT);
        let said = self.said(response);
        if passes {
            return Failure::Passing(format!("{url} answered {}: {said}", status.as_u16()));
        }
        Failure::Final(FetchError::Refused { url, status: status.as_u16(), said })
    }

    /// What a refusal says, in one line: the detail of a problem document, or the beginning of the text.
    fn said(&self, mut response: Response) -> String {
        let mut body = Vec::new();
        while body.len() < LONGEST_ANSWER
            && let Ok(Some(chunk)) = self.runtime.block_on(response.chunk())
        {
            body.extend_from_slice(&chunk);
        }
        let detail = serde_json::from_slice::<serde_json::Value>(&body).ok();
        if let Some(detail) = detail.as_ref().and_then(|problem| problem["detail"].as_str()) {
            return detail.to_owned();
        }
        body.truncate(LONGEST_ANSWER);
        let text = String::from_utf8_lossy(&body).split_whitespace().collect::<Vec<_>>().join(" ");
        if text.is_empty() { "it gives no reason".into() } else { text }
    }
}

fn own_certificates(source: &Source) -> Result<Vec<Certificate>, FetchError> {
    let Some(path) = &source.ca_file else { return Ok(Vec::new()) };
    let unusable = |reason: String| FetchError::Certificates { path: path.clone(), reason };
    let pem = fs::read(path).map_err(|error| unusable(error.to_string()))?;
    let found = Certificate::from_pem_bundle(&pem).map_err(|error| unusable(words(&error)))?;
    if found.is_empty() { Err(unusable("there are none in it".into())) } else { Ok(found) }
}

/// Where a part of an artifact begins: `bytes FIRST-LAST/SIZE`.
fn starts_at(response: &Response) -> Option<u64> {
    let text = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    text.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok()
}

/// Scheme, host and path: a query may be a signature, and a user a password.
fn place(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{host}{port}{}", url.scheme(), url.path())
}

/// The chain of causes, without the URL: it may hold a signature.
fn words(error: &reqwest::Error) -> String {
    let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    let mut words: Vec<String> = causes.map(ToString::to_string).collect();
    words.dedup();
    let kind = match error {
        error if error.is_timeout() && error.is_connect() => "no connection in time",
        error if error.is_timeout() => "nothing came in time",
        error if error.is_connect() => "it cannot be reached",
        error if error.is_redirect() => "it sends us around in circles",
        _ => "the exchange failed",
    };
    match words.last() {
        Some(last) => format!("{kind} ({last})"),
        None => kind.to_owned(),
    }
}
