//! `experiment`: what an A/B test has shown, and its end.

use std::fmt::Write;

use anyhow::Context;
use modelyard_api::types::Conclude;
use modelyard_api::{Client, types};
use modelyard_core::manifest::parse_strategy;
use modelyard_core::outcomes::{ExperimentReport, Interval, Leader, MetricEstimate, SampleRatio};
use modelyard_core::{DeploymentName, RevisionNumber, Span, VariantName};

use super::Usage;
use super::follow::{self, Target};
use super::output::{Output, Table};
use super::render::field;
use super::when::clock;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Experiment {
    /// Per variant: units, requests, outcomes with intervals that hold however often one looks; who is ahead, if anybody
    Status {
        name: DeploymentName,
        #[command(flatten)]
        output: Output,
    },
    /// Give all traffic to the version of a variant
    Conclude(End),
}

#[derive(Debug, clap::Args)]
pub(crate) struct End {
    name: DeploymentName,
    /// The variant
    #[arg(long, value_name = "VARIANT")]
    winner: VariantName,
    /// How it gets the traffic: a strategy as manifests have it, such as '{canary: {steps: [{weight: 60, hold: 1h}]}}'.
    /// At once by default, as its workers run already
    #[arg(long, default_value = "rolling", value_name = "STRATEGY")]
    strategy: String,
    /// Wait until it serves all traffic
    #[arg(long)]
    wait: bool,
    /// How long --wait may take
    #[arg(long, default_value = "10m", value_name = "DURATION")]
    timeout: Span,
    /// Refuse if the deployment's latest revision is not this one
    #[arg(long, value_name = "REVISION")]
    if_match: Option<RevisionNumber>,
    #[command(flatten)]
    output: Output,
}

pub(super) async fn run(args: Experiment, client: &Client) -> anyhow::Result<()> {
    match args {
        Experiment::Status { name, output } => {
            let report = client.experiment(&name).await?;
            output.show(&report, || status(&report))
        }
        Experiment::Conclude(args) => conclude(args, client).await,
    }
}

async fn conclude(args: End, client: &Client) -> anyhow::Result<()> {
    let strategy = strategy(&args.strategy)?;
    let wanted = Conclude { winner: args.winner, strategy: Some(strategy) };
    let revision = client.conclude(&args.name, &wanted, args.if_match).await?;
    args.output.show(&revision, || {
        let types::Revision { number, version, cause, .. } = &revision;
        format!("modeldeployment/{} turns to version {version} (revision {number}: {cause})", args.name)
    })?;
    if args.wait {
        let target = Target { deployment: args.name, revision: revision.number, rollback_is_success: false };
        follow::until_done(client, vec![target], Some(args.timeout.as_duration())).await?;
    }
    Ok(())
}

/// A strategy as YAML; a word alone is one without settings.
fn strategy(text: &str) -> anyhow::Result<serde_json::Value> {
    let is_word = text.chars().all(|c| c.is_ascii_alphanumeric());
    let text = if is_word { format!("{{{text}: {{}}}}") } else { text.to_owned() };
    let strategy = parse_strategy(&text).map_err(|problems| {
        let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
        Usage(format!("--strategy: {}", lines.join("; ")))
    })?;
    serde_json::to_value(&strategy).context("a strategy is JSON")
}

/// `experiment status` for people.
fn status(report: &ExperimentReport) -> String {
    let mut s = String::new();
    field(&mut s, "deployment", report.deployment.as_str());
    let over = if report.running { "" } else { ", over" };
    field(&mut s, "experiment", &format!("of revision {}, since {}{over}", report.experiment, clock(report.since)));
    if report.compared_since != report.since {
        let since = clock(report.compared_since);
        field(&mut s, "compared", &format!("since {since}, when weights last moved"));
    }
    field(&mut s, "ahead", &leader(&report.leader));
    field(&mut s, "split", &split(&report.sample_ratio));
    // Writing to a String does not fail.
    write!(s, "\n{}", variants(report)).ok();
    if !report.comparisons.is_empty() {
        let confidence = report.confidence * 100.0;
        write!(s, "\ncompared with {}, at {confidence} % for each metric:\n{}", report.baseline, differences(report))
            .ok();
    }
    s
}

fn leader(leader: &Leader) -> String {
    match leader {
        Leader::Ahead { variant, metric } => format!("{variant}, by {metric}"),
        Leader::NobodyYet { why } => format!("nobody can say yet: {why}"),
    }
}

fn split(ratio: &SampleRatio) -> String {
    let p = ratio.p_value.map_or_else(String::new, |p| format!(" (p {})", probability(p)));
    match ratio.mismatch {
        None => "too few units to tell".into(),
        Some(false) => format!("as the weights say{p}"),
        Some(true) => {
            let counts = ratio.counts.iter().map(|c| format!("{} {} of {:.0}", c.variant, c.units, c.expected));
            let counts = counts.collect::<Vec<_>>().join(", ");
            format!("NOT as the weights say{p}: {counts} expected. Do not believe these figures")
        }
    }
}

