//! The way to the other control planes, for requests that the one in office is to answer.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use reqwest::{Certificate, Client, Method, RequestBuilder, Url};

use crate::config::Serve;

/// For a connection: one that is gone must not hold a caller up for long.
const CONNECTS_WITHIN: Duration = Duration::from_secs(2);

pub struct Peers {
    authorities: Vec<Certificate>,
    /// What their certificates name, where they advertise addresses (of pods) that none can.
    name: Option<String>,
    /// For the address asked last: that of the control plane in office.
    client: Mutex<Option<(String, Client)>>,
}

impl Peers {
    /// # Errors
    /// If `--ca-file` cannot be read.
    pub fn new(config: &Serve) -> anyhow::Result<Self> {
        let authorities = match &config.ca_file {
            Some(file) => {
                let pem = std::fs::read(file).with_context(|| format!("cannot read --ca-file {}", file.display()))?;
                Certificate::from_pem_bundle(&pem).with_context(|| format!("--ca-file {}", file.display()))?
            }
            None => Vec::new(),
        };
        Ok(Self { authorities, name: config.peer_name.clone(), client: Mutex::default() })
    }

    /// A request to the control plane that advertises `address`, for a path and query.
    ///
    /// # Errors
    /// If what it advertises is no URL.
    pub(crate) fn request(&self, method: Method, address: &str, path: &str) -> anyhow::Result<RequestBuilder> {
        let mut url = Url::parse(&format!("{address}{path}")).with_context(|| format!("{address} is no address"))?;
        let at = numeric(&url);
        if let (Some(name), Some(_)) = (&self.name, at) {
            url.set_host(Some(name)).with_context(|| format!("--peer-name {name}"))?;
        }
        Ok(self.client(address, at)?.request(method, url))
    }

    fn client(&self, address: &str, at: Option<SocketAddr>) -> anyhow::Result<Client> {
        let mut known = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, client)) = known.as_ref().filter(|(of, _)| of == address) {
            return Ok(client.clone());
        }
        let redirects = reqwest::redirect::Policy::none();
        let mut builder = Client::builder().connect_timeout(CONNECTS_WITHIN).redirect(redirects).no_proxy();
        if let (Some(name), Some(at)) = (&self.name, at) {
            builder = builder.resolve(name, at);
        }
        let builder = self.authorities.iter().cloned().fold(builder, reqwest::ClientBuilder::add_root_certificate);
        let client = builder.build().context("no client for the other control planes")?;
        *known = Some((address.to_owned(), client.clone()));
        Ok(client)
    }
}

/// The address in a URL whose host is one, and no name.
fn numeric(url: &Url) -> Option<SocketAddr> {
    let ip: IpAddr = url.host_str()?.trim_matches(['[', ']']).parse().ok()?;
    Some(SocketAddr::new(ip, url.port_or_known_default()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_are_taken_for_addresses() {
        let of = |url: &str| numeric(&Url::parse(url).expect("a URL"));
        assert_eq!(of("https://10.1.2.3:8080/x"), Some(([10, 1, 2, 3], 8080).into()));
        assert_eq!(of("https://10.1.2.3"), Some(([10, 1, 2, 3], 443).into()));
        assert_eq!(of("http://[::1]:80"), Some("[::1]:80".parse().expect("an address")));
        assert_eq!(of("https://control-plane:8080"), None);
    }
}
