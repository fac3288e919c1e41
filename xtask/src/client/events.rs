//! `events`: the log, past and as it grows, and its chain of hashes.

mod chain;

use std::pin::pin;
use std::time::{Duration, Instant};

use futures::StreamExt;
use modelyard_api::{Client, ClientError};
use modelyard_core::event::Event;
use modelyard_core::{DeploymentName, Timestamp};

use super::output::{Format, Output, Table, note, say};
use super::when::{self, When};

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Events {
    #[command(subcommand)]
    command: Option<chain::Chain>,
    /// Only those of this deployment
    #[arg(long, value_name = "NAME")]
    deployment: Option<DeploymentName>,
    /// Only those since: 2026-11-24T12:00:00Z, "2026-11-24 12:00" (UTC), or -5m
    #[arg(long, allow_hyphen_values = true, value_name = "TIME")]
    since: Option<When>,
    /// Go on with those to come (from now on, without --since); JSON is one event per line then
    #[arg(long)]
    follow: bool,
    #[command(flatten)]
    output: Output,
}

pub(super) async fn run(args: Events, client: &Client) -> anyhow::Result<()> {
    if let Some(command) = args.command {
        return chain::run(command, client).await;
    }
    let now = when::now();
    let since = args.since.map(|since| since.resolve(now));
    if args.follow {
        return follow(client, args.deployment.as_ref(), since, now, args.output.format).await;
    }
    let events = client.events(args.deployment.as_ref(), since).await?;
    args.output.list("events", &events, table)
}

pub(super) fn table(events: &[Event]) -> Table {
    let mut table = Table::new(["AT", "EVENT", "SUBJECT", "ACTOR", "MESSAGE"]);
    for event in events {
        table.row([
            when::clock(event.at),
            event.what.kind.to_string(),
            subject(event),
            event.what.actor.to_string(),
            event.what.message.clone(),
        ]);
    }
    table
}

fn subject(event: &Event) -> String {
    match (&event.what.deployment, &event.what.model) {
        (Some(deployment), _) => deployment.to_string(),
        (None, Some(model)) => format!("model {model}"),
        (None, None) => String::new(),
    }
}

/// How long the server may be away.
const OUTAGE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(500);

async fn follow(
    client: &Client,
    deployment: Option<&DeploymentName>,
    mut since: Option<Timestamp>,
    begun: Timestamp,
    format: Format,
) -> anyhow::Result<()> {
    let mut last = i64::MIN;
    let mut away: Option<Instant> = None;
    loop {
        let broken = match client.follow_events(deployment, since).await {
            Ok(stream) => {
                if away.take().is_some() {
                    note(format_args!("{} answers again", client.server()));
                }
                let mut stream = pin!(stream);
                loop {
                    match stream.next().await {
                        // After a reconnect the first events may be ones that were shown.
                        Some(Ok(event)) if event.id > last => {
                            (last, since) = (event.id, Some(event.at));
                            say(line(&event, format)?)?;
                        }
                        Some(Ok(_)) => {}
                        Some(Err(error)) => break Some(error),
                        // The server ended the stream in order: it stops, and may start again.
                        None => break None,
                    }
                }
            }
            Err(error @ ClientError::Refused(_)) if error.status().is_some_and(|status| status < 500) => {
                return Err(error.into());
            }
            Err(error) => Some(error),
        };
        // What happens while the server is away is not to be missed.
        since.get_or_insert(begun);
        let since_when = *away.get_or_insert_with(|| {
            let why = broken.as_ref().map_or_else(|| "the server ended the stream".to_owned(), ToString::to_string);
            note(format_args!("{why}\nretrying for {} s", OUTAGE.as_secs()));
            Instant::now()
        });
        if since_when.elapsed() > OUTAGE {
            anyhow::bail!("{} is away for too long", client.server());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn line(event: &Event, format: Format) -> anyhow::Result<String> {
    Ok(match format {
        Format::Json => serde_json::to_string(event)?,
        Format::Yaml => {
            format!("---\n{}", modelyard_core::yaml::to_string(event).map_err(anyhow::Error::msg)?.trim_end())
        }
        // Columns of a fixed width: those to come are not known.
        Format::Table => format!(
            "{}  {:<18}  {:<16}  {:<12}  {}",
            when::clock(event.at),
            event.what.kind,
            subject(event),
            event.what.actor,
            event.what.message
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::samples;

    #[test]
    fn events_are_rows_lines_or_objects() {
        let events = samples::events();
        let lines: Vec<String> = [Format::Table, Format::Json, Format::Yaml]
            .into_iter()
            .map(|format| line(&events[0], format).unwrap())
            .collect();
        insta::assert_snapshot!(format!("{}\n{}", table(&events), lines.join("\n")));
    }
}
