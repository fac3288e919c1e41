//! The control planes: several addresses, behind each of which one is in office, or passes on to the one that is.
//!
//! Any of them will do, but for one whose lease has lapsed: it serves its last decisions for as long as nobody else is
//! in office, and cannot know when somebody is.

use std::time::Duration;

use anyhow::{Context, ensure};
use modelyard_core::GatewayId;
use reqwest::{Client, Response};

use crate::config::Config;
use crate::credentials::Credentials;

/// An answer that takes longer to begin is none: one that was stopped accepts connections, and never answers.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

pub(crate) struct ControlPlanes {
    gateway: GatewayId,
    /// Base URLs.
    addresses: Vec<String>,
    /// The one that is followed, or was last.
    current: usize,
    credentials: Credentials,
    http: Client,
}

impl ControlPlanes {
    pub(crate) fn new(config: &Config, gateway: GatewayId) -> anyhow::Result<Self> {
        let addresses = &config.control_plane;
        ensure!(!addresses.is_empty(), "--control-plane names no address");
        let addresses = addresses.iter().map(|a| a.trim_end_matches('/').to_owned()).collect();
        let credentials = Credentials::new(config);
        Ok(Self { gateway, addresses, current: 0, http: credentials.client()?, credentials })
    }

    pub(crate) fn current(&self) -> &str {
        self.addresses.get(self.current).map_or("", String::as_str)
    }

    /// A stream of route tables, from the first that answers: one in office, or else one whose lease has lapsed.
    ///
    /// # Errors
    /// Why the last one asked gave none.
    pub(crate) async fn follow(&mut self) -> anyhow::Result<Response> {
        self.reconnect()?;
        let mut lapsed = None;
        let mut failure = anyhow::anyhow!("no address");
        for index in self.in_turn(self.current) {
            match self.ask(index).await {
                Ok(stream) if has_lapsed(&stream) => lapsed = lapsed.or(Some((index, stream))),
                Ok(stream) => return Ok(self.choose(index, stream)),
                Err(error) => failure = error,
            }
        }
        lapsed.map(|(index, stream)| self.choose(index, stream)).ok_or(failure)
    }

    /// A stream from one that is in office, while the one that is followed is not sure to be. The address may be the
    /// same: there may be several behind it.
    pub(crate) async fn follow_another(&mut self) -> Option<Response> {
        let http = std::mem::replace(&mut self.http, self.credentials.client().ok()?);
        for index in self.in_turn(self.current + 1) {
            if let Some(stream) = self.ask(index).await.ok().filter(|stream| !has_lapsed(stream)) {
                return Some(self.choose(index, stream));
            }
        }
        self.http = http;
        None
    }

    /// The next stream is first asked of another than the one that just failed.
    pub(crate) fn give_up_current(&mut self) {
        self.current = (self.current + 1) % self.addresses.len();
    }

    /// Sends evidence to the one that is followed. True if its lease has lapsed.
    pub(crate) async fn send(&self, report: &modelyard_core::EvidenceReport) -> anyhow::Result<bool> {
        let sending = self.http.post(format!("{}/internal/v1/evidence", self.current())).json(report);
        let sending = self.credentials.sign(sending)?.send();
        let answer = tokio::time::timeout(ANSWER_WITHIN, sending).await.context("evidence is not taken")??;
        Ok(has_lapsed(&answer.error_for_status()?))
    }

    /// New connections: the old ones may lead to one that is out of office, behind an address that several share.
    fn reconnect(&mut self) -> anyhow::Result<()> {
        self.http = self.credentials.client()?;
        Ok(())
    }

    fn in_turn(&self, from: usize) -> impl Iterator<Item = usize> + use<> {
        let count = self.addresses.len();
        (0..count).map(move |n| (from + n) % count)
    }

    fn choose(&mut self, index: usize, stream: Response) -> Response {
        self.current = index;
        stream
    }

    async fn ask(&self, index: usize) -> anyhow::Result<Response> {
        let address = self.addresses.get(index).context("no such address")?;
        let asking = self.http.get(format!("{address}/internal/v1/routes?gateway={}", self.gateway));
        let asking = self.credentials.sign(asking)?.send();
        let answer = tokio::time::timeout(ANSWER_WITHIN, asking).await;
        let answer = answer.with_context(|| format!("{address} does not answer"))??;
        Ok(answer.error_for_status()?)
    }
}

fn has_lapsed(answer: &Response) -> bool {
    answer.headers().get("x-modelyard-office").is_some_and(|value| value == "lapsed")
}
