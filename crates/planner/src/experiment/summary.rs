//! An experiment's figures in one report.

use std::collections::BTreeMap;

use modelyard_core::outcomes::{
    Comparison, ExperimentReport, Leader, MetricEstimate, SampleRatio, Tally, VariantFigures,
};
use modelyard_core::state::Revision;
use modelyard_core::{
    DeploymentName, Experiment, Exposure, Goal, Metric, MetricName, RevisionVariant, UnitSample, VariantName,
};

use super::means::{Difference, LEAST_UNITS, Sample};
use super::ratio::sample_ratio;

/// Of all comparisons of one metric together.
const ALPHA: f64 = 0.05;

/// What an experiment has shown since weights last moved.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a> {
    pub deployment: &'a DeploymentName,
    pub experiment: &'a Experiment,
    /// The latest of those that have the layout in force.
    pub revision: &'a Revision,
    /// Whether it serves.
    pub running: bool,
    pub tallies: &'a [Tally],
    pub exposures: &'a BTreeMap<VariantName, Exposure>,
}

/// Variants are compared with the first one, at a joint level of 5 % per metric (Bonferroni). Who is ahead is said of the
/// first metric alone: of those the manifest names, else by name.
pub fn report(shown: &Shown<'_>) -> ExperimentReport {
    let metrics = shown.metrics();
    let sample_ratio = shown.sample_ratio();
    let leader = shown.leader(metrics.first(), &sample_ratio);
    let variants = &shown.revision.variants;
    ExperimentReport {
        deployment: shown.deployment.clone(),
        experiment: shown.experiment.began,
        since: shown.experiment.since,
        running: shown.running,
        compared_since: shown.experiment.layout().since,
        baseline: variants.first().map_or_else(VariantName::stable, |variant| variant.name.clone()),
        confidence: 1.0 - ALPHA,
        variants: variants.iter().map(|variant| shown.figures(variant, &metrics)).collect(),
        comparisons: metrics.iter().flat_map(|metric| shown.comparisons(metric)).collect(),
        leader,
        sample_ratio,
    }
}

impl Shown<'_> {
    /// Those that the manifest names, then others that there are outcomes of.
    fn metrics(&self) -> Vec<Metric> {
        let test = self.revision.spec.strategy.ab_test();
        let mut metrics = test.map(|test| test.metrics.clone()).unwrap_or_default();
        let mut seen: Vec<_> = self.tallies.iter().map(|tally| &tally.metric).collect();
        seen.sort();
        for name in seen {
            if metrics.iter().all(|metric| metric.name != *name) {
                metrics.push(Metric::plain(name.clone()));
            }
        }
        metrics
    }

    fn sample(&self, variant: &VariantName, metric: &MetricName) -> Option<Sample> {
        let tally = self.tallies.iter().find(|tally| tally.variant == *variant && tally.metric == *metric);
        tally.filter(|tally| tally.units > 0).map(Sample::from)
    }

    fn figures(&self, variant: &RevisionVariant, metrics: &[Metric]) -> VariantFigures {
        let exposure = self.exposures.get(&variant.name);
        let estimate = |metric: &Metric| {
            let sample = self.sample(&variant.name, &metric.name)?;
            let interval = sample.interval(ALPHA);
            Some(MetricEstimate { metric: metric.name.clone(), units: sample.units, mean: sample.mean, interval })
        };
        VariantFigures {
            name: variant.name.clone(),
            model: variant.version.model.clone(),
            version: variant.version.version.clone(),
            weight: variant.weight,
            units: exposure.map_or(0, |exposure| exposure.units.estimate()),
            requests: exposure.map_or(0, |exposure| exposure.requests),
            outcomes: metrics.iter().filter_map(estimate).collect(),
        }
    }

    fn comparisons(&self, metric: &Metric) -> Vec<Comparison> {
        let Some((baseline, others)) = self.revision.variants.split_first() else { return Vec::new() };
        let Some(of_baseline) = self.sample(&baseline.name, &metric.name) else { return Vec::new() };
        let together = float(others.len());
        let compare = |variant: &RevisionVariant| {
            let difference = Difference::of(self.sample(&variant.name, &metric.name)?, of_baseline);
            Some(Comparison {
                metric: metric.name.clone(),
                variant: variant.name.clone(),
                difference: difference.estimate,
                interval: difference.interval(ALPHA / together),
                p_value: difference.p_value().map(|p| (p * together).min(1.0)),
            })
        };
        others.iter().filter_map(compare).collect()
    }

    fn sample_ratio(&self) -> SampleRatio {
        let nobody = UnitSample::default();
        let units = |variant: &RevisionVariant| self.exposures.get(&variant.name).map_or(&nobody, |e| &e.units);
        sample_ratio(self.revision.variants.iter().map(|variant| (&variant.name, variant.weight, units(variant))))
    }

    fn leader(&self, metric: Option<&Metric>, ratio: &SampleRatio) -> Leader {
        let nobody = |why: String| Leader::NobodyYet { why };
        let Some(metric) = metric else { return nobody("there are no outcomes yet".into()) };
        if ratio.mismatch == Some(true) {
            return nobody("units are not split as the weights say: no figure is to be believed".into());
        }
        let variants = &self.revision.variants;
        let count = |v: &RevisionVariant| self.sample(&v.name, &metric.name).map_or(0, |sample| sample.units);
        if let Some(few) = variants.iter().filter(|v| count(v) < LEAST_UNITS).min_by_key(|v| count(v)) {
            let (have, name) = (count(few), &few.name);
            return nobody(format!(
                "{name} has {have} units with an outcome of {}; {LEAST_UNITS} are needed",
                metric.name
            ));
        }
        let pairs = float(variants.len()) * (float(variants.len()) - 1.0) / 2.0;
        let is_better = |one: &RevisionVariant, other: &RevisionVariant| {
            let sample = |v: &RevisionVariant| self.sample(&v.name, &metric.name);
            let interval =
                sample(one).zip(sample(other)).and_then(|(a, b)| Difference::of(a, b).interval(ALPHA / pairs));
            interval.is_some_and(|interval| match metric.goal {
                Goal::Increase => interval.lower > 0.0,
                Goal::Decrease => interval.upper < 0.0,
            })
        };
        let is_ahead =
            |one: &&RevisionVariant| variants.iter().all(|other| other.name == one.name || is_better(one, other));
        match variants.iter().find(is_ahead) {
            Some(variant) => Leader::Ahead { variant: variant.name.clone(), metric: metric.name.clone() },
            None => nobody(format!("no variant's {} is apart from that of every other", metric.name)),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a handful of variants")]
fn float(count: usize) -> f64 {
    count as f64
}
