//! `history --chart`: the shares of traffic by version over time and what was decided, as a picture (SVG).
//!
//! [`story`] reads the events, [`scale`] has the time axis, [`layout`] says what goes where, [`draw`] writes. All of
//! them are pure: what is drawn is what the server told.

mod draw;
mod layout;
mod scale;
mod story;
#[cfg(test)]
mod tests;

use std::path::Path;

use anyhow::Context;
use modelyard_api::types::{Revision, ServedWeight};
use modelyard_api::{Client, ClientError};
use modelyard_core::event::Event;
use modelyard_core::state::Outcome;
use modelyard_core::{DeploymentName, Timestamp};

use super::output::say;
use super::{Usage, when};
use story::Story;

/// Which stretch of a deployment's history, and all that the API knows of it.
pub(super) struct Past<'a> {
    name: &'a DeploymentName,
    /// What served at the beginning.
    before: &'a [ServedWeight],
    /// Oldest first.
    events: &'a [Event],
    revisions: &'a [Revision],
    /// Where the picture begins and ends; without, at the first event and a little after the last.
    since: Option<Timestamp>,
    until: Option<Timestamp>,
}

/// Asks for the history, and writes the picture to a file; `-` is standard output.
///
/// # Errors
/// An unknown deployment, a file that cannot be written, an end before the beginning.
pub(super) async fn write(
    client: &Client,
    name: &DeploymentName,
    file: &Path,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
) -> anyhow::Result<()> {
    if since.zip(until).is_some_and(|(since, until)| until <= since) {
        return Err(Usage("--until must be later than --since".into()).into());
    }
    let mut events = client.events(Some(name), since).await?;
    events.retain(|event| until.is_none_or(|until| event.at <= until));
    let before = match since {
        Some(since) => client.served(name, since).await?.weights,
        None => Vec::new(),
    };
    let revisions = match client.revisions(name).await {
        Ok(revisions) => revisions,
        // The events of a deployment outlive it.
        Err(ClientError::Refused(problem)) if problem.status == 404 && !events.is_empty() => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    let is_under_way = revisions.first().is_some_and(|latest| latest.outcome == Outcome::Pending);
    let until = until.or_else(|| is_under_way.then(when::now));
    let svg = svg(&Past { name, before: &before, events: &events, revisions: &revisions, since, until });
    if file == Path::new("-") {
        return Ok(say(svg.trim_end())?);
    }
    std::fs::write(file, svg).with_context(|| format!("writing {}", file.display()))?;
    Ok(say(format_args!("wrote {}", file.display()))?)
}

fn svg(past: &Past<'_>) -> String {
    draw::svg(&Story::of(past))
}
