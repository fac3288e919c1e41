//! What the control plane is asked with: a token, and whom to trust. From files that may change at any time.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use reqwest::{Certificate, Client, RequestBuilder};

use crate::config::Config;

const CONNECT_WITHIN: Duration = Duration::from_secs(2);

pub(crate) struct Credentials {
    token_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    is_tls: bool,
}

impl Credentials {
    pub(crate) fn new(config: &Config) -> Self {
        let is_tls = config.control_plane.iter().any(|address| address.starts_with("https://"));
        Self { token_file: config.token_file.clone(), ca_file: config.ca_file.clone(), is_tls }
    }

    /// A client that trusts what the file of now says.
    pub(crate) fn client(&self) -> anyhow::Result<Client> {
        let builder = Client::builder().connect_timeout(CONNECT_WITHIN).no_proxy();
        let builder = match &self.ca_file {
            Some(path) => {
                let pem = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
                let trusted = Certificate::from_pem_bundle(&pem);
                builder.tls_certs_only(trusted.with_context(|| format!("no certificates in {}", path.display()))?)
            }
            // Plaintext trusts nobody, and must not need the system's certificates, which an image may not have.
            None if !self.is_tls => builder.tls_certs_only([]),
            None => builder,
        };
        Ok(builder.build()?)
    }

    /// Adds the token of now.
    pub(crate) fn sign(&self, request: RequestBuilder) -> anyhow::Result<RequestBuilder> {
        let Some(path) = &self.token_file else { return Ok(request) };
        let token = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(request.bearer_auth(token.trim()))
    }
}
