//! A/B tests in words.

use std::collections::BTreeSet;

use modelyard_core::inputs::DesiredDeployment;
use modelyard_core::state::Revision;
use modelyard_core::{AbTest, DeploymentName, Experiment, VariantName, Workload, WorkloadId};

/// From whatever serves to an A/B test.
pub(super) fn begin(name: &DeploymentName, new: &Revision, test: &AbTest, after: &DesiredDeployment) -> Vec<String> {
    let running = running(name, after);
    let missing: Vec<_> = new.workloads(name).into_iter().filter(|w| !running.contains(&w.id)).collect();
    let mut lines: Vec<_> = missing.iter().map(start).collect();
    let (at_once, later) = ("all that it needs runs already", "begin when all of its workers are ready");
    lines.push(if missing.is_empty() { at_once } else { later }.to_owned());
    lines.push(format!("split units by {}: {}", test.sticky_by, split(new)));
    lines.extend(moved(name, new, after));
    lines.extend(test.rules.iter().map(|rule| {
        format!("requests with {}: {} go to {}, whoever makes them", rule.header, rule.equals, rule.variant)
    }));
    lines
}

fn start(workload: &Workload) -> String {
    format!("start {} worker(s) of {} version {}", workload.replicas, workload.model, workload.version)
}

fn split(new: &Revision) -> String {
    let words = |v: &modelyard_core::RevisionVariant| {
        let version = &v.version;
        let of = if version.model == new.version.model { String::new() } else { format!("{} ", version.model) };
        format!("{} ({of}version {}) {}", v.name, version.version, v.weight)
    };
    new.variants.iter().map(words).collect::<Vec<_>>().join(", ")
}

/// Whether it is the experiment that runs, and who changes sides then.
fn moved(name: &DeploymentName, new: &Revision, after: &DesiredDeployment) -> Option<String> {
    let last = after.state.experiment.as_ref()?;
    let stable = after.state.stable.and_then(|number| after.revisions.get(&number))?;
    let is_running = !stable.variants.is_empty();
    let next = Experiment::of(new, Some(last), is_running, name, last.since)?;
    if next.began != last.began {
        return Some("a new experiment begins, in which units are shuffled anew".into());
    }
    let points = |point: u16| (last.slots().variant_at(point), next.slots().variant_at(point));
    let moved =
        (0..10_000).map(points).filter(|(before, after): &(&VariantName, &VariantName)| before != after).count();
    let began = last.began;
    Some(match moved {
        0 => format!("the experiment of revision {began} goes on; every unit keeps its variant"),
        _ => {
            let percent = f64::from(u16::try_from(moved).unwrap_or(10_000)) / 100.0;
            format!("the experiment of revision {began} goes on; {percent} % of the units change their variant")
        }
    })
}

/// What runs by the state as it is.
fn running(name: &DeploymentName, after: &DesiredDeployment) -> BTreeSet<WorkloadId> {
    let numbers = after.state.warm.iter().map(|warm| warm.revision).chain(after.state.stable);
    let revisions = numbers.filter_map(|number| after.revisions.get(&number));
    revisions.flat_map(|revision| revision.workloads(name)).map(|workload| workload.id).collect()
}

/// Whether all that a revision runs is there.
pub(super) fn is_running(name: &DeploymentName, revision: &Revision, after: &DesiredDeployment) -> bool {
    let running = running(name, after);
    revision.workloads(name).iter().all(|workload| running.contains(&workload.id))
}
