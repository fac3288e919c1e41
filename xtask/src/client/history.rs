//! `history`: the revisions of a deployment, or what served at a time.

use modelyard_api::Client;
use modelyard_api::types::Served;
use modelyard_core::DeploymentName;

use super::get;
use super::output::{Output, Table};
use super::when::{self, When};

#[derive(Debug, clap::Args)]
pub(crate) struct History {
    name: DeploymentName,
    /// Tell what served then: 2026-11-24T12:00:00Z, "2026-11-24 12:00" (UTC), or -5m
    #[arg(long, allow_hyphen_values = true, value_name = "TIME")]
    at: Option<When>,
    #[command(flatten)]
    output: Output,
}

pub(super) async fn run(args: History, client: &Client) -> anyhow::Result<()> {
    match args.at {
        Some(at) => {
            let served = client.served(&args.name, at.resolve(when::now())).await?;
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
