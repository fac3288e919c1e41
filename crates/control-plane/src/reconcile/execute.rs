//! Does what a plan says, in the order that keeps every promise: decisions first, then workloads, then traffic, then
//! what is no longer needed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use modelyard_core::inputs::Inputs;
use modelyard_core::plan::Plan;
use modelyard_core::{DeploymentName, Route};
use modelyard_store::StoreError;

use super::{Unfinished, gather};
use crate::app::App;
use crate::office::NotInOffice;

/// # Errors
/// If Postgres did not take a decision, or the lease lapsed on the way. Deployments whose decision was not written keep
/// their routes. Routes are published in either case: a table carries its epoch, and loses against any of a later one.
pub(super) async fn plan(app: &App, plan: &Plan) -> Result<(), Unfinished> {
    let (undecided, failure) = commit(app, plan).await;
    let ensured = ensure(app, plan).await;
    publish(app, plan, &undecided);
    let removed = remove(app, plan).await;
    report(app, plan, &undecided);
    failure.map_or(Ok(()), Err)?;
    Ok(ensured.and(removed)?)
}

/// 1. Intent first. A deployment that was changed since the plan was made is left for the next look.
async fn commit(app: &App, plan: &Plan) -> (BTreeSet<DeploymentName>, Option<Unfinished>) {
    let mut undecided = BTreeSet::new();
    let mut failure = None;
    for (name, commit) in &plan.commits {
        if let Err(lapsed) = app.term.check() {
            undecided.insert(name.clone());
            failure = Some(lapsed.into());
            continue;
        }
        let written = app.store.commit(name, commit, app.term.epoch(), crate::app::now()).await;
        match written {
            Ok(()) => {
                for event in &commit.events {
                    tracing::info!(deployment = %name, kind = %event.kind, "{}", event.message);
                }
                app.wake.written();
            }
            Err(StoreError::Stale { .. } | StoreError::NotFound { .. } | StoreError::Conflict { .. }) => {
                undecided.insert(name.clone());
                app.wake.look();
            }
            Err(error) => {
                undecided.insert(name.clone());
                failure = Some(error.into());
            }
        }
    }
    (undecided, failure)
}

/// 2. Workloads to start, scale or stamp.
async fn ensure(app: &App, plan: &Plan) -> Result<(), NotInOffice> {
    for (id, workload) in &plan.ensure {
        app.term.check()?;
        if let Err(error) = app.runtime.ensure(workload, app.term.epoch()).await {
            tracing::warn!(workload = %id, %error, "a workload could not be ensured; trying again");
        }
    }
    Ok(())
}

/// 3. Traffic moves by one table for all deployments.
fn publish(app: &App, plan: &Plan, undecided: &BTreeSet<DeploymentName>) {
    let before = app.gateways.published();
    app.gateways.publish(decided(&plan.routes, undecided, &before.deployments));
}

/// The planned routes, but for the deployments whose decision was not written: those stay as they are.
fn decided(
    planned: &BTreeMap<DeploymentName, Route>,
    undecided: &BTreeSet<DeploymentName>,
    before: &BTreeMap<DeploymentName, Route>,
) -> BTreeMap<DeploymentName, Route> {
    let planned = planned.iter().filter(|(name, _)| !undecided.contains(name));
    let kept = before.iter().filter(|(name, _)| undecided.contains(name));
    planned.chain(kept).map(|(name, route)| (name.clone(), route.clone())).collect()
}

/// 4. What nothing wants and no gateway uses.
async fn remove(app: &App, plan: &Plan) -> Result<(), NotInOffice> {
    for id in &plan.remove {
        app.term.check()?;
        if let Err(error) = app.runtime.remove(id, app.term.epoch()).await {
            tracing::warn!(workload = %id, %error, "a workload could not be removed; trying again");
        }
    }
    Ok(())
}

/// 5. What people are told.
fn report(app: &App, plan: &Plan, undecided: &BTreeSet<DeploymentName>) {
    app.reports.send_if_modified(|reports| {
        let planned = plan.reports.iter().filter(|(name, _)| !undecided.contains(name));
        let kept = reports.iter().filter(|(name, _)| undecided.contains(name));
        let next = planned.chain(kept).map(|(name, report)| (name.clone(), report.clone())).collect();
        let changed = **reports != next;
        if changed {
            *reports = Arc::new(next);
        }
        changed
    });
}

/// While Postgres is gone, or the lease lapsed: no decision is made, but workers that end or come back leave and join the routes. Time and
/// evidence stand still, so that the planner has nothing new to decide on; where readiness alone would lead it to a
/// decision, the deployment's route stays.
pub(super) async fn refresh_backends(app: &App, last: Option<&Inputs>) {
    let Some(last) = last else { return };
    let observation = gather::observation(app, &last.deployments).await;
    let inputs = Inputs { observation, ..last.clone() };
    let plan = modelyard_planner::plan(&inputs);
    let undecided = plan.commits.keys().cloned().collect();
    publish(app, &plan, &undecided);
}
