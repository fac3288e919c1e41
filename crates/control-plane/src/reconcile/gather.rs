//! Everything a plan is made from: what is wanted (Postgres), what runs (the runtime), what gateways saw, the time.

use std::collections::BTreeMap;

use modelyard_core::inputs::{DesiredDeployment, Inputs};
use modelyard_core::{DeploymentName, Observation, Observed, Timestamp, WorkloadId};
use modelyard_store::StoreError;

use super::calls::Calls;
use super::drifts::Drifts;
use crate::app::App;

/// From `last`, what the look before was made from: of what is wanted, only what was written to since is read again.
///
/// # Errors
/// If Postgres does not answer, or another control plane is in office. `last` stays as it was.
pub(super) async fn inputs<'l>(
    app: &App,
    now: Timestamp,
    last: &'l mut Option<Inputs>,
    calls: &Calls,
    drifts: &mut Drifts,
) -> Result<&'l Inputs, StoreError> {
    let mut first = Inputs::default();
    let known = last.as_mut().map_or(&mut first.deployments, |last| &mut last.deployments);
    app.store.refresh_desired(app.term.epoch(), known).await?;
    let aliases = app.store.all_aliases().await?;
    let inputs = last.get_or_insert(first);
    inputs.aliases = aliases;
    inputs.observation = observation(app, &inputs.deployments, calls).await;
    inputs.failures.clone_from(calls.failures());
    inputs.drifts.clone_from(drifts.recent(now));
    inputs.now = now;
    inputs.epoch = app.term.epoch();
    inputs.evidence = app.gateways.evidence();
    inputs.measurements = app.measurements.of(inputs.deployments.values());
    inputs.in_use = app.gateways.in_use();
    Ok(inputs)
}

/// A runtime that does not answer leaves every workload that might run unknown: nothing is started twice, and nothing
/// is taken to be ready. So is what is being removed: whoever wants it again waits for what comes of the call.
pub(super) async fn observation(
    app: &App,
    deployments: &BTreeMap<DeploymentName, DesiredDeployment>,
    calls: &Calls,
) -> Observation {
    let mut observation = observed(app, deployments).await;
    observation.take_for_unknown(calls.removing(), "it is being removed");
    observation
}

async fn observed(app: &App, deployments: &BTreeMap<DeploymentName, DesiredDeployment>) -> Observation {
    match app.runtime.observe().await {
        Ok(observation) => observation,
        Err(error) => {
            tracing::warn!(%error, "the runtime cannot be observed");
            let reason = error.to_string();
            let unknown = |id: WorkloadId| (id, Observed::Unknown { reason: reason.clone() });
            let workloads = |(name, d): (&DeploymentName, &DesiredDeployment)| -> Vec<WorkloadId> {
                d.revisions.values().flat_map(|r| r.workloads(name)).map(|workload| workload.id).collect()
            };
            let ids = deployments.iter().flat_map(workloads);
            Observation { workloads: ids.map(unknown).collect() }
        }
    }
}
