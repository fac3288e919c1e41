//! Being asked to stop: Ctrl-C, SIGTERM, or the terminal going away.

use anyhow::{Context, Result};
use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Hears requests to stop, from its creation on. They are then no longer fatal by themselves.
#[derive(Debug, Clone)]
pub(crate) struct Interrupt {
    heard: watch::Receiver<Option<Signal>>,
}

impl Interrupt {
    pub(crate) fn listen() -> Result<Self> {
        let hear = |kind| signal(kind).context("cannot listen for signals");
        let (mut int, mut term, mut hup) =
            (hear(SignalKind::interrupt())?, hear(SignalKind::terminate())?, hear(SignalKind::hangup())?);
        let (tell, heard) = watch::channel(None);
        tokio::spawn(async move {
            loop {
                let signal = tokio::select! {
                    _ = int.recv() => Signal::INT,
                    _ = term.recv() => Signal::TERM,
                    _ = hup.recv() => Signal::HUP,
                };
                tell.send_replace(Some(signal));
            }
        });
        Ok(Self { heard })
    }

    /// Hears what a test says.
    #[cfg(test)]
    pub(crate) fn told_by(heard: watch::Receiver<Option<Signal>>) -> Self {
        Self { heard }
    }

    /// Waits for a request to stop; returns at once if there was one.
    pub(crate) async fn wait(&mut self) -> Signal {
        match self.heard.wait_for(Option::is_some).await.map(|heard| *heard) {
            Ok(Some(signal)) => signal,
            // The task above ends only with the runtime.
            _ => std::future::pending().await,
        }
    }
}
