//! `history`: the revisions of a deployment, what served at a time, or a picture of it.

use std::path::PathBuf;

use modelyard_api::Client;
use modelyard_api::types::Served;
use modelyard_core::DeploymentName;

use super::output::{Output, Table};
use super::when::{self, When};
use super::{chart, get};

#[derive(Debug, clap::Args)]
pub(crate) struct History {
    name: DeploymentName,
    /// Tell what served then: 2026-11-24T12:00:00Z, "2026-11-24 12:00" (UTC), or -5m
    #[arg(long, allow_hyphen_values = true, value_name = "TIME")]
    at: Option<When>,
    /// Draw the shares of traffic by version over time, and what was decided, into this file as SVG; - is standard output
    #[arg(long, conflicts_with_all = ["at", "format"], value_name = "FILE")]
    chart: Option<PathBuf>,
    /// Where the picture begins, as for --at; without, at the first event
    #[arg(long, allow_hyphen_values = true, requires = "chart", value_name = "TIME")]
    since: Option<When>,
    /// Where it ends; without, a little after the last event, or now in mid-rollout
    #[arg(long, allow_hyphen_values = true, requires = "chart", value_name = "TIME")]
    until: Option<When>,
    #[command(flatten)]
    output: Output,
}

pub(super) async fn run(args: History, client: &Client) -> anyhow::Result<()> {
    let now = when::now();
    let resolved = |time: Option<When>| time.map(|time| time.resolve(now));
    if let Some(file) = &args.chart {
        return chart::write(client, &args.name, file, resolved(args.since), resolved(args.until)).await;
    }
    match resolved(args.at) {
        Some(at) => {
            let served = client.served(&args.name, at).await?;
            args.output.show(&served, || sentence(&served))
        }
        None => args.output.list("revisions", &client.revisions(&args.name).await?, get::revisions),
    }
}

fn sentence(served: &Served) -> String {
    let at = when::clock(served.at);
    if served.weights.is_empty() {
        return format!("at {at}, {} served nothing", served.deployment);
    }
    let mut table = Table::new(["VARIANT", "REVISION", "VERSION", "WEIGHT"]);
    for w in &served.weights {
        // Variants of an experiment may be of other models than the deployment's.
        let version = w.model.as_ref().map_or_else(|| w.version.to_string(), |m| format!("{} of {m}", w.version));
        table.row([w.variant.to_string(), w.revision.to_string(), version, w.weight.to_string()]);
    }
    let since = served.since.map_or_else(String::new, |since| format!(", since {}", when::clock(since)));
    format!("at {at}, {} served{since}:\n{table}", served.deployment)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::samples;

    #[test]
    fn what_served_is_a_sentence_and_a_table() {
        let mut served = samples::served();
        insta::assert_snapshot!(sentence(&served));
        served.weights.clear();
        assert_eq!(sentence(&served), "at 2026-11-24T12:00:00Z, linear served nothing");
    }
}
