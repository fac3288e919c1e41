//! `events head`, `events verify`: proof that no event was changed, removed or reordered.

use indicatif::{ProgressBar, ProgressStyle};
use modelyard_api::Client;
use modelyard_core::ChainHead;
use modelyard_core::chain::Verifier;
use serde::Serialize;

use super::super::output::{Output, count, is_terminal, say};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Chain {
    /// Print how far the events have come, POSITION:HASH; kept elsewhere, it vouches for all of them up to now
    Head,
    /// Prove that no event was changed, removed or reordered; every hash is computed here, not by the server
    Verify(Verify),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Verify {
    /// Verify those after this head, which was verified before; from the first event on, without it
    #[arg(long, value_name = "HEAD", default_value_t = ChainHead::BEGIN, hide_default_value = true)]
    from: ChainHead,
    /// A head that was kept, and must be found again: events cut off or written anew show by it. May be repeated
    #[arg(long, value_name = "HEAD")]
    expect: Vec<ChainHead>,
    #[command(flatten)]
    output: Output,
}

pub(super) async fn run(command: Chain, client: &Client) -> anyhow::Result<()> {
    match command {
        Chain::Head => Ok(say(client.events_head().await?)?),
        Chain::Verify(args) => verify(args, client).await,
    }
}

/// What was proved.
#[derive(Debug, Serialize)]
struct Verified {
    events: u64,
    from: ChainHead,
    /// Of the last event.
    head: ChainHead,
    /// Heads that were found again.
    expected: Vec<ChainHead>,
}

async fn verify(args: Verify, client: &Client) -> anyhow::Result<()> {
    let Verify { from, expect, output } = args;
    let bar = bar(client.events_head().await?.position);
    let verified =
        client.verify_events(Verifier::new(from, expect.iter().copied()), |at| bar.set_position(position(at))).await;
    bar.finish_and_clear();
    let (head, events) = verified?;
    let verified = Verified { events, from, head, expected: expect };
    output.show(&verified, || words(&verified))
}

fn words(verified: &Verified) -> String {
    let Verified { events, from, head, expected } = verified;
    let after = if *from == ChainHead::BEGIN { String::new() } else { format!(" after position {}", from.position) };
    let found = match expected.len() {
        0 => "no earlier head was given (--expect), so events cut off from the end would not show".to_owned(),
        n => format!("{} found again", count(n, "earlier head")),
    };
    format!("{}{after} verified: none was changed, removed or reordered; {found}\nhead {head}", count(*events, "event"))
}

fn bar(last: i64) -> ProgressBar {
    if !is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("verifying [{bar:30}] {pos}/{len} events {eta}");
    let bar = ProgressBar::new(position(last));
    if let Ok(style) = style { bar.with_style(style) } else { bar }
}

fn position(at: i64) -> u64 {
    u64::try_from(at).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_proved_is_said_and_no_more() {
        let head = |position| ChainHead { position, ..ChainHead::BEGIN };
        let mut verified = Verified { events: 7, from: ChainHead::BEGIN, head: head(7), expected: Vec::new() };
        assert_eq!(
            words(&verified),
            format!(
                "7 events verified: none was changed, removed or reordered; no earlier head was given (--expect), so \
                 events cut off from the end would not show\nhead 7:{}",
                "0".repeat(64)
            )
        );
        (verified.events, verified.from, verified.expected) = (1, head(6), vec![head(7)]);
        let said = words(&verified);
        assert!(
            said.starts_with("1 event after position 6 verified: ") && said.contains("; 1 earlier head found again\n")
        );
    }
}