fn variants(report: &ExperimentReport) -> Table {
    let mut table = Table::new(["VARIANT", "MODEL", "VERSION", "WEIGHT", "UNITS", "REQUESTS", "OUTCOMES"]);
    for v in &report.variants {
        let outcomes: Vec<_> = v.outcomes.iter().map(outcome).collect();
        table.row([
            v.name.to_string(),
            v.model.to_string(),
            v.version.to_string(),
            v.weight.to_string(),
            v.units.to_string(),
            v.requests.to_string(),
            outcomes.join("; "),
        ]);
    }
    table
}

fn outcome(estimate: &MetricEstimate) -> String {
    let MetricEstimate { metric, units, mean, interval } = estimate;
    format!("{metric} {} {} of {units} units", number(*mean), interval.as_ref().map(between).unwrap_or_default())
}

fn differences(report: &ExperimentReport) -> Table {
    let mut table = Table::new(["METRIC", "VARIANT", "DIFFERENCE", "INTERVAL", "P"]);
    for c in &report.comparisons {
        table.row([
            c.metric.to_string(),
            c.variant.to_string(),
            format!("{:+}", Rounded(c.difference)),
            c.interval.as_ref().map(between).unwrap_or_default(),
            c.p_value.map(probability).unwrap_or_default(),
        ]);
    }
    table
}

fn between(interval: &Interval) -> String {
    format!("[{}, {}]", number(interval.lower), number(interval.upper))
}

fn number(value: f64) -> String {
    Rounded(value).to_string()
}

/// Four digits that count.
struct Rounded(f64);

impl std::fmt::Display for Rounded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let magnitude = self.0.abs().log10().floor();
        let after_point = if magnitude.is_finite() { 3.0 - magnitude } else { 3.0 };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to small numbers")]
        let after_point = after_point.clamp(0.0, 9.0) as usize;
        if f.sign_plus() { write!(f, "{:+.after_point$}", self.0) } else { write!(f, "{:.after_point$}", self.0) }
    }
}

fn probability(p: f64) -> String {
    if p < 0.0001 { "< 0.0001".into() } else { format!("{p:.4}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use modelyard_core::outcomes::{Comparison, SampleCount, VariantFigures};
    use modelyard_core::{Timestamp, Weight};

    fn report() -> ExperimentReport {
        let interval = |lower, upper| Some(Interval { lower, upper });
        let variant = |name: &str, version: &str, mean, bounds| VariantFigures {
            name: name.parse().unwrap(),
            model: "linear".parse().unwrap(),
            version: version.parse().unwrap(),
            weight: Weight::from_percent(50.0).unwrap(),
            units: 5_000,
            requests: 21_034,
            outcomes: vec![MetricEstimate { metric: "clicked".parse().unwrap(), units: 4_900, mean, interval: bounds }],
        };
        let count = |name: &str, units| SampleCount { variant: name.parse().unwrap(), units, expected: 2_000.0 };
        ExperimentReport {
            deployment: "linear".parse().unwrap(),
            experiment: RevisionNumber(2),
            since: Timestamp::from_millis(1_764_000_000_000),
            running: true,
            compared_since: Timestamp::from_millis(1_764_086_400_000),
            baseline: "control".parse().unwrap(),
            confidence: 0.95,
            variants: vec![
                variant("control", "1", 0.2004, interval(0.18, 0.22)),
                variant("treatment", "2", 0.2601, interval(0.24, 0.28)),
            ],
            comparisons: vec![Comparison {
                metric: "clicked".parse().unwrap(),
                variant: "treatment".parse().unwrap(),
                difference: 0.0597,
                interval: interval(0.0301, 0.0893),
                p_value: Some(0.000_01),
            }],
            leader: Leader::Ahead { variant: "treatment".parse().unwrap(), metric: "clicked".parse().unwrap() },
            sample_ratio: SampleRatio {
                mismatch: Some(false),
                p_value: Some(0.87),
                counts: vec![count("control", 2_010), count("treatment", 1_990)],
            },
        }
    }

    #[test]
    fn an_experiment_is_told_with_its_figures() {
        insta::assert_snapshot!(status(&report()));
    }

    #[test]
    fn what_is_not_to_be_believed_is_told_first() {
        let mut report = report();
        report.sample_ratio.mismatch = Some(true);
        report.leader = Leader::NobodyYet { why: "units are not split as the weights say".into() };
        let text = status(&report);
        assert!(text.contains("NOT as the weights say (p 0.8700): control 2010 of 2000"), "{text}");
        assert!(text.contains("nobody can say yet: units"), "{text}");
    }

    #[test]
    fn numbers_have_four_digits_that_count() {
        let shown: Vec<_> = [0.0, 0.012_345_6, 12.345_67, 123_456.7, -0.5].map(number).into();
        assert_eq!(shown, ["0.000", "0.01235", "12.35", "123457", "-0.5000"]);
        assert_eq!(format!("{:+}", Rounded(0.25)), "+0.2500");
    }

    #[test]
    fn a_strategy_is_a_word_or_what_manifests_have() {
        assert_eq!(strategy("rolling").unwrap(), serde_json::json!({"rolling": {}}));
        assert!(strategy("{canary: {steps: [{weight: 60, hold: 1h}]}}").is_ok());
        let error = strategy("canary").unwrap_err().to_string();
        assert!(error.contains("`steps` is missing"), "{error}");
    }
}
