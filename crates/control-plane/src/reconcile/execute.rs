//! Does what a plan says, in the order that keeps every promise: decisions first, then traffic, by what is seen to run;
//! then workloads are asked for and ended. Nobody waits for those: what comes of them is seen, and planned on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use modelyard_core::inputs::Inputs;
use modelyard_core::plan::{Commit, DeploymentReport, Plan};
use modelyard_core::{DeploymentName, Route, TableVersion};
use modelyard_store::StoreError;

use super::calls::Calls;
use super::drifts::Drifts;
use super::{Unfinished, gather};
use crate::app::App;

/// Deployments whose decision was not written: nothing is done for them, and their routes stay.
type Undecided = BTreeSet<DeploymentName>;

/// # Errors
/// If Postgres did not take a decision, or the lease lapsed on the way. Deployments whose decision was not written keep
/// their routes. Routes are published in either case: a table carries its epoch, and loses against any of a later one.
pub(super) async fn plan(app: &Arc<App>, plan: Plan, calls: &mut Calls) -> Result<(), Unfinished> {
    let Plan { commits, ensure, routes, remove, reports, .. } = plan;
    let (undecided, failure) = commit(app, &commits).await;
    // 2. Traffic moves by one table for all deployments. It names only workers that are ready now, and so need not wait
    // for those that are to come; and it leaves those that are to end before they do.
    let moved = publish(app, routes, &undecided);
    // 3. Workloads to start, scale or mend, and those that nothing wants and no gateway uses.
    ensure.into_values().filter(|w| !undecided.contains(&w.deployment)).for_each(|w| calls.ensure(app, w));
    // What is wanted no more may be by a decision that was not written: the next look tells.
    if undecided.is_empty() {
        remove.into_iter().for_each(|id| calls.remove(app, id));
    }
    // Whoever reads that a version serves, and asks, is to be answered by it.
    if let Some(version) = moved {
        app.gateways.caught_up(version).await;
    }
    report(app, reports, &undecided);
    failure.map_or(Ok(()), Err)
}

/// 1. Intent first. A deployment that was changed since the plan was made is left for the next look.
async fn commit(app: &App, commits: &BTreeMap<DeploymentName, Commit>) -> (Undecided, Option<Unfinished>) {
    if let Err(lapsed) = app.term.check() {
        let lapsed = (!commits.is_empty()).then_some(lapsed.into());
        return (commits.keys().cloned().collect(), lapsed);
    }
    let mut undecided = Undecided::new();
    let mut failure = None;
    // Those that make a revision go each by itself, and first: they are rollbacks.
    let (single, together): (BTreeMap<_, _>, BTreeMap<_, _>) =
        commits.iter().partition(|(_, commit)| commit.rollback.is_some());
    for (name, commit) in single {
        match app.store.commit(name, commit, app.term.epoch(), crate::app::now()).await {
            Ok(()) => {}
            Err(StoreError::Stale { .. } | StoreError::NotFound { .. } | StoreError::Conflict { .. }) => {
                undecided.insert(name.clone());
            }
            Err(error) => {
                undecided.insert(name.clone());
                failure = Some(error.into());
            }
        }
    }
    if !together.is_empty() {
        match app.store.commit_all(&together, app.term.epoch(), crate::app::now()).await {
            Ok(refused) => undecided.extend(refused),
            Err(error) => {
                undecided.extend(together.into_keys().cloned());
                failure = Some(error.into());
            }
        }
    }
    let written = commits.iter().filter(|(name, _)| !undecided.contains(*name));
    for (name, event) in written.flat_map(|(name, commit)| commit.events.iter().map(move |event| (name, event))) {
        tracing::info!(deployment = %name, kind = %event.kind, "{}", event.message);
    }
    if undecided.len() < commits.len() {
        app.wake.decided();
    }
    if !undecided.is_empty() {
        app.wake.look();
    }
    (undecided, failure)
}

/// The table's version, if it is a new one.
fn publish(app: &App, routes: BTreeMap<DeploymentName, Route>, undecided: &Undecided) -> Option<TableVersion> {
    let before = app.gateways.published();
    app.gateways.publish(decided(routes, undecided, &before.deployments))
}

/// What was planned, but for the deployments whose decision was not written: those stay as they are.
fn decided<T: Clone>(
    mut planned: BTreeMap<DeploymentName, T>,
    undecided: &Undecided,
    before: &BTreeMap<DeploymentName, T>,
) -> BTreeMap<DeploymentName, T> {
    for name in undecided {
        planned.remove(name);
        planned.extend(before.get(name).map(|kept| (name.clone(), kept.clone())));
    }
    planned
}

/// 4. What people are told.
fn report(app: &App, planned: BTreeMap<DeploymentName, DeploymentReport>, undecided: &Undecided) {
    app.reports.send_if_modified(|reports| {
        let next = decided(planned, undecided, reports);
        let changed = **reports != next;
        if changed {
            *reports = Arc::new(next);
        }
        changed
    });
}

/// 5. What was found and is no decision. What Postgres does not take now it is given by a later look.
///
/// # Errors
/// If another control plane is in office.
pub(super) async fn note(app: &App, drifts: &mut Drifts) -> Result<(), Unfinished> {
    if drifts.untold().is_empty() {
        return Ok(());
    }
    match app.store.note(drifts.untold(), app.term.epoch(), crate::app::now()).await {
        Ok(()) => {
            for event in drifts.untold().drain(..) {
                tracing::info!(kind = %event.kind, "{}", event.message);
            }
            app.wake.decided();
        }
        Err(error @ StoreError::Fenced { .. }) => return Err(error.into()),
        Err(error) => tracing::warn!(%error, "drift that was mended is not among the events yet"),
    }
    Ok(())
}

/// While Postgres is gone, or the lease lapsed: no decision is made, but workers that end or come back leave and join
/// the routes. Time and evidence stand still, so that the planner has nothing new to decide on; where readiness alone
/// would lead it to a decision, the deployment's route stays.
pub(super) async fn refresh_backends(app: &App, last: Option<&Inputs>, calls: &Calls) {
    let Some(last) = last else { return };
    let observation = gather::observation(app, &last.deployments, calls).await;
    let inputs = Inputs { observation, ..last.clone() };
    let plan = modelyard_planner::plan(&inputs);
    let undecided = plan.commits.into_keys().collect();
    publish(app, plan.routes, &undecided);
}
