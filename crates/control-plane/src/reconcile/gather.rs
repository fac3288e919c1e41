//! Everything a plan is made from: what is wanted (Postgres), what runs (the runtime), what gateways saw, the time.

use std::collections::BTreeMap;

use modelyard_core::inputs::{DesiredDeployment, Inputs};
use modelyard_core::{DeploymentName, Observation, Observed, Timestamp, WorkloadId};
use modelyard_store::StoreError;

use crate::app::App;

/// # Errors
/// If Postgres does not answer, or another control plane is in office.
pub(super) async fn inputs(app: &App, now: Timestamp) -> Result<Inputs, StoreError> {
    let deployments = app.store.desired(app.term.epoch()).await?;
    let observation = observation(app, &deployments).await;
    Ok(Inputs {
        now,
        epoch: app.term.epoch(),
        observation,
        evidence: app.gateways.evidence(),
        in_use: app.gateways.in_use(),
        deployments,
    })
}

/// A runtime that does not answer leaves every workload that might run unknown: nothing is started twice, and nothing
/// is taken to be ready.
pub(super) async fn observation(app: &App, deployments: &BTreeMap<DeploymentName, DesiredDeployment>) -> Observation {
    match app.runtime.observe().await {
        Ok(observation) => observation,
        Err(error) => {
            tracing::warn!(%error, "the runtime cannot be observed");
            let reason = error.to_string();
            let unknown = |id: WorkloadId| (id, Observed::Unknown { reason: reason.clone() });
            let ids = deployments.iter().flat_map(|(name, d)| d.revisions.values().map(|r| r.workload(name).id));
            Observation { workloads: ids.map(unknown).collect() }
        }
    }
}
